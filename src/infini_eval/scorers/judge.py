"""judge: a free answer waits for a judge's verdict (aa_lcr_judge)."""

from __future__ import annotations

from infini_eval.records import Sample, Score


def score(generation: str, sample: Sample) -> Score:
    """No value: the answer waits for its judge. An empty one is wrong without a call, which the report counts: alone it
    would stand as a run's accuracy of 0 % before any judge has spoken."""
    return Score(value=None)
