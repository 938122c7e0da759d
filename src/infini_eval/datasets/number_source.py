"""Where a wrong number in an answer comes from: a worked example, elsewhere in the prompt, or nowhere."""

from __future__ import annotations

import re

from infini_eval.datasets.needle_position import last_whole_word
from infini_eval.datasets.validate import shot_keys

_NUMBER = re.compile(r"\d+")
_LONGEST = 10_000  # characters of the generation that are looked at


def number_source(prompt: str, answer: str, generation: str) -> str | None:
    """ "shot", "prompt" or "nowhere" for the first number of the generation; None where it is the answer or no number."""
    match = _NUMBER.search(generation[:_LONGEST])
    if match is None or not answer.strip().isdecimal() or match.group() == answer.strip():
        return None
    given = match.group()
    found = last_whole_word(prompt, given, len(prompt))
    if found is None:
        return "nowhere"
    return "shot" if given in shot_keys(prompt) else "prompt"
