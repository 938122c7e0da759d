"""Memories of long streams of haystack, so that short sequences are trained and asked under millions of tokens' interference.

A factor on a segment's update (data.py) repeats one segment; a real stream is an average over many, and it also changes how
the needle itself is read before it is written. The streams are read with the model's weights of the moment.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scripts.train_demo.data import Batch, Source
from torch import Tensor

STREAMS = ("template",) * 5 + ("docs", "docs", "filler")
CHUNK = 16  # segments of each stream that one forward reads
SNAPSHOTS = (16, 128, 1024)  # segments after which the memories are kept
LONGEST = 131_072  # segments that a kept memory may stand for; it is scaled up to them


@dataclass
class Past:
    """What long streams left in the memory: memory_CBNHE enters row b right before its segment segment_B[b]; -1 for never."""

    memory_CBNHE: Tensor
    segment_B: Tensor


Absorb = Callable[[Tensor, int, Tensor | None], Tensor]  # InfiniLlama.absorb


class Pasts:
    """Kept memories of the streams [C, B, N, H, E], one for each of SNAPSHOTS."""

    def __init__(self, absorb: Absorb, source: Source, step: int, segment_length: int) -> None:
        self._random = rng = random.Random(f"{source.seed}-past-{step}")
        tokens = SNAPSHOTS[-1] * segment_length
        rows = [source.stream_ids(rng, tokens, kind) for kind in STREAMS]
        ids_BST = torch.tensor(rows).view(len(rows), -1, CHUNK * segment_length)
        self._kept: list[Tensor] = []
        memory = None
        for chunk, ids_BT in enumerate(ids_BST.unbind(1), 1):
            memory = absorb(ids_BT, segment_length, memory)
            if chunk * CHUNK in SNAPSHOTS:
                self._kept.append(memory)

    def of(self, batch: Batch) -> Past:
        """A past for each row of a batch that wants one: a stream, its length, and how many times it was read."""
        rows, rng = [], self._random
        for _ in range(len(batch.past_B)):
            snapshot = rng.randrange(len(SNAPSHOTS))
            times = (LONGEST / SNAPSHOTS[snapshot]) ** rng.random()
            rows.append(self._kept[snapshot][:, rng.randrange(len(STREAMS))] * times)
        return Past(torch.stack(rows, 1), batch.past_B)
