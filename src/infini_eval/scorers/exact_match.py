"""exact_match: the generated text is one of the references, apart from case, spaces and punctuation around it."""

from __future__ import annotations

import string

from infini_eval.records import Sample, Score
from infini_eval.scorers._references import references

_AROUND = string.whitespace + string.punctuation


def score(generation: str, sample: Sample) -> Score:
    """1.0 when the whole answer equals a reference: case ignored, runs of white space as one space."""
    given = _plain(generation)
    matches = any(given == _plain(reference) for reference in references(sample))
    return Score(value=float(matches), extracted=given or None)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(_AROUND)
