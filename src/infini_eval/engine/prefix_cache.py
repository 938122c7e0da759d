"""States at segment borders that later batches start from: a bounded number of them, the longest unused dropped first.

A snapshot is bound to the model, its settings and this rank's part of it, and to the digest of the tokens read. All
ranks of a replica make the same units in the same order and count alike, so they keep and drop the same snapshots.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from dataclasses import dataclass

import torch

from infini_eval.engine.prefixes import digest_at
from infini_eval.errors import CacheError
from infini_eval.models.state import Memories

OVERHEAD = 1024


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
        """What one snapshot counts as; at least OVERHEAD, so that empty ones are bounded too."""
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
        return len(self) * self.kind.counted_bytes

    def clear(self) -> None:
        self._snapshots.clear()

    def longest(self, digests: bytes, at_most: int) -> bytes | None:
        """The digest of the longest prefix of a prompt that is kept, of at most `at_most` segments."""
        kept = {snapshot.segments for snapshot in self._snapshots.values()}
        found = (digest_at(digests, border) for border in sorted(kept, reverse=True) if border <= at_most)
        return next((digest for digest in found if digest in self._snapshots), None)

    def save(self, digest: bytes, segments: int, memories: Memories) -> None:
        """Keep a snapshot; the longest unused ones make room. One that is larger than the limit is not kept."""
        self._snapshots[digest] = Snapshot(self._key(digest), segments, memories)
        self._snapshots.move_to_end(digest)
        while self._snapshots and self.counted_bytes > self.limit_bytes:
            self._snapshots.popitem(last=False)

    def restore(self, digest: bytes) -> Snapshot:
        """A snapshot that is kept, which counts as used now. CacheError where it is not what its place says."""
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
            found = [f"{tuple(m.shape)} {m.dtype} on {m.device}" for m in wrong]
            raise CacheError(
                f"a state kept for a prefix has {len(snapshot.memories)} layers, {found or 'as they should be'}",
                valid=f"{kind.layers} layers of {kind.shape} {kind.dtype} on {kind.device}",
                next_step="--prefix-cache-gb 0 computes every prompt whole; please report this",
            )
