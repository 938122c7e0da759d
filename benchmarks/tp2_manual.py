"""Two tensor-parallel ranks with plain shards and manual all-reduces: a rank's CPU against one process."""

from __future__ import annotations

from benchmarks._harness import Metric, temporary_folder
from benchmarks._models import shape, write_random
from benchmarks.pp2_overlap import timed
from infini_eval.testing.distributed import run_distributed_test


def run(toy: bool) -> list[Metric]:
    sizes = shape(32, 48, 2, 4, 4, 96, 16) if toy else shape(1024, 4096, 2, 8, 8, 512, 256)
    with temporary_folder() as folder:
        path = write_random(folder / "1", sizes)
        ranks = run_distributed_test(
            timed, 2, args=(str(path), 2, 1, 16 if toy else 256, 1, 1 if toy else 15), poison=False, timeout_s=300
        )
    ratio = max(rank["split"] / rank["alone"] for rank in ranks)
    note = f"{max(rank['split'] for rank in ranks):.3f} / {ranks[0]['alone']:.3f} CPU s for 256 tokens, hidden 1024"
    return [Metric("tp2_manual", ratio, "x", "<=", 0.60, note)]
