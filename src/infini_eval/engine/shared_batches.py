"""Batches of samples that share a prefix: neighbours in the tree of prefixes, many rows where much is shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from infini_eval.engine.prefixes import DIGEST_BYTES, digest_at, shared_segments, tree_order

# A family has this share of its whole segments in common: below it there is little to gain.
LEAST_SHARE = 1 / 32
ROWS = 16  # more rows than this leave the caches in the last steps, when all have branched
# A batch may always cost what so many whole prompts do. Larger ones would leave replicas without work, and one replica
# loses nothing by smaller ones, since it starts the next from kept states.
PROMPTS = 2


@dataclass(frozen=True)
class SharedBatch:
    """Rows in tree order. `cost`: tokens computed from nothing. `saves`: (border, digest) where later batches branch off."""

    rows: tuple[int, ...]
    cost: int
    saves: tuple[tuple[int, bytes], ...]


def families(rows: Sequence[int], prefixes: Sequence[bytes]) -> list[list[int]]:
    """The rows (all with the same number of whole segments) that share enough to be read together, in tree order."""
    whole = len(prefixes[rows[0]]) // DIGEST_BYTES
    if whole == 0:
        return []
    least = max(1, round(whole * LEAST_SHARE))
    groups: dict[bytes, list[int]] = {}
    for row in sorted(rows):
        groups.setdefault(digest_at(prefixes[row], least), []).append(row)
    found = [group for group in groups.values() if len(group) > 1]
    return [[group[place] for place in tree_order([prefixes[row] for row in group])] for group in found]


def family_batches(
    family: Sequence[int],
    lengths: Sequence[int],
    prefixes: Sequence[bytes],
    segment_length: int,
    batch_size: int | None,
    largest: int | None,
    most_tokens: int,
) -> list[SharedBatch]:
    """Cut a family into batches; the bounds on rows are those of `plan_batches`.

    most_tokens: computed in one batch where no batch_size is given.
    """
    most = min(batch_size or ROWS, largest or len(family))
    tokens = None if batch_size else max(most_tokens, PROMPTS * max(lengths[row] for row in family))
    # what each row shares with the one before it, which is the most it shares with any before it
    shared = [0, *(shared_segments(prefixes[a], prefixes[b]) for a, b in pairwise(family))]
    starts, costs = [0], [lengths[family[0]]]
    for place, row in enumerate(family[1:], 1):
        new = lengths[row] - shared[place] * segment_length
        if place - starts[-1] == most or (tokens and costs[-1] + new > tokens):
            starts.append(place)
            costs.append(lengths[row])
        else:
            costs[-1] += new
    ends = [*starts[1:], len(family)]
    return [
        SharedBatch(tuple(family[start:end]), cost, _saves(prefixes[family[end - 1]], shared, ends[index:]))
        for index, (start, end, cost) in enumerate(zip(starts, ends, costs, strict=True))
    ]


def _saves(last: bytes, shared: list[int], starts: list[int]) -> tuple[tuple[int, bytes], ...]:
    """The borders at which the batches that start at the places `starts` leave the path of the row before them."""
    borders: list[int] = []
    common, place = len(last), starts[0]
    for start in starts[:-1]:  # the last one is the family's end
        common = min([common, *shared[place : start + 1]])
        place = start + 1
        if common and common not in borders:
            borders.append(common)
    return tuple((border, digest_at(last, border)) for border in borders)
