"""Which samples are computed together: planned once, alike on every rank, whatever the world size.

Rows of a batch have the same number of whole segments, so all of them write their memories in the same steps; what
remains is padded on the right, which causality makes harmless. Nothing is ever padded on the left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infini_eval.api.backend import Batch
from infini_eval.engine.prefixes import PrefixSpan, group_batches, prefix_groups

TOKENS_PER_BATCH = 1 << 15  # beyond this a larger batch gains little and costs memory
# Tokens of one step over all rows, unless the user sets chunk_segments. On a CPU larger steps leave its caches, and
# their temporaries come fresh from the system each time; on a GPU they keep the matrix units busy.
CHUNK_TOKENS = {"cpu": 1024, "cuda": 16384}
LARGEST_BATCH = 8  # more rows than this make units too large to balance over replicas


def plan_batches(
    lengths: Sequence[int],
    segment_length: int | None,
    batch_size: int | None = None,
    largest: int | None = None,
    prefixes: Sequence[bytes] | None = None,
) -> list[Batch]:
    """Deal prompts of `lengths` tokens into batches, the most expensive first (ties: in the order given).

    Args:
        batch_size: rows of a batch (None: by length).
        largest: the most rows that memory was found to allow.
        prefixes: the border digests of each prompt; prompts that share a prefix then stand together. Rows that share
            nothing get the batches that they have without.
    """
    by_segments: dict[int, list[int]] = {}
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        by_segments.setdefault(lengths[row] // segment_length if segment_length else 0, []).append(row)
    units: list[list[Batch]] = []  # what is dealt in a row
    for rows in by_segments.values():
        related = prefix_groups(rows, prefixes) if prefixes and segment_length else []
        for group in related:
            assert prefixes is not None and segment_length is not None
            parts = group_batches(group, lengths, prefixes, segment_length, batch_size, largest, TOKENS_PER_BATCH)
            schedule_cost = max(part.cost for part in parts)
            units.append([Batch(part.rows, part.cost, part.snapshot_points, schedule_cost) for part in parts])
        shared = {row for group in related for row in group}
        units += [[batch] for batch in _alone([row for row in rows if row not in shared], lengths, batch_size, largest)]
    units.sort(key=lambda unit: (-unit[0].priority, unit[0].rows))
    return [batch for unit in units for batch in unit]


def _alone(rows: list[int], lengths: Sequence[int], batch_size: int | None, largest: int | None) -> list[Batch]:
    """Batches of rows that share nothing, longest first."""
    batches = []
    start = 0
    while start < len(rows):
        size = min(batch_size or auto_batch_size(lengths[rows[start]]), largest or len(rows))
        chosen = tuple(rows[start : start + size])
        batches.append(Batch(chosen, lengths[chosen[0]] * len(chosen)))
        start += size
    return batches


def auto_batch_size(longest: int) -> int:
    """Choose the rows of a batch whose longest prompt has `longest` tokens."""
    return max(1, min(LARGEST_BATCH, TOKENS_PER_BATCH // max(1, longest)))


@dataclass(frozen=True)
class PrefillStep:
    """One step of a batch's prefill: tokens [start, start + tokens) of every row.

    segments: K whole segments, or 0 for tokens of the open segment. counts: real tokens of each row (the rest is
    right padding). ending: prompts that end in this step. rows: the prompt that each row of the step reads.
    row_of_prompt: the row that stands for each prompt; None before the prompt joins.
    """

    start: int
    tokens: int
    segments: int
    counts: tuple[int, ...]
    ending: tuple[int, ...]
    rows: tuple[int, ...]
    row_of_prompt: tuple[int | None, ...]


def plan_prefill(
    lengths: Sequence[int],
    segment_length: int | None,
    chunk_tokens: int | Callable[[int], int],
    shared: Sequence[PrefixSpan] | None = None,
) -> list[PrefillStep]:
    """Plan the steps that read prompts of `lengths` tokens: chunks of whole segments, then what remains of each.

    Every pipeline stage derives the same steps from the lengths and digests, so no length is ever sent.

    Args:
        chunk_tokens: tokens of each row in a step, or what gives them for a number of rows.
        shared: how prompts with common prefixes are read together (None: each for itself).
    """
    everyone = tuple(range(len(lengths)))
    steps: list[PrefillStep] = []
    start = 0
    chunk = chunk_tokens if callable(chunk_tokens) else lambda rows: chunk_tokens
    if segment_length is not None:
        whole = min(lengths) // segment_length
        for span in [PrefixSpan(0, whole, everyone, everyone)] if shared is None else shared:
            per_step = max(1, chunk(len(span.rows)) // segment_length)
            for first in range(span.first, span.last, per_step):
                count = min(per_step, span.last - first)
                steps.append(_step(lengths, first * segment_length, count * segment_length, count, span))
        start = whole * segment_length
    alone = PrefixSpan(0, 0, everyone, everyone)
    while start < max(lengths):
        tokens = min(segment_length or chunk(len(lengths)), max(lengths) - start)
        steps.append(_step(lengths, start, tokens, 0, alone))
        start += tokens
    return steps


def _step(lengths: Sequence[int], start: int, tokens: int, segments: int, span: PrefixSpan) -> PrefillStep:
    counts = tuple(max(0, min(tokens, lengths[row] - start)) for row in span.rows)
    ending = tuple(row for row, length in enumerate(lengths) if start < length <= start + tokens)
    return PrefillStep(start, tokens, segments, counts, ending, span.rows, span.row_of_prompt)
