"""Prompts that share prefixes: each whole segment is computed once for all that are alike up to its end.

At a border where prompts part, their states are copies of the one they shared. States at borders that later batches
start from are kept in a cache of bounded size, the longest unused dropped first; a prompt whose prefix an earlier batch
left there joins at its border. Every pipeline stage and shard derives the same from the digests, makes the same units in
the same order and counts alike, so nothing is sent and all ranks keep and drop the same snapshots.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from infini_eval.engine.batching import PrefillStep
from infini_eval.engine.prefixes import PrefixSpan, digest_at, prefix_spans
from infini_eval.errors import CacheError
from infini_eval.models.state import BatchState, Memories

OVERHEAD = 1024  # bytes that a snapshot counts as at least, so that empty ones are bounded too


@dataclass(frozen=True)
class SnapshotKind:
    """What every snapshot of a cache must be: `identity` names model and settings, the rest its tensors.

    counted_layers: as many as the replica's largest stage has, so that all its ranks count alike.
    """

    identity: str
    layers: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    counted_layers: int

    @property
    def counted_bytes(self) -> int:
        """What one snapshot counts as."""
        return max(OVERHEAD, self.counted_layers * math.prod(self.shape) * self.dtype.itemsize)


@dataclass(frozen=True)
class Snapshot:
    """The memories of a row after `segments` whole segments; `key` binds them to what they were computed from."""

    key: bytes
    segments: int
    memories: Memories


class PrefixCache:
    """Snapshots by the digest of the tokens they stand for, at most `limit_bytes` of them by `kind.counted_bytes`."""

    def __init__(self, kind: SnapshotKind, limit_bytes: int) -> None:
        self.kind, self.limit_bytes = kind, limit_bytes
        self._snapshots: OrderedDict[bytes, Snapshot] = OrderedDict()

    def __len__(self) -> int:
        return len(self._snapshots)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._snapshots

    @property
    def counted_bytes(self) -> int:
        """What the kept snapshots count as, against `limit_bytes`."""
        return len(self) * self.kind.counted_bytes

    def clear(self) -> None:
        """Drop all snapshots, as when the weights change."""
        self._snapshots.clear()

    def longest(self, digests: bytes, at_most: int) -> bytes | None:
        """Find the digest of the longest prefix of a prompt that is kept, of at most `at_most` segments."""
        borders = sorted({snapshot.segments for snapshot in self._snapshots.values()}, reverse=True)
        candidates = (digest_at(digests, border) for border in borders if border <= at_most)
        return next((digest for digest in candidates if digest in self._snapshots), None)

    def save(self, digest: bytes, segments: int, memories: Memories) -> None:
        """Keep a snapshot; the longest unused ones make room. One that is larger than the limit is not kept."""
        self._snapshots[digest] = Snapshot(self._key(digest), segments, memories)
        self._snapshots.move_to_end(digest)
        while self._snapshots and self.counted_bytes > self.limit_bytes:
            self._snapshots.popitem(last=False)

    def restore(self, digest: bytes) -> Snapshot:
        """Take a snapshot that is kept, which counts as used now; CacheError where it is not what its place says."""
        snapshot = self._snapshots[digest]
        self._check(digest, snapshot)
        self._snapshots.move_to_end(digest)
        return snapshot

    def _key(self, digest: bytes) -> bytes:
        return hashlib.blake2b(self.kind.identity.encode() + b"\0" + digest, digest_size=16).digest()

    def _check(self, digest: bytes, snapshot: Snapshot) -> None:
        kind = self.kind
        if snapshot.key != self._key(digest):
            raise CacheError(
                "a state kept for a prefix belongs to another model, other settings or other tokens",
                next_step="--prefix-cache-gb 0 computes every prompt whole; please report this",
            )
        like = (kind.shape, kind.dtype, kind.device.type)
        wrong = [m for m in snapshot.memories if (tuple(m.shape), m.dtype, m.device.type) != like]
        if wrong or len(snapshot.memories) != kind.layers:
            described = [f"{tuple(m.shape)} {m.dtype} on {m.device}" for m in wrong]
            raise CacheError(
                f"a state kept for a prefix has {len(snapshot.memories)} layers, {described or 'as they should be'}",
                valid=f"{kind.layers} layers of {kind.shape} {kind.dtype} on {kind.device}",
                next_step="--prefix-cache-gb 0 computes every prompt whole; please report this",
            )


@dataclass(frozen=True)
class Prefixes:
    """The border digests of a batch's prompts, the prefixes to keep as (border, digest), and what is kept so far.

    first_read: the token of each prompt from which on the model's output is read; None: its last token only.
    """

    digests: Sequence[bytes]
    snapshot_points: Sequence[tuple[int, bytes]]
    cache: PrefixCache
    first_read: Sequence[int] | None = None


class SharedPrefill:
    """Decides which rows a batch's state has from step to step."""

    def __init__(self, prefixes: Prefixes, lengths: Sequence[int], segment_length: int) -> None:
        self._digests, self._cache, self._segment_length = prefixes.digests, prefixes.cache, segment_length
        # what is read of the output is always computed: at least the last token, from which the first new one is drawn
        first_read = [length - 1 for length in lengths] if prefixes.first_read is None else prefixes.first_read
        self._starts = [
            self._restored(digests, first // segment_length)
            for digests, first in zip(prefixes.digests, first_read, strict=True)
        ]
        self._snapshot_points = [
            (border, digest) for border, digest in prefixes.snapshot_points if digest not in self._cache
        ]
        self._row_of_prompt: Sequence[int | None] = [None] * len(lengths)

    @property
    def spans(self) -> list[PrefixSpan]:
        """How the prompts are read together, for `plan_prefill`."""
        starts = [0 if start is None else start.segments for start in self._starts]
        return prefix_spans(self._digests, starts, [border for border, _ in self._snapshot_points])

    def before(self, step: PrefillStep, state: BatchState) -> None:
        """Give `state` the rows that `step` reads."""
        self._branch(state, step.rows, step.start // self._segment_length)
        self._row_of_prompt = step.row_of_prompt

    def after(self, step: PrefillStep, state: BatchState) -> None:
        """Keep what later batches start from, where `step` has reached it."""
        border, rest = divmod(step.start + step.tokens, self._segment_length)
        if rest or not step.segments:
            return
        for point, digest in self._snapshot_points:
            alike = [prompt for prompt, digests in enumerate(self._digests) if digest_at(digests, border) == digest]
            rows = [row for prompt in alike if (row := step.row_of_prompt[prompt]) is not None]
            if point == border and rows:
                self._cache.save(digest, border, state.snapshot(rows[0]))

    def expand_rows(self, state: BatchState) -> None:
        """Give `state`, after the last step, a row for each prompt, also for those that are alike to the end."""
        whole = state.cursor.segments[0]
        self._branch(state, range(len(self._row_of_prompt)), whole)
        self._row_of_prompt = range(len(self._row_of_prompt))

    def _restored(self, digests: bytes, at_most: int) -> Snapshot | None:
        digest = self._cache.longest(digests, at_most)
        return None if digest is None else self._cache.restore(digest)

    def _branch(self, state: BatchState, prompts: Sequence[int], border: int) -> None:
        if border == 0:
            return  # fresh rows, which have no memory yet
        sources: list[int | Memories] = []
        for prompt in prompts:
            row, start = self._row_of_prompt[prompt], self._starts[prompt]
            if row is None:
                assert start is not None and start.segments == border, "a row joins where its snapshot was taken"
                sources.append(start.memories)
            else:
                sources.append(row)
        if sources != [*range(state.cursor.batch)]:
            state.branch(sources, border)


def reused_tokens(steps: Sequence[PrefillStep], lengths: Sequence[int]) -> list[int]:
    """Count each prompt's tokens that no step reads for it, but for another prompt or an earlier batch."""
    reused = list(lengths)
    for step in steps:
        for row, count in zip(step.rows, step.counts, strict=True):
            reused[row] -= count
    return reused
