"""Depths: how far a needle may stand from its label, and the length from which it can stand near enough."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

OFF_POINTS = 5.0  # a label that is further from the needle's real depth says something else than it seems to
PLACEABLE = 0.9  # share of a text in which a needle can stand near enough, at the least workable length


def is_off(label: float, real: float) -> bool:
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
