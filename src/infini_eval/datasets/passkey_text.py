"""The wording of passkey prompts, exactly as the published data sets have it (1K and 16K form), and of the shots."""

from __future__ import annotations

from dataclasses import dataclass

INTRO_16K = (
    "There is a pass key hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about what is the pass key later on."
)
INTRO_1K = INTRO_16K + " \n"
PASSAGE = "\n Passage: "
NEEDLE = ". The pass key is {key}. Remember it. {key} is the pass key. "
NEEDLE_SENTENCES = "The pass key is {key}. Remember it. {key} is the pass key."
QUESTION = "What is the pass key? The pass key is "  # ends in a space: the answer's first token follows it
NEEDLE_OPENING = "The pass key is"  # must not occur in a haystack

INTRO_SIMPLE = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there."
)


@dataclass(frozen=True)
class ShotKind:
    """A worked example's own kind of key; `passage` and `question` contain {key}."""

    name: str
    passage: str
    question: str


SHOT_KINDS = tuple(
    ShotKind(
        name,
        passage=f"The {name} is {{key}}. Remember it. {{key}} is the {name}.",
        question=f"What is the {name}? The {name} is {{key}}",
    )
    for name in ("gatecode", "vault key", "encrypted message")
)
