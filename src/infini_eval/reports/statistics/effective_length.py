"""Effective context length: the longest context at which accuracy is still above a threshold, and how sure that is.

Hsieh et al. 2024 ("RULER: What's the Real Context Size of Your Long-Context Language Models?") compare an average over
13 tasks with the bar of 85.6 %, which is what Llama2-7B reaches at 4k tokens. From one task's accuracy it is the
effective length of that task, which says nothing of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from infini_eval.reports.statistics.intervals import Average, wilson

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
