"""string_match_all (RULER): the share of the references that occur in the generated text, case ignored."""

from __future__ import annotations

from infini_eval.records import Sample, Score
from infini_eval.scorers._references import cleaned, references


def score(generation: str, sample: Sample) -> Score:
    """Mean over the references of (reference in generation); what it read lists the ones it found."""
    text = cleaned(generation).lower()
    wanted = references(sample)
    found = [reference for reference in wanted if reference.lower() in text]
    return Score(value=len(found) / len(wanted), extracted=", ".join(found) or None)


def settled(generation: str, sample: Sample) -> bool:
    """All references are there, and stay there."""
    return score(generation, sample).value == 1.0
