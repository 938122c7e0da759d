"""Which tokens samples have in common: a digest of everything before each segment border, compared instead of tokens.

The digests of a prompt are one bytes object, DIGEST_BYTES for each whole segment; the one at border i (from 1 on)
covers tokens [0, i * L). They are chained: where two are equal, all before them are. Legend: L segment length.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

DIGEST_BYTES = 16


def border_digests(ids: np.ndarray, segment_length: int) -> bytes:
    """The digests of token ids [T] at each border of a whole segment."""
    tokens = np.ascontiguousarray(ids, dtype="<i4")
    running = hashlib.blake2b(digest_size=DIGEST_BYTES)
    parts = []
    for end in range(segment_length, len(tokens) + 1, segment_length):
        running.update(tokens[end - segment_length : end].data)
        parts.append(running.digest())
    return b"".join(parts)


def digest_at(digests: bytes, border: int) -> bytes:
    """The digest of everything before a border, 1 or more."""
    return digests[(border - 1) * DIGEST_BYTES : border * DIGEST_BYTES]


def shared_segments(one: bytes, other: bytes) -> int:
    """The number of whole segments at the start that two prompts have in common."""
    borders = range(1, min(len(one), len(other)) // DIGEST_BYTES + 1)
    return bisect_left(borders, True, key=lambda border: digest_at(one, border) != digest_at(other, border))


@dataclass(frozen=True)
class Stretch:
    """Whole segments [first, last) through which the same rows are computed, each for all prompts that are alike.

    rows: the prompt whose tokens each row reads. places: for each prompt the row that stands for it; None before it
    joins.
    """

    first: int
    last: int
    rows: tuple[int, ...]
    places: tuple[int | None, ...]


def tree_order(digests: Sequence[bytes]) -> list[int]:
    """The prompts in the order of a walk through the tree of their prefixes: at each branch the smaller parts first.

    So the needles of one haystack come by depth, and each prompt shares most with its neighbours.
    """
    order = sorted(range(len(digests)), key=lambda prompt: (digests[prompt], prompt))
    shared = np.array([shared_segments(digests[a], digests[b]) for a, b in pairwise(order)], dtype=np.int64)
    walked: list[int] = []
    ahead = [(0, len(order))]
    while ahead:
        start, stop = ahead.pop()
        if stop - start == 1:
            walked.append(order[start])
            continue
        inner = shared[start : stop - 1]
        cuts = (np.flatnonzero(inner == inner.min()) + start + 1).tolist()
        parts = list(pairwise([start, *cuts, stop]))
        ahead += sorted(parts, key=lambda part: (part[1] - part[0], min(order[part[0] : part[1]])), reverse=True)
    return walked


def stretches(digests: Sequence[bytes], starts: Sequence[int], cuts: Iterable[int] = ()) -> list[Stretch]:
    """How prompts of the same number of whole segments are read together, each whole segment once for all alike.

    starts: the border at which each prompt joins (0, or where its state is restored from). cuts: borders at which a
    stretch must end besides.
    """
    whole = len(digests[0]) // DIGEST_BYTES
    # in sorted order the neighbours branch wherever any two prompts do
    branches = {shared_segments(one, other) for one, other in pairwise(sorted(digests))}
    borders = sorted(border for border in {whole, *branches, *starts, *cuts} if min(starts) <= border <= whole)
    return [_stretch(digests, starts, first, last) for first, last in pairwise(borders)]


def _stretch(digests: Sequence[bytes], starts: Sequence[int], first: int, last: int) -> Stretch:
    alike: dict[bytes, int] = {}
    rows: list[int] = []
    places: list[int | None] = [None] * len(digests)
    for prompt, start in enumerate(starts):
        if start > first:
            continue
        digest = digest_at(digests[prompt], last)
        if digest not in alike:
            alike[digest] = len(rows)
            rows.append(prompt)
        places[prompt] = alike[digest]
    return Stretch(first, last, tuple(rows), tuple(places))
