"""ruler_fwe: RULER's frequent words: coded words with zeta-distributed frequencies, the three commonest asked for."""

from __future__ import annotations

import random

from infini_eval.datasets.question import Draw, Generator, Question
from infini_eval.errors import ConfigError
from infini_eval.tasks._ruler import ruler_task
from infini_eval.tasks._ruler_lists import longest_that_fits

OPTIONS = {"alpha": "2.0"}
VOCABULARY = 2_000
LETTERS = "abcdefghijklmnopqrstuvwxyz"
NOISE = "...."  # takes the place of the commonest word
INTRO = (
    "Read the following coded text and track the frequency of each coded word. "
    "Find the three most frequently appeared coded words. "
)
QUESTION = (
    "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently "
    "appeared words in the above coded text? Answer: According to the coded text above, the three most frequently "
    "appeared words are:"
)


def question(draw: Draw) -> Question:
    """The word of rank r stands there in proportion to r**-alpha; as many words as fit."""
    alpha = _alpha(draw.options["alpha"])
    words = _coded_words(draw.rng)
    weights = [rank**-alpha for rank in range(1, VOCABULARY + 1)]
    total = sum(weights)
    order = draw.rng.getrandbits(64)

    def make(number: int) -> str:
        counts = [round(number * weight / total) for weight in weights]
        listed = [word for word, count in zip(words, counts, strict=True) for _ in range(count)]
        random.Random(order).shuffle(listed)
        return INTRO + " ".join(listed) + QUESTION

    wanted = tuple(words[1:4])
    text = longest_that_fits(make, draw.target, draw.tokenizer, smallest=100)
    return Question(None, " ".join(wanted), wanted, text=text)


def _alpha(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if value <= 0:
        raise ConfigError(f"--option alpha={text} is not known", valid="a number above 0, as alpha=2.0")
    return value


def _coded_words(rng: random.Random) -> list[str]:
    found: dict[str, None] = {NOISE: None}
    while len(found) < VOCABULARY:
        found["".join(LETTERS[rng.randrange(26)] for _ in range(6))] = None
    return list(found)


GENERATOR = Generator(question, answer_budget=50, length_includes_answer=True, needs_haystack=False, options=OPTIONS)
TASK = ruler_task("ruler_fwe", GENERATOR, 50)
