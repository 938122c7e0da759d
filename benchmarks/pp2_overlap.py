"""Two pipeline stages over one long prompt: CPU of the busiest rank against one process that does it all.

Each rank has the whole model too, so that both are timed in the same process, in turn.
"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks._harness import Metric, fastest, gate, interleaved, temporary_folder
from benchmarks._models import random_prompts, shape, write_random
from infini_eval.testing.distributed import run_distributed_test


def run(toy: bool) -> list[Metric]:
    sizes = shape(32, 48, 2, 4, 4, 96, 16) if toy else shape(512, 1408, 4, 8, 8, 512, 256)
    with temporary_folder() as folder:
        path = write_random(folder / "1", sizes)
        ranks = run_distributed_test(
            timed, 2, args=(str(path), 1, 2, 256 if toy else 8192, 4, 1 if toy else 4), poison=False, timeout_s=300
        )
    busiest = max(rank["split"] / rank["alone"] for rank in ranks)
    waits = max(rank["wall"] for rank in ranks)
    stages = " + ".join(f"{rank['split']:.2f}" for rank in ranks)
    note = f"stages {stages} CPU s, alone {ranks[0]['alone']:.2f}"
    return [
        Metric("pp2_overlap", busiest, "x", "<=", 0.56, note),
        Metric(
            "pp2_wall", waits, "x", "<=", None, "wall clock of both stages / CPU of one process; needs two free cores"
        ),
    ]


def timed(path: str, tp: int, pp: int, tokens: int, new_tokens: int, repetitions: int) -> dict[str, float]:
    """On each rank: least CPU seconds of this rank's part, and of the whole model in this process alone."""
    import os

    import torch.distributed as dist

    from infini_eval.checkpoint.reader import Checkpoint
    from infini_eval.config import ModelSettings
    from infini_eval.distributed.mesh import Mesh, MeshShape
    from infini_eval.engine.native_model import NativeModel, load_replica

    checkpoint, settings = Checkpoint(Path(path)), ModelSettings(dtype="float32", device="cpu")
    mesh = Mesh.build(MeshShape(1, tp, pp), int(os.environ["RANK"]))
    models = {"split": load_replica(checkpoint, settings, mesh, "cpu"), "alone": NativeModel.load(checkpoint, settings)}
    prompt = random_prompts(models["alone"], tokens)
    answers = {name: model.generate(prompt, new_tokens, stop_ids=()) for name, model in models.items()}
    gate(answers["split"] == answers["alone"], "the ranks together answer differently from one process")
    walls = []

    def together() -> None:
        began = time.perf_counter()
        models["split"].generate(prompt, new_tokens, stop_ids=())
        walls.append(time.perf_counter() - began)

    def alone() -> None:
        models["alone"].generate(prompt, new_tokens, stop_ids=())
        dist.barrier()  # no rank starts its part of the next run while the other is still alone

    seconds = fastest(interleaved({"split": together, "alone": alone}, repetitions))
    return seconds | {"wall": min(walls) / seconds["alone"]}
