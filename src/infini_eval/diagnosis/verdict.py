"""Why retrieval fails: never written, overwritten, not read, read but not used; only where the measurements say so.

Each class needs a 95 % t-interval over the samples (numbers in logits) on the right side of a bound; otherwise the
verdict is "undecided". Half a logit is taken as too little to carry an answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ENOUGH = 0.5  # logits
FEWEST = 5  # samples; fewer decide nothing


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % t-interval; infinite for fewer than two values."""

    mean: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        from scipy import stats

        n = len(values)
        mean = sum(values) / n if n else math.nan
        if n < 2:
            return cls(mean, -math.inf, math.inf, n)
        spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
        reach = float(stats.t.ppf(0.975, n - 1)) * spread
        return cls(mean, mean - reach, mean + reach, n)

    def __str__(self) -> str:
        if math.isinf(self.low):
            return f"{self.mean:+.2f} (n={self.n})"
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}] (n={self.n})"


@dataclass(frozen=True)
class Evidence:
    """Over the wrong samples: what the memory held after writing and at the question (without gate), what was read
    through the gate, what the answer loses without memory, and held minus written."""

    written: Interval
    held: Interval
    read: Interval
    lost_without_memory: Interval
    change: Interval


@dataclass(frozen=True)
class Verdict:
    """`label` is one of: works, never written, overwritten, not read, read but not used, undecided."""

    label: str
    reason: str


def judge(evidence: Evidence | None, right: int, wrong: int) -> Verdict:
    """The class of the failures; "works" where nothing failed."""
    if wrong == 0:
        return Verdict("works", f"all {right} samples were answered correctly")
    if evidence is None or wrong < FEWEST:
        return Verdict("undecided", f"{wrong} wrong of {right + wrong}: at least {FEWEST} wrong samples are needed")
    if evidence.written.high < ENOUGH:
        return Verdict("never written", f"right after the needle the memory points at the answer by {evidence.written}")
    if evidence.written.low > ENOUGH and evidence.held.high < ENOUGH and evidence.change.high < 0:
        return Verdict("overwritten", f"{evidence.written} after writing, {evidence.held} at the question")
    if evidence.held.low > ENOUGH and evidence.read.high < ENOUGH:
        return Verdict("not read", f"memory holds {evidence.held}, the gates let through {evidence.read}")
    if evidence.read.low > ENOUGH:
        return Verdict(
            "read but not used", f"{evidence.read} enters the residual stream, the answer is wrong all the same"
        )
    return Verdict(
        "undecided", f"written {evidence.written}, held {evidence.held}, read {evidence.read}: no class separates"
    )
