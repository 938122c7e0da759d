"""ruler_cwe: RULER's common words: ten words stand in a numbered list 30 times each, the others 3 times."""

from __future__ import annotations

import random

from infini_eval.datasets.question import Draw, Generator, Question
from infini_eval.datasets.words import word_lists
from infini_eval.tasks._ruler import ruler_task
from infini_eval.tasks._ruler_lists import longest_that_fits

OPTIONS = {"common": "10", "common_times": "30", "others_times": "3"}
INTRO = (
    "Below is a numbered list of words. In these words, some appear more often than others. "
    "Memorize the ones that appear most often.\n"
)


def question(draw: Draw) -> Question:
    """As many other words as fit; the list is never padded, so prompts are a little below their length."""
    common, times, others = (draw.whole(name) for name in OPTIONS)
    adjectives, nouns = word_lists()
    words = sorted({*adjectives, *nouns})
    draw.rng.shuffle(words)
    wanted, rest = tuple(words[:common]), words[common:]
    order = draw.rng.getrandbits(64)

    def make(number: int) -> str:
        listed = [
            *(word for word in wanted for _ in range(times)),
            *(w for w in _more(rest, number) for _ in range(others)),
        ]
        random.Random(order).shuffle(listed)
        context = " ".join(f"{i}. {word}" for i, word in enumerate(listed, 1))
        return (
            f"{INTRO}{context}\nQuestion: What are the {common} most common words in the above list? "
            f"Answer: The top {common} words that appear most often in the list are:"
        )

    text = longest_that_fits(make, draw.target, draw.tokenizer, smallest=1)
    return Question(None, ", ".join(wanted), wanted, text=text)


def _more(words: list[str], number: int) -> list[str]:
    """`number` different words; numbered ones where the lists run out."""
    return [words[i] if i < len(words) else f"{words[i % len(words)]}{i // len(words)}" for i in range(number)]


GENERATOR = Generator(
    question,
    answer_budget=120,
    length_includes_answer=True,
    needs_haystack=False,
    options=OPTIONS,
    notes=("ruler_cwe is made without RULER's worked example",),
)
TASK = ruler_task("ruler_cwe", GENERATOR, 120)
