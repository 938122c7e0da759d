"""The wording of passkey prompts, and the worked examples ("shots") that a few training prompts carry."""

from __future__ import annotations

import random

from scripts.train_demo.text import random_number

INTRO_16K = (
    "There is a pass key hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about what is the pass key later on."
)
INTRO = INTRO_16K + " \n"
PASSAGE = "\n Passage: "
NEEDLE = ". The pass key is {k}. Remember it. {k} is the pass key. "
QUESTION = "What is the pass key? The pass key is "
SHOT_NAMES = ("gatecode", "vault key", "encrypted message")


def shot_text(rng: random.Random, haystack: str) -> str:
    """One worked example: a short passage with another secret's number, the question about it and the answer."""
    name, key = rng.choice(SHOT_NAMES), random_number(rng)
    needle = f"The {name} is {key}. Remember it. {key} is the {name}. "
    question = f"What is the {name}? The {name} is {key}"
    ending = rng.choice((". \n", "\n", ".\n\n", " \n "))
    return PASSAGE + haystack + ". " + needle + ". " + question + ending
