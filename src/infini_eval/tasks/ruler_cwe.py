"""ruler_cwe: RULER's common words: ten words stand in a numbered list more often than the others."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from infini_eval.api.task import Generator, Question, RowInputs
from infini_eval.datasets.words import all_words
from infini_eval.errors import ConfigError
from infini_eval.tasks._ruler import ruler_task
from infini_eval.tasks._ruler_lists import longest_that_fits

OPTIONS = {"common": "10", "common_times": "auto", "others_times": "auto", "example": "yes"}
SHORT = 4_096  # below this context length RULER's lists repeat their words less often
INTRO = (
    "Below is a numbered list of words. In these words, some appear more often than others. "
    "Memorize the ones that appear most often.\n"
)
QUESTION = (
    "\nQuestion: What are the {common} most common words in the above list? "
    "Answer: The top {common} words that appear most often in the list are:"
)


@dataclass(frozen=True)
class Shape:
    """How often common and other words stand in the list; words, and the same two, of the worked example."""

    common_times: int
    others_times: int
    example_words: int
    example_common_times: int
    example_others_times: int


LONG_SHAPE = Shape(30, 3, 40, 10, 3)
SHORT_SHAPE = Shape(6, 1, 20, 3, 1)


def question(draw: RowInputs) -> Question:
    """As many other words as fit; the list is never padded, so prompts are a little below their length."""
    shape = SHORT_SHAPE if draw.context_length < SHORT else LONG_SHAPE
    common = draw.int_option("common")
    times, others = _times(draw, "common_times", shape.common_times), _times(draw, "others_times", shape.others_times)
    words = list(all_words())
    example = _example(draw, words, common, shape)
    draw.rng.shuffle(words)
    wanted, rest = tuple(words[:common]), words[common:]
    order = draw.rng.getrandbits(64)

    def make(number: int) -> str:
        return example + _listed(wanted, times, _more(rest, number), others, order)

    text = longest_that_fits(make, draw.target, draw.tokenizer, smallest=1)
    return Question(None, ", ".join(wanted), wanted, text=text)


def _listed(common: Sequence[str], times: int, others: Sequence[str], others_times: int, order: int) -> str:
    """Intro, the numbered list in its shuffled order, question."""
    listed = [word for word in common for _ in range(times)] + [word for word in others for _ in range(others_times)]
    random.Random(order).shuffle(listed)
    context = " ".join(f"{i}. {word}" for i, word in enumerate(listed, 1))
    return f"{INTRO}{context}{QUESTION.format(common=len(common))}"


def _example(draw: RowInputs, words: list[str], common: int, shape: Shape) -> str:
    """RULER's worked example, drawn anew for each prompt: a short list with its answer."""
    if draw.options["example"] not in ("yes", "no"):
        raise ConfigError(f"--option example={draw.options['example']} is not known", valid="example=yes or example=no")
    if draw.options["example"] == "no":
        return ""
    drawn = draw.rng.sample(words, max(shape.example_words, common + 1))
    common_words, others = drawn[:common], drawn[common:]
    order = draw.rng.getrandbits(64)
    answer = " ".join(f"{i}. {word}" for i, word in enumerate(common_words, 1))
    listed = _listed(common_words, shape.example_common_times, others, shape.example_others_times, order)
    return f"{listed} {answer}\n"


def _times(draw: RowInputs, name: str, usual: int) -> int:
    return usual if draw.options[name] == "auto" else draw.int_option(name)


def _more(words: list[str], number: int) -> list[str]:
    """`number` different words; numbered ones where the lists run out."""
    return [words[i] if i < len(words) else f"{words[i % len(words)]}{i // len(words)}" for i in range(number)]


GENERATOR = Generator(
    question,
    answer_budget=120,
    length_includes_answer=True,
    needs_haystack=False,
    options=OPTIONS,
    notes=(
        "ruler_cwe: where the words run out (after about 24,000 entries) RULER's list stops growing; here numbered words "
        "follow (word1, word2, …), so such lengths are not comparable with published scores",
    ),
)
TASK = ruler_task("ruler_cwe", GENERATOR, 120)
