"""Why retrieval fails: never written, overwritten, not read, read but not used; only where the measurements say so.

Each class needs a 95 % t-interval over the samples (numbers in logits) on the right side of a bound; otherwise the
verdict is "undecided". Half a logit is taken as too little to carry an answer; one logit where the number is the most
that any query could get, which is never reached in all heads at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ENOUGH = 0.5  # logits
REACHABLE = 1.0  # logits, for the best query
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
        n = len(values)
        mean = sum(values) / n if n else math.nan
        if n < 2:
            return cls(mean, -math.inf, math.inf, n)
        from scipy import stats

        spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
        reach = float(stats.t.ppf(0.975, n - 1)) * spread
        return cls(mean, mean - reach, mean + reach, n)

    def __str__(self) -> str:
        if math.isinf(self.low):
            return f"{self.mean:+.2f} (n={self.n})"
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}] (n={self.n})"


@dataclass(frozen=True)
class Evidence:
    """Over some samples, how strongly memory points at the token in question.

    written, held: what the question's query gets right after writing and at the question, without gates; change: held -
    written. reachable...: what the best query could get then. read: through the gates. against_given: what is read for the
    right token above the one given instead. lost_without_memory: log-probability that the answer loses.
    """

    written: Interval
    held: Interval
    change: Interval
    reachable_after_writing: Interval
    reachable: Interval
    read: Interval
    against_given: Interval
    lost_without_memory: Interval


@dataclass(frozen=True)
class Verdict:
    """`label` is one of: works, never written, overwritten, not read, read but not used, undecided."""

    label: str
    reason: str


def judge(evidence: Evidence | None, right: int, wrong: int) -> Verdict:
    """The class of the failures; "works" where nothing failed. `evidence` is that of the failures' first wrong tokens."""
    if wrong == 0:
        return Verdict("works", f"all {right} samples were answered correctly")
    if evidence is None or evidence.written.n < FEWEST:
        n = 0 if evidence is None else evidence.written.n
        return Verdict("undecided", f"{n} usable of {wrong} wrong samples: at least {FEWEST} are needed")
    found = evidence
    if found.reachable_after_writing.high < REACHABLE and found.written.high < ENOUGH:
        reason = f"right after the needle no query could get more of it than {found.reachable_after_writing}"
        return Verdict("never written", reason)
    if found.written.low > ENOUGH and found.held.high < ENOUGH and found.change.high < 0:
        return Verdict("overwritten", f"{found.written} after writing, {found.held} at the question")
    if found.held.low > ENOUGH and found.read.high < ENOUGH:
        return Verdict("not read", f"the question's query gets {found.held}, the gates let through {found.read}")
    if found.reachable.low > REACHABLE and found.against_given.high < ENOUGH:
        reason = (
            f"of what the memory holds at the question the best query could get {found.reachable}, the question's own "
            f"gets {found.held}, {found.read} through the gates, {found.against_given} above the token given instead"
        )
        return Verdict("not read", reason)
    if found.against_given.low > ENOUGH:
        reason = f"what memory returns favours the right token over the one given by {found.against_given}"
        return Verdict("read but not used", f"{reason}; the rest of the model overrules it")
    values = f"written {found.written}, held {found.held}, read against the token given {found.against_given}"
    return Verdict("undecided", f"no class separates: {values}")
