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


def settled(generation: str, sample: Sample) -> bool:
    """The text has left every reference: it begins with something that none of them begins with."""
    given = _plain(generation)
    return not any(_plain(reference).startswith(given) for reference in references(sample))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(_AROUND)
