"""string_match_part (RULER's question answering): one of the references occurs in the generated text, case ignored."""

from __future__ import annotations

from infini_eval.records import Sample, Score
from infini_eval.scorers._references import cleaned, references


def score(generation: str, sample: Sample) -> Score:
    """1.0 when any reference is a substring of `generation`, else 0.0."""
    text = cleaned(generation).lower()
    found = next((reference for reference in references(sample) if reference.lower() in text), None)
    return Score(value=float(found is not None), extracted=found)


def settled(generation: str, sample: Sample) -> bool:
    """One reference is there, and stays there."""
    return score(generation, sample).value == 1.0
