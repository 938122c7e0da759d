"""Which tokens prompts have in common, and the batches made of it: digests at segment borders instead of tokens.

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
# A group has this share of its whole segments in common: below it there is little to gain.
LEAST_SHARE = 1 / 32
GROUP_ROWS = 16  # more rows than this leave the caches in the last steps, when all have branched
# A batch may always cost what so many whole prompts do. Larger ones would leave replicas without work, and one replica
# loses nothing by smaller ones, since it starts the next from kept states.
GROUP_PROMPTS = 2


def border_digests(ids: np.ndarray, segment_length: int) -> bytes:
    """Digest token ids [T] at each border of a whole segment."""
    tokens = np.ascontiguousarray(ids, dtype="<i4")
    running = hashlib.blake2b(digest_size=DIGEST_BYTES)
    parts = []
    for end in range(segment_length, len(tokens) + 1, segment_length):
        running.update(tokens[end - segment_length : end].data)
        parts.append(running.digest())
    return b"".join(parts)


def digest_at(digests: bytes, border: int) -> bytes:
    """Take the digest of everything before a border, 1 or more."""
    return digests[(border - 1) * DIGEST_BYTES : border * DIGEST_BYTES]


def shared_segments(first: bytes, second: bytes) -> int:
    """Count the whole segments at the start that two prompts have in common."""
    borders = range(1, min(len(first), len(second)) // DIGEST_BYTES + 1)
    return bisect_left(borders, True, key=lambda border: digest_at(first, border) != digest_at(second, border))


@dataclass(frozen=True)
class PrefixSpan:
    """Whole segments [first, last) through which the same rows are computed, each for all prompts that are alike.

    rows: the prompt whose tokens each row reads. row_of_prompt: the row that stands for each prompt; None
    before it joins.
    """

    first: int
    last: int
    rows: tuple[int, ...]
    row_of_prompt: tuple[int | None, ...]


def prefix_tree_order(digests: Sequence[bytes]) -> list[int]:
    """Order prompts by a walk through the tree of their prefixes: at each branch the smaller parts first.

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


def prefix_spans(digests: Sequence[bytes], starts: Sequence[int], cuts: Iterable[int] = ()) -> list[PrefixSpan]:
    """Plan how prompts of the same number of whole segments are read together, each segment once for all alike.

    Args:
        starts: the border at which each prompt joins (0, or where its state is restored from).
        cuts: borders at which a span must end besides.
    """
    whole = len(digests[0]) // DIGEST_BYTES
    # in sorted order the neighbours branch wherever any two prompts do
    branches = {shared_segments(a, b) for a, b in pairwise(sorted(digests))}
    borders = sorted(border for border in {whole, *branches, *starts, *cuts} if min(starts) <= border <= whole)
    return [_prefix_span(digests, starts, first, last) for first, last in pairwise(borders)]


def _prefix_span(digests: Sequence[bytes], starts: Sequence[int], first: int, last: int) -> PrefixSpan:
    alike: dict[bytes, int] = {}
    rows: list[int] = []
    row_of_prompt: list[int | None] = [None] * len(digests)
    for prompt, start in enumerate(starts):
        if start > first:
            continue
        digest = digest_at(digests[prompt], last)
        if digest not in alike:
            alike[digest] = len(rows)
            rows.append(prompt)
        row_of_prompt[prompt] = alike[digest]
    return PrefixSpan(first, last, tuple(rows), tuple(row_of_prompt))


@dataclass(frozen=True)
class SharedBatch:
    """Rows in tree order.

    cost: tokens computed from nothing. snapshot_points: (border, digest) where later batches branch off.
    """

    rows: tuple[int, ...]
    cost: int
    snapshot_points: tuple[tuple[int, bytes], ...]


def prefix_groups(rows: Sequence[int], prefixes: Sequence[bytes]) -> list[list[int]]:
    """Group the rows (all with the same number of whole segments) that share enough to be read together, in tree order."""
    whole = len(prefixes[rows[0]]) // DIGEST_BYTES
    if whole == 0:
        return []
    least = max(1, round(whole * LEAST_SHARE))
    groups: dict[bytes, list[int]] = {}
    for row in sorted(rows):
        groups.setdefault(digest_at(prefixes[row], least), []).append(row)
    return [
        [group[place] for place in prefix_tree_order([prefixes[row] for row in group])]
        for group in groups.values()
        if len(group) > 1
    ]


def group_batches(
    group: Sequence[int],
    lengths: Sequence[int],
    prefixes: Sequence[bytes],
    segment_length: int,
    batch_size: int | None,
    largest: int | None,
    most_tokens: int,
) -> list[SharedBatch]:
    """Cut a group into batches.

    Args:
        batch_size, largest: bounds on the rows of a batch, as in `plan_batches`.
        most_tokens: computed in one batch where no batch_size is given.
    """
    most = min(batch_size or GROUP_ROWS, largest or len(group))
    tokens = None if batch_size else max(most_tokens, GROUP_PROMPTS * max(lengths[row] for row in group))
    # what each row shares with the one before it, which is the most it shares with any before it
    shared = [0, *(shared_segments(prefixes[a], prefixes[b]) for a, b in pairwise(group))]
    starts, costs = [0], [lengths[group[0]]]
    for place, row in enumerate(group[1:], 1):
        new = lengths[row] - shared[place] * segment_length
        if place - starts[-1] == most or (tokens and costs[-1] + new > tokens):
            starts.append(place)
            costs.append(lengths[row])
        else:
            costs[-1] += new
    ends = [*starts[1:], len(group)]
    return [
        SharedBatch(tuple(group[start:end]), cost, _snapshot_points(prefixes[group[end - 1]], shared, ends[index:]))
        for index, (start, end, cost) in enumerate(zip(starts, ends, costs, strict=True))
    ]


def _snapshot_points(last: bytes, shared: list[int], starts: list[int]) -> tuple[tuple[int, bytes], ...]:
    """The borders at which the batches that start at the places `starts` leave the path of the row before them."""
    borders: list[int] = []
    common, place = len(last), starts[0]
    for start in starts[:-1]:  # the last one is the group's end
        common = min([common, *shared[place : start + 1]])
        place = start + 1
        if common and common not in borders:
            borders.append(common)
    return tuple((border, digest_at(last, border)) for border in borders)
