"""passkey: a number hidden in irrelevant text, asked for at the end."""

from __future__ import annotations

import random

from infini_eval.datasets.compose import Insert, Recipe
from infini_eval.datasets.needle_position import find_passkey
from infini_eval.datasets.passkey_text import (
    INTRO_1K,
    INTRO_16K,
    NEEDLE,
    NEEDLE_OPENING,
    NEEDLE_SENTENCES,
    PASSAGE,
    QUESTION,
    SHOT_KINDS,
)
from infini_eval.datasets.shots import shots_text
from infini_eval.datasets.validate import validate
from infini_eval.records import Sample
from infini_eval.tasks._task import Task

__all__ = ["INTRO_16K", "INTRO_1K", "NEEDLE", "NEEDLE_SENTENCES", "PASSAGE", "QUESTION", "SHOT_KINDS", "TASK"]


def locate(sample: Sample) -> tuple[int, int] | None:
    """The needle's half-open character span in the prompt."""
    return find_passkey(sample.prompt, sample.answer)


TASK = Task(
    name="passkey",
    scorers=("exact_digits", "contains"),
    max_new_tokens=15,
    validate=validate,
    locate=locate,
)


def recipe(depth: float, key: str, shot_keys: tuple[str, ...], rng: random.Random) -> Recipe:
    """The 1K set's wording around a haystack: "{intro} {shots}\\n Passage: {haystack with needle}. {question}"."""
    needle = NEEDLE.format(key=key).rstrip(" ")
    start = needle.index(NEEDLE_OPENING)
    return Recipe(
        prefix=f"{INTRO_1K} {shots_text(shot_keys, rng)}{PASSAGE}".rstrip(" "),
        inserts=(Insert(needle, depth, (start, len(needle))),),
        suffix=f". {QUESTION}",
    )
