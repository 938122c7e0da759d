"""An evaluation without a model, for tests of launching, faults and resuming: every part of a run but the forward pass.

PYTHONPATH=tests torchrun --nproc_per_node=2 -m support.fake_evaluation RUN_FOLDER --dp 2 --misbehave kill:1:3
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence

from infini_eval.cli.flags import add_flag, add_topology_flags, make_parser
from infini_eval.cli.main import guarded
from infini_eval.config import Topology
from infini_eval.distributed.launch import World, launch
from infini_eval.distributed.logging import setup_logging
from infini_eval.distributed.mesh import Mesh, ModelShape, resolve_topology
from infini_eval.distributed.progress import Progress
from infini_eval.distributed.work_queue import WorkQueue
from infini_eval.errors import DataError
from infini_eval.records import NeedlePosition, Response, RunManifest, Sample, SampleRecord, Score
from infini_eval.results.lock import run_lock
from infini_eval.results.manifest import ResumeState, open_run
from infini_eval.results.merge import merge_samples
from infini_eval.results.samples import SampleWriter, replica_name

MODEL = ModelShape(num_layers=4, num_heads=4, num_kv_heads=4, vocab_size=64, intermediate_size=64)


def run(args: argparse.Namespace) -> int:
    """Evaluate `args.samples` made-up samples into `args.folder`."""
    with launch("cpu", args.timeout, grace_s=args.grace) as world:
        shape = resolve_topology(Topology(args.dp, args.tp, args.pp), world.world_size, MODEL)
        mesh = Mesh.build(shape, world.rank)
        log = setup_logging(mesh.tag, speaks=mesh.is_leader)
        if not world.is_main:
            evaluate(args, world, mesh, open_shared(args, world))
            world.disband()
            return 0
        with run_lock(args.folder, on_lost=lambda reason: world.abort(DataError(reason))) as lock:
            world.on_exit(lock.release)
            state = open_shared(args, world)
            for note in state.notes:
                log.warning("%s", note)
            evaluate(args, world, mesh, state)
            world.disband()
            summary = merge_samples(args.folder, check=world.raise_if_stopped)
            log.info("%d samples, %d of them found done", summary.rows, len(state.finished_keys))
    return 0


def open_shared(args: argparse.Namespace, world: World) -> ResumeState:
    """Open the run folder on rank 0 and tell every rank where the run stands."""
    manifest = RunManifest(
        {"samples": args.samples, "seed": args.seed}, {}, {"world_size": world.world_size}, args.samples
    )
    return ResumeState.from_json(world.broadcast_object("resume", lambda: open_run(args.folder, manifest).to_json()))


def evaluate(args: argparse.Namespace, world: World, mesh: Mesh, state: ResumeState) -> None:
    """Answer what is left of the samples, one a batch, until all is done or the run is asked to stop."""
    samples = [make_sample(number, args.seed) for number in range(args.samples)]
    left = [sample for sample in samples if sample.key not in state.finished_keys]
    queue = WorkQueue([len(sample.prompt) for sample in left], mesh, world.store, stopping=lambda: world.stop.requested)
    writer = SampleWriter(args.folder, replica_name(mesh.dp_rank)) if mesh.is_leader else None
    with Progress(world, len(left)) as progress:
        for done, index in enumerate(queue):
            world.set_status(f"sample {left[index].id}")
            misbehave(args.misbehave, world.rank, done)
            record = answer(left[index], mesh, args.seconds)
            if writer is not None:
                writer.write(record)
                progress.add(samples=1, tokens=len(record.sample.prompt), score=1.0)
    if writer is not None:
        writer.close()
    world.raise_if_stopped()


def make_sample(number: int, seed: int) -> Sample:
    """A made-up sample whose answer is its number."""
    return Sample(str(number), f"{seed}:" + "x" * (number % 7 + 1), str(number), float(number % 3 * 50), 1024)


def answer(sample: Sample, mesh: Mesh, seconds: float) -> SampleRecord:
    """The right answer, after some time and a collective in every group that the mesh has."""
    import torch
    import torch.distributed as dist

    time.sleep(seconds)
    for group in (mesh.tp_group, mesh.pp_group):
        if group is not None:
            dist.all_reduce(torch.ones(1), group=group)
    response = Response(sample.answer, [1], len(sample.prompt), "stop", seconds)
    score = {"exact_digits": Score(1.0, sample.answer)}
    return SampleRecord(sample, response, score, "exact_digits", NeedlePosition(None, None), "", mesh.dp_rank)


def misbehave(plan: str | None, rank: int, done: int) -> None:
    """Do what "WHAT:RANK:BATCHES" says, on that rank, after that many batches, in the first attempt only."""
    if plan is None or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        return
    what, who, when = plan.split(":")
    if (rank, done) != (int(who), int(when)):
        return
    if what == "mistake":
        raise DataError("this sample cannot be used")
    if what == "crash":
        raise RuntimeError("out of luck")
    numbers = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP, "terminate": signal.SIGTERM}
    os.kill(os.getppid() if what == "kill_agent" else os.getpid(), numbers[what.removesuffix("_agent")])


def main(argv: Sequence[str] | None = None) -> int:
    """Run with these arguments, or those of the command line; returns the exit status."""
    parser = make_parser(description=__doc__)
    parser.add_argument("folder")
    add_topology_flags(parser)
    add_flag(parser, "--samples", type=int, default=20)
    add_flag(parser, "--seed", type=int, default=0)
    add_flag(parser, "--seconds", type=float, default=0.01, help="time for a sample")
    add_flag(parser, "--grace", type=float, default=20.0, help="seconds between a signal and the end")
    add_flag(parser, "--misbehave", metavar="WHAT:RANK:BATCHES")
    return guarded(run, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
