"""passkey: a number hidden in irrelevant text, asked for at the end."""

from __future__ import annotations

from infini_eval.api.task import Generator, Insert, Question, Recipe, RowInputs, Task
from infini_eval.data.passkey import (
    INTRO_1K,
    INTRO_16K,
    NEEDLE,
    NEEDLE_OPENING,
    NEEDLE_SENTENCES,
    PASSAGE,
    QUESTION,
    SHOT_KINDS,
    find_passkey,
    shots_text,
    validate,
)
from infini_eval.records import Sample

__all__ = ["INTRO_1K", "INTRO_16K", "NEEDLE", "NEEDLE_SENTENCES", "PASSAGE", "QUESTION", "SHOT_KINDS", "TASK"]


def locate(sample: Sample) -> tuple[int, int] | None:
    """The needle's half-open character span in the prompt."""
    return find_passkey(sample.prompt, sample.answer)


def question(draw: RowInputs) -> Question:
    """The 1K set's wording: "{intro} {shots}\\n Passage: {haystack with needle}. {question}"."""
    needle = NEEDLE.format(key=draw.key).rstrip(" ")
    start = needle.index(NEEDLE_OPENING)
    recipe = Recipe(
        prefix=f"{INTRO_1K} {shots_text(draw.shot_keys, draw.rng)}{PASSAGE}".rstrip(" "),
        inserts=(Insert(needle, draw.depth, (start, len(needle))),),
        suffix=f". {QUESTION}",
    )
    return Question(recipe, draw.key)


TASK = Task(
    name="passkey",
    scorers=("exact_digits", "contains", "chat_digits"),
    max_new_tokens=15,
    validate=validate,
    locate=locate,
    generator=Generator(question, forbidden_text=NEEDLE_OPENING, numeric=True),
)
