"""What dp, tp and pp cost and give: two real gloo processes against one, and dp to 512 replicas on the simulated queue.

  python -m benchmarks.topology [--toy]

The shipped checkpoint (width 128: nothing here pays but dp) and a random one of width 1,024. Every rank's answers must equal
those of one process. CPU seconds are each rank's own; `at most` is one process's CPU over the busiest rank's, which is the
speed-up that free cores could reach; `wall` is what this machine reached, and means something only where two cores are idle.
Communication is measured inside the collectives and sends of torch.distributed, waiting apart from CPU.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks._harness import DEMO, WrongAnswer, gate, temporary_folder
from benchmarks.dp_balance import DEPTHS, LENGTHS, stretch
from infini_eval.testing.distributed import run_distributed_test

CALLS = ("all_reduce", "all_gather", "broadcast", "recv", "isend")
AXES = {"dp2": (2, 1, 1), "tp2": (1, 2, 1), "pp2": (1, 1, 2)}
REPLICAS = (8, 64, 512)


@dataclass(frozen=True)
class Work:
    """Prompts of `tokens` tokens, answered one after the other with `new_tokens` new tokens each."""

    prompts: int
    tokens: int
    new_tokens: int
    repetitions: int


@dataclass
class Spent:
    """What a rank spends in torch.distributed: calls, bytes of its own tensors, CPU and wall seconds."""

    calls: int = 0
    bytes: int = 0
    cpu: float = 0.0
    wall: float = 0.0


@dataclass(frozen=True)
class Row:
    """One model and axis. `one` and `ranks` are least CPU seconds, `wall` least wall seconds of all ranks together."""

    model: str
    axis: str
    one: float
    ranks: tuple[float, ...]
    one_wall: float
    wall: float
    calls: int
    megabytes: float
    communication_cpu: float
    communication_wall: float

    @property
    def at_most(self) -> float:
        return self.one / max(self.ranks)


def measure(model: str, path: Path, axis: str, work: Work) -> Row:
    """Two processes on one axis, each with the whole model beside its part, so that both are timed in turn."""
    ranks = run_distributed_test(timed, 2, args=(str(path), AXES[axis], asdict(work)), poison=False, timeout_s=580)
    busiest = max(ranks, key=lambda rank: rank["cpu"])
    return Row(
        model=model,
        axis=axis,
        one=ranks[0]["one"],
        ranks=tuple(rank["cpu"] for rank in ranks),
        one_wall=ranks[0]["one_wall"],
        wall=max(rank["wall"] for rank in ranks),
        calls=busiest["spent"]["calls"],
        megabytes=busiest["spent"]["bytes"] / 1e6,
        communication_cpu=busiest["spent"]["cpu"],
        communication_wall=busiest["spent"]["wall"],
    )


def timed(path: str, sizes: tuple[int, int, int], work_fields: dict[str, int]) -> dict[str, Any]:
    """On each rank: its part of the work, then all of it on rank 0 alone while the other one waits."""
    import torch.distributed as dist

    from benchmarks._models import random_prompts
    from infini_eval.checkpoint.reader import Checkpoint
    from infini_eval.config import ModelSettings
    from infini_eval.distributed.mesh import Mesh, MeshShape
    from infini_eval.engine.native_model import NativeModel, load_replica

    work, rank = Work(**work_fields), int(os.environ["RANK"])
    checkpoint, settings = Checkpoint(Path(path)), ModelSettings(dtype="float32", device="cpu")
    mesh = Mesh.build(MeshShape(*sizes), rank)
    part, whole = load_replica(checkpoint, settings, mesh, "cpu"), NativeModel.load(checkpoint, settings)
    prompts = random_prompts(whole, work.tokens, work.prompts)
    mine = prompts[mesh.dp_rank :: mesh.shape.dp]

    def answer(model: NativeModel, asked: list) -> list[list[int]]:
        return model.generate(asked, work.new_tokens, stop_ids=(), batch_size=1)

    expected = answer(whole, prompts)
    gate(answer(part, mine) == expected[mesh.dp_rank :: mesh.shape.dp], "the ranks answer differently from one process")
    cpus, walls, one, one_wall, spents = [], [], [], [], []
    for _ in range(work.repetitions):
        dist.barrier()
        with counted() as spent:
            cpu, wall = _clocked(lambda: answer(part, mine))
        cpus.append(cpu)
        walls.append(wall)
        spents.append(spent)
        dist.barrier()
        if rank == 0:
            cpu, wall = _clocked(lambda: answer(whole, prompts))
            one.append(cpu)
            one_wall.append(wall)
    dist.barrier()
    least = min(range(len(cpus)), key=cpus.__getitem__)
    result = {"cpu": cpus[least], "wall": min(walls), "spent": asdict(spents[least])}
    return result | ({"one": min(one), "one_wall": min(one_wall)} if rank == 0 else {})


def _clocked(run: Callable[[], Any]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


@contextmanager
def counted() -> Iterator[Spent]:
    """Counts what this process spends in the calls of torch.distributed that the engine makes."""
    import torch.distributed as dist

    spent, plain = Spent(), {name: getattr(dist, name) for name in CALLS}

    def counting(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapped(tensor: Any, *args: Any, **options: Any) -> Any:
            cpu, wall = time.process_time(), time.perf_counter()
            result = call(tensor, *args, **options)
            spent.cpu += time.process_time() - cpu
            spent.wall += time.perf_counter() - wall
            spent.calls += 1
            spent.bytes += sum(x.nbytes for x in (tensor if isinstance(tensor, list) else [tensor]))
            return result

        return wrapped

    try:
        for name, call in plain.items():
            setattr(dist, name, counting(call))
        yield spent
    finally:
        for name, call in plain.items():
            setattr(dist, name, call)


def rows(toy: bool) -> Iterator[Row]:
    from benchmarks._models import TOY, shape, write_random

    with temporary_folder() as folder:
        wide = write_random(folder / "wide", TOY if toy else shape(1024, 4096, 4, 8, 8, 4096, 256))
        shipped = Work(2, 300, 3, 1) if toy else Work(4, 8192, 15, 3)
        works = {"shipped": (DEMO, shipped), "width 1,024": (wide, Work(2, 64, 2, 1) if toy else Work(2, 1024, 15, 3))}
        for model, (path, work) in works.items():
            for axis in AXES:
                yield measure(model, path, axis, work)


def simulated(toy: bool) -> dict[str, dict[int, float]]:
    """Makespan over the ideal at each number of replicas: a whole grid of 1k to 32k, and 1k alone."""
    samples = 2 if toy else 50
    grids = {
        f"1k to 32k, {DEPTHS} depths x {samples}": [x for x in LENGTHS for _ in range(DEPTHS * samples)],
        f"1k alone, {DEPTHS} depths x {samples}": [1024] * DEPTHS * samples,
    }
    return {name: {count: stretch(lengths, count) for count in REPLICAS} for name, lengths in grids.items()}


def show(row: Row) -> None:
    ranks = " + ".join(f"{cpu:.2f}" for cpu in row.ranks)
    share = f"{100 * row.communication_cpu / max(row.ranks):.0f} %"
    print(
        f"{row.model:14}{row.axis:6}{row.one:9.2f}{ranks:>15}{row.at_most:9.2f}x{row.one_wall / row.wall:7.2f}x"
        f"{row.calls:8,}{row.megabytes:9.1f}{share:>9}{row.communication_wall:12.2f}",
        flush=True,
    )


def main(argv: list[str]) -> int:
    from benchmarks.__main__ import conditions

    made = argparse.ArgumentParser(prog="python -m benchmarks.topology", description=__doc__, allow_abbrev=False)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--toy", action="store_true", help="tiny sizes: shows that it runs")
    toy = made.parse_args(argv).toy
    print(conditions())
    print(
        f"{'model':14}{'axis':6}{'one CPU s':>9}{'ranks CPU s':>15}{'at most':>10}{'wall':>8}{'calls':>8}{'MB':>9}"
        f"{'CPU in it':>9}{'s in calls':>12}"
    )
    found: list[Row] = []
    try:
        for row in rows(toy):
            found.append(row)
            show(row)
    except (WrongAnswer, AssertionError) as problem:
        print(f"wrong answer: {problem}")
        return 1
    queue = simulated(toy)
    for name, stretches in queue.items():
        listed = ", ".join(f"dp={count} {100 / value:.1f} %" for count, value in stretches.items())
        print(f"simulated queue, {name}: efficiency {listed}")
    table = [asdict(row) | {"at_most": row.at_most} for row in found]
    print(json.dumps({"conditions": conditions(), "toy": toy, "rows": table, "queue_stretch": queue}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
