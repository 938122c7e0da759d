"""Verdicts: one headline from the fixed table, beside it the older rule, which lowers its bar; and effective length.

Effective context length is the longest context at which accuracy is still above a threshold, and how sure that is.
Hsieh et al. 2024 ("RULER: What's the Real Context Size of Your Long-Context Language Models?") compare an average over
13 tasks with the bar of 85.6 %, which is what Llama2-7B reaches at 4k tokens. From one task's accuracy it is the
effective length of that task, which says nothing of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infini_eval.reports.statistics.intervals import FEW_CLUSTERS, Average, wilson

FIXED_THRESHOLD = 0.856
SOURCE = "RULER, Hsieh et al. 2024: Llama2-7B at 4k"
RELATIVE = 0.85
_MAX_N = 1_000_000


@dataclass(frozen=True)
class EffectiveLength:
    """At 95 %: `at_least` (all lengths up to it are above the bar) and `below` (this one is not); None if none is.

    `estimate` goes by the averages alone. `undecided` lists (length, samples in all that a firm answer would need at
    the accuracy seen; None where no number would do).
    """

    threshold: float
    estimate: int | None
    at_least: int | None
    below: int | None
    undecided: tuple[tuple[int, int | None], ...]


def effective_length(
    averages: Sequence[tuple[int, Average, int]], threshold: float | None = FIXED_THRESHOLD
) -> EffectiveLength | None:
    """From (length, average, samples) in ascending length; None without lengths.

    `threshold` None means 0.85 x the shortest length's average; its own uncertainty then counts on both sides. There is
    none (None) where the shortest length itself is below the fixed bar: a share of what fails already is no yardstick.
    """
    if not averages:
        return None
    shortest = averages[0][1]
    if threshold is None and shortest.value < FIXED_THRESHOLD:
        return None
    bar = RELATIVE * shortest.value if threshold is None else threshold
    bar_high = RELATIVE * shortest.high if threshold is None else threshold
    bar_low = RELATIVE * shortest.low if threshold is None else threshold
    above = [average.low >= bar_high or (threshold is None and average is shortest) for _, average, _ in averages]
    under = [average.high < bar_low for _, average, _ in averages]
    point = [average.value >= bar for _, average, _ in averages]
    lengths = [length for length, _, _ in averages]
    below = next((length for length, is_under in zip(lengths, under, strict=True) if is_under), None)
    undecided = [
        (length, samples_needed(average, n, bar))
        for (length, average, n), yes, no in zip(averages, above, under, strict=True)
        if not yes and not no and (below is None or length < below)
    ]
    return EffectiveLength(bar, _last_run(lengths, point), _last_run(lengths, above), below, tuple(undecided))


def samples_needed(average: Average, n: int, bar: float) -> int | None:
    """How many samples would put the interval on one side of the bar at this accuracy; None for more than a million.

    Correlated samples count for less: the Wilson answer is scaled by how much wider the interval really is.
    """
    n = max(1, n)  # none was answered: any number is more
    low, high = wilson(average.value * n, n)
    design_effect = max(1.0, ((average.high - average.low) / (high - low)) ** 2) if high > low else 1.0
    small, large = n, n
    while not _decides(average.value, large, bar):
        small, large = large, large * 2
        if large > _MAX_N:
            return None
    while large - small > 1:
        middle = (small + large) // 2
        small, large = (small, middle) if _decides(average.value, middle, bar) else (middle, large)
    needed = round(large * design_effect)
    return needed if needed <= _MAX_N else None


def _decides(value: float, n: int, bar: float) -> bool:
    low, high = wilson(value * n, n)
    return low >= bar or high < bar


def _last_run(lengths: Sequence[int], holds: Sequence[bool]) -> int | None:
    """The last length before the first at which it does not hold."""
    found = None
    for length, yes in zip(lengths, holds, strict=True):
        if not yes:
            break
        found = length
    return found


ONE_SEGMENT = (("EXCELLENT", 95), ("VERY_GOOD", 90), ("GOOD", 80), ("FAIR", 70))
MORE_SEGMENTS = (("EXCELLENT", 95), ("VERY_GOOD", 85), ("GOOD", 75), ("FAIR", 65))
FIXED = (("EXCELLENT", 90), ("GOOD", 80), ("FAIR", 70))
EXPECTED_AT = {1024: 95, 2048: 85, 4096: 80, 8192: 75, 32768: 80, 65536: 75, 131072: 70}  # of passkey retrieval
UNDECIDED = "UNDECIDED"
SYMBOLS = {"EXCELLENT": "✓", "VERY_GOOD": "✓", "GOOD": "✓", "FAIR": "⚠", "POOR": "✗", UNDECIDED: "?"}
WORST_FIRST = ("POOR", UNDECIDED, "FAIR", "GOOD", "VERY_GOOD", "EXCELLENT")
_ORDER = ["POOR", *(name for name, _ in reversed(FIXED))]
_MESSAGES = {
    "EXCELLENT": "Excellent performance", "VERY_GOOD": "Strong performance", "GOOD": "Good performance",
    "FAIR": "Moderate performance", "POOR": "Poor performance", UNDECIDED: "Anything from poor to excellent",
}  # fmt: skip
ONE_BAR_RULE = "bars at 95, 90, 80 and 70"
RULE = "bar lowered by min(20, 5 x segments) beyond one segment"
FIXED_RULE = "fixed: average above 90 excellent, 80-90 good, 70-80 fair, below poor"
LONG_RULE = "long context: excellent > 75 at 128k; good > 70 at 64k and > 65 at 128k; poor <= 30 beyond 16k; else fair"
LEAST_A_DEPTH = 5  # with fewer samples a depth, the spread over depths is that of the draw


@dataclass(frozen=True)
class Performance:
    """The older rule's judgement; `expected_degradation` in percentage points, 0 for one segment."""

    category: str
    status: str
    message: str
    consistency: str
    expected_degradation: float
    rule: str


@dataclass(frozen=True)
class Expectation:
    """What is usually expected of passkeys at a length: above so many percent; `met` is yes, no, or unclear at this n."""

    above: int
    met: str


@dataclass(frozen=True)
class Verdict:
    """The fixed table's judgement of an average, with everything that its interval still allows.

    `certain` says whether the whole interval lies in one category and rests on ten haystacks or more; `possible` lists
    worst to best.
    """

    category: str
    certain: bool
    possible: tuple[str, ...]
    rule: str
    expectation: Expectation | None


@dataclass(frozen=True)
class Headline:
    """The one verdict that reports print: `words` is what to print, `why` what keeps it from being certain."""

    category: str
    words: str
    certain: bool
    why: str | None


@dataclass(frozen=True)
class LongContext:
    """The guide's long-context judgement; `measured` holds the averages in percent by length."""

    category: str
    possible: tuple[str, ...]
    rule: str
    measured: Mapping[str, float]


def performance(
    average: float, std_dev: float | None, segments: float | None, *,
    interval: tuple[float, float] | None = None, has_segments: bool = True,
) -> Performance:  # fmt: skip
    """Judge `average` and `std_dev` over depths (percent); `segments` = context / segment length, None if unknown.

    UNDECIDED where the 95 % `interval` (percent) reaches from POOR to EXCELLENT; `std_dev` None where the spread over
    depths was not measured.
    """
    lowered = segments is not None and segments > 1
    degradation = min(20.0, 5 * segments) if segments is not None and segments > 1 else 0.0
    bars = MORE_SEGMENTS if lowered else ONE_SEGMENT

    def category_of(percent: float) -> str:
        return next((name for name, bar in bars if percent >= bar - degradation), "POOR")

    category = category_of(average)
    if interval is not None and [category_of(end) for end in interval] == ["POOR", "EXCELLENT"]:
        category = UNDECIDED
    where = f" across {segments:g} segments" if lowered else " within segment" if segments else ""
    where = (where or " (segment length unknown)") if has_segments else ""
    spread = consistency(None if category == UNDECIDED else std_dev)
    rule = RULE if has_segments else ONE_BAR_RULE
    return Performance(category, SYMBOLS[category], f"{_MESSAGES[category]}{where}", spread, degradation, rule)


def consistency(std_dev: float | None) -> str:
    """By the standard deviation over depths, in percent; UNKNOWN where it was not measured."""
    if std_dev is None:
        return "UNKNOWN"
    return "CONSISTENT" if std_dev < 15 else "INCONSISTENT" if std_dev < 25 else "VERY_INCONSISTENT"


def fixed_category(percent: float) -> str:
    """The guide's categories: above 90, above 80, above 70 and below."""
    return next((name for name, bar in FIXED if percent > bar), "POOR")


def verdict(average: Average, context_length: float | None) -> Verdict:
    """Judge an average; `context_length` None for tasks of which nothing is expected: the table is for passkeys."""
    low, value, high = (100 * part for part in (average.low, average.value, average.high))
    possible = _ORDER[_ORDER.index(fixed_category(low)) : _ORDER.index(fixed_category(high)) + 1]
    few = average.clusters is not None and average.clusters < FEW_CLUSTERS
    certain = len(possible) == 1 and not few
    return Verdict(fixed_category(value), certain, tuple(possible), FIXED_RULE, _expectation(low, high, context_length))


def headline(judged: Verdict, clusters: int | None, failed: int) -> Headline:
    """The one verdict that reports print: the category of `verdict`, or UNDECIDED where three or more are possible."""
    possible = judged.possible
    category = judged.category if len(possible) <= 2 else UNDECIDED
    words = " or ".join(possible) if len(possible) <= 2 else f"{UNDECIDED} ({possible[0]} to {possible[-1]})"
    reasons = []
    if len(possible) > 1:
        reasons.append("the 95 % interval allows each of these")
    if clusters is not None and clusters < FEW_CLUSTERS:
        reasons.append(f"{clusters} haystack{'s' * (clusters != 1)} only")
    if failed:
        reasons.append(f"{failed} failed sample{'s' * (failed != 1)} may be right or wrong")
    return Headline(category, words, judged.certain, "; ".join(reasons) or None)


def _expectation(low: float, high: float, context_length: float | None) -> Expectation | None:
    """The guide's expectation at this length (none between its lengths): met, missed, or unclear at this n."""
    bar = EXPECTED_AT.get(int(context_length)) if context_length else None
    if bar is None:
        return None
    return Expectation(bar, "yes" if low > bar else "no" if high <= bar else "unclear")


def long_context_verdict(averages: Mapping[float, Average]) -> LongContext | None:
    """The guide's long-context indicators for passkeys, from averages by length; None below 32k tokens.

    Excellent: above 75 at 128k. Good: above 70 at 64k and above 65 at 128k. Poor: 30 or less at every length beyond
    16k. Fair: anything else. A length that was not measured counts neither way. UNDECIDED where the ends of the 95 %
    intervals leave three categories or more possible.
    """
    beyond = {length: found for length, found in averages.items() if length > 16384}
    if not any(length >= 32768 for length in beyond):
        return None
    worst, middle, best = (
        _long_category({length: 100 * getattr(found, part) for length, found in beyond.items()})
        for part in ("low", "value", "high")
    )
    possible = _ORDER[_ORDER.index(worst) : _ORDER.index(best) + 1]
    measured = {str(int(length)): round(100 * found.value, 4) for length, found in sorted(beyond.items())}
    category = middle if len(possible) <= 2 else UNDECIDED
    return LongContext(category, tuple(possible), LONG_RULE, measured)


def _long_category(beyond: Mapping[float, float]) -> str:
    at_64k, at_128k = beyond.get(65536), beyond.get(131072)
    if at_128k is not None and at_128k > 75:
        return "EXCELLENT"
    if at_64k is not None and at_64k > 70 and (at_128k is None or at_128k > 65):
        return "GOOD"
    return "POOR" if all(value <= 30 for value in beyond.values()) else "FAIR"
