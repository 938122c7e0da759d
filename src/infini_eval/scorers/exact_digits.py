"""exact_digits: the first number in the generated text must be the answer ("1" does not pass for "1234")."""

from __future__ import annotations

import re

from infini_eval.records import Sample, Score

_FIRST_NUMBER = re.compile(r"\d+")
_ENDED_NUMBER = re.compile(r"\d\D")


def score(generation: str, sample: Sample) -> Score:
    """1.0 when the first run of digits in `generation` equals the answer's digits, else 0.0."""
    match = _FIRST_NUMBER.search(generation)
    extracted = match.group() if match else None
    return Score(value=float(extracted == sample.answer.strip()), extracted=extracted)


def settled(generation: str, sample: Sample) -> bool:
    """A character that is no digit follows the first number; until then the number may grow."""
    return _ENDED_NUMBER.search(generation) is not None
