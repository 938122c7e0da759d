"""Which samples are computed together: planned once, alike on every rank, whatever the world size.

Rows of a batch have the same number of whole segments, so all of them write their memories in the same steps; what
remains is padded on the right, which causality makes harmless. Nothing is ever padded on the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TOKENS_PER_BATCH = 1 << 15  # beyond this a larger batch gains little and costs memory
# Tokens of one step over all rows, unless the user sets chunk_segments. On a CPU larger steps leave its caches, and
# their temporaries come fresh from the system each time; on a GPU they keep the matrix units busy.
CHUNK_TOKENS = {"cpu": 1024, "cuda": 16384}
LARGEST_BATCH = 8  # more rows than this make units too large to balance over replicas


@dataclass(frozen=True)
class Batch:
    """Samples computed together. `rows` index the planned list; `cost` is in tokens, the longest row times the rows."""

    rows: tuple[int, ...]
    cost: int


def plan_batches(
    lengths: Sequence[int], segment_length: int | None, batch_size: int | None = None, largest: int | None = None
) -> list[Batch]:
    """Deal prompts of `lengths` tokens into batches, the most expensive first (ties: in the order given).

    batch_size: rows of a batch (None: by length). largest: what memory was found to allow.
    """
    groups: dict[int, list[int]] = {}
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        groups.setdefault(lengths[row] // segment_length if segment_length else 0, []).append(row)
    batches = []
    for rows in groups.values():
        start = 0
        while start < len(rows):
            size = min(batch_size or auto_batch_size(lengths[rows[start]]), largest or len(rows))
            chosen = tuple(rows[start : start + size])
            batches.append(Batch(chosen, lengths[chosen[0]] * len(chosen)))
            start += size
    return sorted(batches, key=lambda batch: (-batch.cost, batch.rows))


def auto_batch_size(longest: int) -> int:
    """Rows of a batch whose longest prompt has `longest` tokens."""
    return max(1, min(LARGEST_BATCH, TOKENS_PER_BATCH // max(1, longest)))


@dataclass(frozen=True)
class PrefillStep:
    """One step of a batch's prefill: tokens [start, start + tokens) of every row.

    segments: K whole segments, or 0 for tokens of the open segment. counts: real tokens of each row (the rest is
    right padding). ending: rows whose prompt ends in this step.
    """

    start: int
    tokens: int
    segments: int
    counts: tuple[int, ...]
    ending: tuple[int, ...]


def plan_prefill(lengths: Sequence[int], segment_length: int | None, chunk_tokens: int) -> list[PrefillStep]:
    """The steps that read prompts of `lengths` tokens: chunks of whole segments, then what remains of each.

    Every pipeline stage derives the same steps from the lengths, so no length is ever sent.
    """
    steps: list[PrefillStep] = []
    start = 0
    if segment_length is not None:
        whole = min(lengths) // segment_length
        per_step = max(1, chunk_tokens // segment_length)
        for first in range(0, whole, per_step):
            count = min(per_step, whole - first)
            steps.append(_step(lengths, start, count * segment_length, count))
            start += count * segment_length
        chunk_tokens = segment_length
    while start < max(lengths):
        tokens = min(chunk_tokens, max(lengths) - start)
        steps.append(_step(lengths, start, tokens, 0))
        start += tokens
    return steps


def _step(lengths: Sequence[int], start: int, tokens: int, segments: int) -> PrefillStep:
    counts = tuple(max(0, min(tokens, length - start)) for length in lengths)
    ending = tuple(row for row, length in enumerate(lengths) if start < length <= start + tokens)
    return PrefillStep(start, tokens, segments, counts, ending)
