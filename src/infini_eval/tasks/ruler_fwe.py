"""ruler_fwe: RULER's frequent words: coded words with zeta-distributed frequencies, the three commonest asked for."""

from __future__ import annotations

import math
import random

from infini_eval.api.task import Generator, Question, RowInputs
from infini_eval.errors import ConfigError
from infini_eval.tasks._ruler import ruler_task
from infini_eval.tasks._ruler_lists import longest_that_fits

OPTIONS = {"alpha": "2.0"}
TOKENS_A_WORD = 50  # the vocabulary has a word for so many tokens of context
FEWEST_WORDS = 10
LETTERS = "abcdefghijklmnopqrstuvwxyz"
NOISE = "..."  # takes the place of the commonest word; the question has four dots, as published
INTRO = (
    "Read the following coded text and track the frequency of each coded word. "
    "Find the three most frequently appeared coded words. "
)
QUESTION = (
    "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently "
    "appeared words in the above coded text? Answer: According to the coded text above, the three most frequently "
    "appeared words are:"
)


def question(draw: RowInputs) -> Question:
    """The word of rank r stands there n * r**-alpha / zeta(alpha) times, rounded down; n as large as fits."""
    from scipy.special import zeta

    alpha = _alpha(draw.options["alpha"])
    words = _coded_words(draw.rng, max(FEWEST_WORDS, draw.context_length // TOKENS_A_WORD))
    weights = [rank**-alpha / float(zeta(alpha)) for rank in range(1, len(words) + 1)]
    order = draw.rng.getrandbits(64)

    def make(number: int) -> str:
        counts = [int(number * weight) for weight in weights]
        listed = [word for word, count in zip(words, counts, strict=True) for _ in range(count)]
        random.Random(order).shuffle(listed)
        return INTRO + " ".join(listed) + QUESTION

    wanted = tuple(words[1:4])
    fewest = math.ceil(1 / (weights[3] - weights[4]))  # from here on the third word is more frequent than the fourth
    text = longest_that_fits(make, draw.target, draw.tokenizer, smallest=fewest)
    return Question(None, " ".join(wanted), wanted, text=text)


def _alpha(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 < value <= 10:
        raise ConfigError(f"--option alpha={text} is not known", valid="a number above 1 and up to 10, as alpha=2.0")
    return value


def _coded_words(rng: random.Random, number: int) -> list[str]:
    found: dict[str, None] = {NOISE: None}
    while len(found) < number:
        found["".join(LETTERS[rng.randrange(26)] for _ in range(6))] = None
    return list(found)


GENERATOR = Generator(
    question,
    answer_budget=50,
    length_includes_answer=True,
    needs_haystack=False,
    options=OPTIONS,
    notes=("ruler_fwe: words are coded anew for each prompt, where RULER has one vocabulary in a file",),
)
TASK = ruler_task("ruler_fwe", GENERATOR, 50)
