"""Verdicts: the rule in use today, which lowers its bar with the number of segments, and the guide's fixed tables."""

from __future__ import annotations

from dataclasses import dataclass

from infini_eval.reports.statistics.intervals import Average

ONE_SEGMENT = (("EXCELLENT", 95), ("VERY_GOOD", 90), ("GOOD", 80), ("FAIR", 70))
MORE_SEGMENTS = (("EXCELLENT", 95), ("VERY_GOOD", 85), ("GOOD", 75), ("FAIR", 65))
FIXED = (("EXCELLENT", 90), ("GOOD", 80), ("FAIR", 70))
EXPECTED_AT = {1024: 95, 2048: 85, 4096: 80, 8192: 75, 32768: 80, 65536: 75, 131072: 70}
SYMBOLS = {"EXCELLENT": "✓", "VERY_GOOD": "✓", "GOOD": "✓", "FAIR": "⚠", "POOR": "✗"}
_MESSAGES = {
    "EXCELLENT": "Excellent performance", "VERY_GOOD": "Strong performance", "GOOD": "Good performance",
    "FAIR": "Moderate performance", "POOR": "Poor performance",
}  # fmt: skip
RULE = "bar lowered by min(20, 5 x segments) beyond one segment"
FIXED_RULE = "fixed: average above 90 excellent, 80-90 good, 70-80 fair, below poor"


@dataclass(frozen=True)
class Performance:
    """The rule's judgement; `expected_degradation` in percentage points, 0 for one segment."""

    category: str
    message: str
    consistency: str
    expected_degradation: float
    std_dev: float

    def to_json(self) -> dict[str, object]:
        return {
            "category": self.category, "status": SYMBOLS[self.category], "message": self.message,
            "consistency": self.consistency, "expected_degradation": self.expected_degradation, "rule": RULE,
        }  # fmt: skip


def performance(average: float, std_dev: float, segments: float | None) -> Performance:
    """Judge `average` and `std_dev` over depths (percent); `segments` = context / segment length, None if unknown."""
    lowered = segments is not None and segments > 1
    degradation = min(20.0, 5 * segments) if segments is not None and segments > 1 else 0.0
    bars = MORE_SEGMENTS if lowered else ONE_SEGMENT
    category = next((name for name, bar in bars if average >= bar - degradation), "POOR")
    where = f"across {segments:g} segments" if lowered else "within segment" if segments else "(segment length unknown)"
    return Performance(category, f"{_MESSAGES[category]} {where}", consistency(std_dev), degradation, std_dev)


def consistency(std_dev: float) -> str:
    """By the standard deviation over depths, in percent."""
    return "CONSISTENT" if std_dev < 15 else "INCONSISTENT" if std_dev < 25 else "VERY_INCONSISTENT"


def fixed_category(percent: float) -> str:
    """The guide's categories: above 90, above 80, above 70 and below."""
    return next((name for name, bar in FIXED if percent > bar), "POOR")


def verdict(average: Average, context_length: float | None) -> dict[str, object]:
    """The fixed tables' judgement of an average, with everything the interval still allows.

    `certain` says whether the whole interval lies in one category; `possible` lists worst to best.
    """
    low, value, high = (100 * part for part in (average.low, average.value, average.high))
    order = ["POOR", *(name for name, _ in reversed(FIXED))]
    possible = order[order.index(fixed_category(low)) : order.index(fixed_category(high)) + 1]
    return {
        "category": fixed_category(value), "certain": len(possible) == 1, "possible": possible,
        "rule": FIXED_RULE, "expectation": _expectation(low, high, context_length),
    }  # fmt: skip


def _expectation(low: float, high: float, context_length: float | None) -> dict[str, object] | None:
    """The guide's expectation at this length (none between its lengths): met, missed, or unclear at this n."""
    bar = EXPECTED_AT.get(int(context_length)) if context_length else None
    if bar is None:
        return None
    return {"above": bar, "met": "yes" if low > bar else "no" if high <= bar else "unclear"}


def long_context_verdict(averages: dict[float, float]) -> dict[str, object] | None:
    """The guide's long-context indicators, from average accuracy in percent by length; None below 32k tokens.

    Excellent: above 75 at 128k. Good: above 70 at 64k and above 65 at 128k. Poor: 30 or less at every length beyond
    16k. Fair: anything else. A length that was not measured counts neither way.
    """
    beyond = {length: value for length, value in averages.items() if length > 16384}
    if not any(length >= 32768 for length in beyond):
        return None
    at_64k, at_128k = averages.get(65536), averages.get(131072)
    if at_128k is not None and at_128k > 75:
        category = "EXCELLENT"
    elif at_64k is not None and at_64k > 70 and (at_128k is None or at_128k > 65):
        category = "GOOD"
    elif all(value <= 30 for value in beyond.values()):
        category = "POOR"
    else:
        category = "FAIR"
    rule = "long context: excellent > 75 at 128k; good > 70 at 64k and > 65 at 128k; poor <= 30 beyond 16k; else fair"
    measured = {str(int(length)): round(value, 4) for length, value in sorted(beyond.items())}
    return {"category": category, "rule": rule, "measured": measured}
