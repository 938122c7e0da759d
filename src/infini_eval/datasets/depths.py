"""Depths: schedules, how far a needle may stand from its label, and the length from which it can stand near enough."""

from __future__ import annotations

import math
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

OFF_POINTS = 5.0  # a label that is further from the needle's real depth says something else than it seems to
PLACEABLE = 0.9  # share of a text in which a needle can stand near enough, at the least workable length


def spaced(number: int, kind: Literal["linear", "sigmoid"] | str) -> tuple[float, ...]:
    """`number` depths from 0 to 100 percent, both included; "sigmoid" lies denser at both ends (slope 0.1)."""
    even = [100 * i / (number - 1) for i in range(number)]
    if kind == "linear":
        return tuple(round(depth, 3) for depth in even)
    curved = [100 / (1 + math.exp(-0.1 * (depth - 50))) for depth in even]
    return (0.0, *(round(depth, 3) for depth in curved[1:-1]), 100.0)


@overload
def is_off(label: float, real: float) -> bool: ...
@overload
def is_off(label: NDArray[np.float64], real: NDArray[np.float64]) -> NDArray[np.bool_]: ...
def is_off(label: Any, real: Any) -> Any:
    """Whether a depth's label lies more than OFF_POINTS from the real depth; never where one of them is NaN."""
    return abs(label - real) > OFF_POINTS


def least_haystack(cut_tokens: NDArray[np.int64]) -> int:
    """The least haystack, in tokens, in which any depth has a cut within OFF_POINTS; by the tokens up to each cut [C].

    The widest gaps are left aside, up to a tenth of the text: a table or a line of code does not rule a text out.
    """
    gaps = np.sort(np.diff(cut_tokens))
    if not len(gaps):
        return 1
    covered = np.cumsum(gaps)
    gap = int(gaps[np.searchsorted(covered, PLACEABLE * covered[-1])])
    return math.ceil(gap / 2 * 100 / OFF_POINTS)
