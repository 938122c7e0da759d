"""The scorers of judged answers: a free answer waits for its judge, and the judge's reply is read by its protocol."""

from __future__ import annotations

from infini_eval.api.scorer import scorer
from infini_eval.records import Sample, Score
from infini_eval.tasks.aa_lcr.protocols import protocol_named


@scorer
def judge(generation: str, sample: Sample) -> Score:
    """No value: the answer waits for its judge. An empty one is wrong without a call, which the report counts: alone it
    would stand as a run's accuracy of 0 % before any judge has spoken."""
    return Score(value=None)


@scorer
def judge_verdict(generation: str, sample: Sample) -> Score:
    """1.0 for CORRECT, 0.0 for INCORRECT, read strictly by the protocol that the sample names; no value for anything else."""
    correct = protocol_named(str(sample.columns["protocol"])).parse(generation)
    if correct is None:
        return Score(value=None)
    return Score(value=float(correct), extracted="CORRECT" if correct else "INCORRECT")
