"""judge: a free answer waits for a judge's verdict; the judge is handed in as a callable, or is a run of aa_lcr_judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from infini_eval.datasets.judge_protocols import Protocol
from infini_eval.records import Sample, Score

Ask = Callable[[str], str]


@dataclass(frozen=True)
class Judgement:
    """`correct` is None where the verdict cannot be read; `reply` is the judge's own text, None without a call."""

    correct: bool | None
    reply: str | None
    protocol: str


def score(generation: str, sample: Sample) -> Score:
    """No value: the answer waits for its judge. An empty one is wrong without a call, which the report counts: alone it
    would stand as a run's accuracy of 0 % before any judge has spoken."""
    return Score(value=None)


def judge(
    question: str, official: str, candidate: str, ask: Ask, protocol: Protocol, notes: str | None = None
) -> Judgement:
    """The verdict on one answer; `ask` sends a prompt to a judge and returns its reply.

    An empty answer is wrong without a call: a judge was once seen to call one correct.
    """
    if not candidate.strip():
        return Judgement(False, None, protocol.name)
    reply = ask(protocol.prompt(question, official, candidate, notes))
    return Judgement(protocol.parse(reply), reply, protocol.name)
