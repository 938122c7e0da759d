"""judge_verdict: a judge's reply, read strictly by the protocol that the sample names; what it does not say has no score."""

from __future__ import annotations

from infini_eval.records import Sample, Score
from infini_eval.tasks.aa_lcr.protocols import protocol_named


def score(generation: str, sample: Sample) -> Score:
    """1.0 for CORRECT, 0.0 for INCORRECT, no value for anything else."""
    correct = protocol_named(str(sample.columns["protocol"])).parse(generation)
    if correct is None:
        return Score(value=None)
    return Score(value=float(correct), extracted="CORRECT" if correct else "INCORRECT")
