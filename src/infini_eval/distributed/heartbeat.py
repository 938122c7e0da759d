"""Heartbeats on the store: who is alive, since when somebody is not, and what each rank was doing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from infini_eval.distributed.store import beat_key

if TYPE_CHECKING:
    from torch.distributed import Store

STOPPED_AFTER_S = 3.0  # a heartbeat that has not changed for so long has stopped


class Heartbeats:
    """Beats for one rank and watches the beats of all.

    A beat is a counter, and its age is the time since *we* saw it change: hosts' clocks need not agree. `store` is a
    connection that no other thread uses.
    """

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        self._store = store
        self._key = beat_key(rank)
        self._keys = [beat_key(number) for number in range(world_size)]
        self._beats = 0
        self._seen: list[tuple[bytes, float]] = [(b"", time.monotonic())] * world_size

    def beat(self, activity: str) -> None:
        """Say that this rank is alive, and what it is doing."""
        self._beats += 1
        self._store.set(self._key, f"{self._beats}|{activity}")

    def look(self) -> None:
        """Read all ranks' beats."""
        now = time.monotonic()
        for rank, value in enumerate(self._store.multi_get(self._keys)):
            if value != self._seen[rank][0]:
                self._seen[rank] = (value, now)

    def stopped(self, after_s: float = STOPPED_AFTER_S) -> list[int]:
        """Ranks whose heartbeat has not changed for `after_s` seconds."""
        return [rank for rank in range(len(self._seen)) if self.age(rank) > after_s]

    def age(self, rank: int) -> float:
        """Seconds since a rank's heartbeat was seen to change."""
        return time.monotonic() - self._seen[rank][1]

    def describe(self, ranks: Sequence[int]) -> str:
        """What these ranks were last seen doing, as "rank 3 (5 s ago: batch 7)"."""
        return ", ".join(f"rank {rank} ({self.age(rank):.0f} s ago: {self._activity(rank)})" for rank in ranks)

    def _activity(self, rank: int) -> str:
        return self._seen[rank][0].decode(errors="replace").partition("|")[2] or "starting"
