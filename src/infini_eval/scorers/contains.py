"""contains: the answer occurs somewhere in the generated text, case ignored (the substring rule of older tools)."""

from __future__ import annotations

from infini_eval.records import Sample, Score


def score(generation: str, sample: Sample) -> Score:
    """1.0 when the answer is a substring of `generation`, else 0.0; lenient: key 48 passes inside "1482"."""
    answer = sample.answer.strip()
    found = bool(answer) and answer.casefold() in generation.casefold()
    return Score(value=float(found), extracted=answer if found else None)


def settled(generation: str, sample: Sample) -> bool:
    """What has been found stays found."""
    return score(generation, sample).value == 1.0
