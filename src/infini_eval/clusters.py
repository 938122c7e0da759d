"""Which samples share their haystack: ranges of one pool of text that overlap are one cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

REPEATING_SOURCES = ("filler", "noise")  # haystack sources that say the same again and again by nature
SHARED = 0.1  # haystacks that have more than this share of the shorter one's text in common do not vary independently


def overlap_clusters(
    pool: Sequence[Any] | np.ndarray,
    start: Sequence[int] | np.ndarray,
    end: Sequence[int] | np.ndarray,
    share: float = SHARED,
) -> np.ndarray:
    """The cluster of each half-open range [start, end) of its pool: int64 [ranges], numbered from 0 upwards.

    Two ranges are joined where they lie in one pool and their overlap is more than `share` (0 <= share < 1) of the
    shorter one; clusters are what is joined directly or by way of others. Ranges hold at least one place; units
    (characters, tokens) do not matter as long as a pool has one. O(n log n).
    """
    import numpy as np

    if not len(pool):
        return np.zeros(0, np.int64)
    pools = np.unique(np.asarray(pool), return_inverse=True)[1].reshape(-1)
    rows = np.stack([pools, np.asarray(start, np.int64), np.asarray(end, np.int64)], axis=1)
    ranges, place = np.unique(rows, axis=0, return_inverse=True)
    parent = list(range(len(ranges)))
    mirrored = np.stack([ranges[:, 0], -ranges[:, 2], -ranges[:, 1]], axis=1)
    for side in (ranges, mirrored):
        for one, other in _joined(side, share):
            parent[_root(parent, one)] = _root(parent, other)
    roots = np.array([_root(parent, number) for number in range(len(ranges))])
    return np.unique(roots[place.reshape(-1)], return_inverse=True)[1]


def _joined(ranges: np.ndarray, share: float) -> Iterator[tuple[int, int]]:
    """Pairs that connect whatever is joined by a range that starts earlier and covers `share` of a later one's head.

    A range that starts no later than x and ends beyond x's first `share` has more than that share of the shorter one of
    the two in common with it, whichever that is; of mirrored ranges the same finds the tails, and every overlap is one
    or the other. Groups that x does not reach stay on the stack, those that it does become one: each range is put there
    once and taken once.
    """
    import numpy as np

    order = np.lexsort((-ranges[:, 2], ranges[:, 1], ranges[:, 0]))
    stack: list[tuple[int, int]] = []  # (furthest end, one member), the furthest on top
    current = None
    for number, (pool, start, end) in zip(order.tolist(), ranges[order].tolist(), strict=True):
        if pool != current:
            stack, current = [], pool
        furthest, head = end, start + share * (end - start)
        while stack and stack[-1][0] > head:
            reach, member = stack.pop()
            furthest = max(furthest, reach)
            yield number, member
        stack.append((furthest, number))


def _root(parent: list[int], number: int) -> int:
    """The representative of a number's set; paths are halved on the way."""
    while parent[number] != number:
        parent[number] = parent[parent[number]]
        number = parent[number]
    return number
