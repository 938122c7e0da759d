"""Why retrieval fails: only where the measurements say so, and only after a control that needs no memory.

Each class needs its 95 % interval on the right side of a bound; otherwise the verdict is "undecided". Shares of prompts,
or of wrong tokens that a change mends, are Wilson intervals against one half. Rates (how well a read tells the needle's
answer from another; chance 0.5) are t-intervals: above TELLS the read tells, below SILENT and with a mean below TELLS it
does not. Logits are t-intervals against half a logit, which is taken as too little to carry an answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Label = Literal[
    "works",
    "not_a_memory_failure",
    "memory_harms",
    "never_written",
    "overwritten",
    "not_read",
    "read_but_not_used",
    "undecided",
]
LABELS: tuple[str, ...] = get_args(Label)

ENOUGH = 0.5  # logits
TELLS, SILENT = 0.75, 0.85  # of identifications right
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
class Share:
    """`right` of `n` prompts."""

    right: int
    n: int

    @property
    def most(self) -> bool:
        """Whether more than half of such prompts are right (Wilson's 95 % interval lies above one half)."""
        return self.n > 0 and self._wilson(-1) > 0.5

    @property
    def few(self) -> bool:
        """Whether fewer than half are."""
        return self.n > 0 and self._wilson(+1) < 0.5

    def _wilson(self, side: int) -> float:
        z, n, p = 1.959964, self.n, self.right / self.n
        return (p + z * z / 2 / n + side * z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)) / (1 + z * z / n)

    def __str__(self) -> str:
        return f"{self.right} of {self.n}"


@dataclass(frozen=True)
class Evidence:
    """Over some samples, how strongly memory points at the token in question.

    In logits: written, held: what the question's query gets right after writing and at the question, without gates;
    change: held - written. reachable...: what the best query could get then. read: through the gates. against_given:
    what is read for the right token above the one given instead; overturns: what the best query could get through the
    gates, less the lead of the token given. lost_without_memory: log-probability that the answer loses.
    Rates in the best head with an open gate: told_written, told_held: of any read, right after writing and at the
    question; told_asked: of the question's own query at the question; told_dead: of that in heads whose output
    projection is zero. told_closed: told_held of heads with a closed gate.
    """

    written: Interval
    held: Interval
    change: Interval
    reachable_after_writing: Interval
    reachable: Interval
    read: Interval
    against_given: Interval
    overturns: Interval
    lost_without_memory: Interval
    told_written: Interval
    told_held: Interval
    told_asked: Interval
    told_dead: Interval
    told_closed: Interval


def tells(rate: Interval) -> bool:
    """Whether reads tell the needle's answer from another."""
    return rate.n >= FEWEST and rate.low > TELLS


def silent(rate: Interval) -> bool:
    """Whether they do not."""
    return rate.n >= FEWEST and rate.high < SILENT and rate.mean < TELLS


@dataclass(frozen=True)
class Control:
    """Prompts whose needle stands in the question's own segment: as they are, and with the memory's reads closed."""

    asked: Share
    closed: Share


@dataclass(frozen=True)
class CauseVerdict:
    """`label` is one of LABELS."""

    label: Label
    reason: str


def judge(
    evidence: Evidence | None, right: int, wrong: int, control: Control, mended: Mapping[str, Share]
) -> CauseVerdict:
    """The class of the failures; "works" where nothing failed.

    evidence: of the first wrong tokens of failures whose own control is right. mended: how many of these tokens come out
    right with "fresh" memory (as right after the needle), gates "opened", or the needle's "own keys" as queries.
    """
    if wrong == 0:
        return CauseVerdict("works", f"all {right} samples were answered correctly")
    elsewhere = _control_verdict(control)
    if elsewhere is not None:
        return elsewhere
    if evidence is None or evidence.written.n < FEWEST:
        n = 0 if evidence is None else evidence.written.n
        return CauseVerdict("undecided", f"{n} usable of {wrong} wrong samples: at least {FEWEST} are needed")
    return (
        _mended(evidence, mended)
        or _held(evidence)
        or CauseVerdict(
            "undecided",
            f"no class separates: right after the needle the best read tells its answer from another with "
            f"{_percent(evidence.told_written)}, at the question with {_percent(evidence.told_held)}, the question's own "
            f"query with {_percent(evidence.told_asked)} (chance 50 %), and no single change mends most tokens",
        )
    )


def _control_verdict(control: Control) -> CauseVerdict | None:
    """What the control says; None where it passes, so that the failures are the memory's."""
    asked, closed = control.asked, control.closed
    with_needle = f"with the needle in the question's own segment {asked} are right"
    if asked.n == 0:
        return CauseVerdict(
            "undecided", "no control could be made: needle, question and answer do not fit into a segment"
        )
    if asked.few and closed.most:
        reason = f"{with_needle}, and {closed} once the memory's reads are closed: what memory returns does the damage"
        return CauseVerdict("memory_harms", f"{reason}; closing the memory would help")
    if asked.few and closed.few:
        return CauseVerdict("not_a_memory_failure", f"the model also fails where no memory is needed: {with_needle}")
    if not asked.most:
        return CauseVerdict(
            "undecided", f"{with_needle}: too many for a model that is broken elsewhere, too few to rule it out"
        )
    return None


def _mended(found: Evidence, mended: Mapping[str, Share]) -> CauseVerdict | None:
    """What a single change mends is what was broken: the query, what was folded in after the needle, or the gates."""
    keys, opened, fresh = mended["own keys"], mended["opened"], mended["fresh"]
    if keys.most and tells(found.told_held):
        reason = f"asked with the needle's own keys {keys} wrong tokens come out right"
        return CauseVerdict("not_read", f"{_holds(found.told_held)}; {reason}: the question's query is what fails")
    if fresh.most:
        reason = f"with the memory as it was right after the needle {fresh} wrong tokens come out right"
        return CauseVerdict("overwritten", f"{reason}: what was folded in since drowns it")
    if opened.most:
        held = found.told_closed if tells(found.told_closed) else found.told_held
        return CauseVerdict("not_read", f"{_holds(held)}; with gates opened {opened} wrong tokens come out right")
    return None


def _held(found: Evidence) -> CauseVerdict | None:
    """What reads of the memory say of where the answer is lost.

    That what is read favours the right token is no sign that the rest overrules it: a diluted memory's does too.
    """
    written, held = found.told_written, found.told_held
    elsewhere = found.told_closed.n > 0 and not silent(found.told_closed)
    if silent(held) and not elsewhere and silent(written):
        reason = (
            f"right after the needle no read of the memory tells its answer from another: the best {_percent(written)}"
        )
        return CauseVerdict("never_written", f"{reason} (chance 50 %)")
    if silent(held) and not elsewhere and tells(written):
        reason = (
            f"the best read tells the needle's answer from another with {_percent(written)} right after writing, with"
        )
        return CauseVerdict("overwritten", f"{reason} {_percent(held)} at the question (chance 50 %)")
    if not tells(held):
        return None
    if tells(found.told_dead):
        reason = f"the question's own query gets the answer (told from another with {_percent(found.told_dead)})"
        return CauseVerdict("read_but_not_used", f"{reason} in heads whose output projection is zero")
    if found.overturns.low > ENOUGH and found.against_given.high < ENOUGH:
        reason = (
            f"the best query could get more than the lead of the token given (by {found.overturns} logits), the question's "
            f"own favours the right one by {found.against_given}"
        )
        return CauseVerdict("not_read", f"{_holds(held)}; {reason}")
    return None


def _holds(rate: Interval) -> str:
    return f"the memory at the question holds the answer (the best read tells it from another with {_percent(rate)})"


def _percent(value: Interval) -> str:
    reach = "" if math.isinf(value.low) else f" [{100 * value.low:.0f}, {100 * value.high:.0f}]"
    return f"{100 * value.mean:.0f}{reach} %"
