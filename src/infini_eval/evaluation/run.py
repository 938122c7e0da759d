"""THE path from a configuration to a results folder: data, model, run folder, answers, scores, records, merge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infini_eval.api import registry
from infini_eval.api.backend import Backend
from infini_eval.config import EvalConfig
from infini_eval.distributed.launch import World, launch
from infini_eval.distributed.logging import setup_logging
from infini_eval.evaluation.answering import answer_batches
from infini_eval.evaluation.batches import batch_sizes, batches_left
from infini_eval.evaluation.early_stop import early_stop_of, recorded_scorers
from infini_eval.evaluation.manifest import describe_run
from infini_eval.evaluation.preparing import prepare_samples
from infini_eval.evaluation.run_folder import RunFolder, merge_results
from infini_eval.evaluation.samples import choose_samples
from infini_eval.evaluation.telling import say, say_lengths, say_window
from infini_eval.evaluation.timing import Timing
from infini_eval.planning.watch import MemoryWatch

OpenBackend = Callable[[EvalConfig, World], Backend]


@dataclass(frozen=True)
class Outcome:
    """Where the results lie, and whether this process is the one that should report them."""

    folder: Path
    is_main: bool
    planned: int
    already_finished: int


def evaluate(
    config: EvalConfig,
    *,
    timeout_s: float = 1800.0,
    make_data: Callable[[], None] | None = None,
    open_backend: OpenBackend | None = None,
) -> Outcome:
    """Run one evaluation, or continue it; every process of a launch calls this with the same configuration.

    Args:
        make_data: called once, on rank 0, before the data are read.
        open_backend: makes the backend where it is not the one that `config.backend` names (a model that is loaded).
    """
    setup_logging()
    with launch(config.model.device, timeout_s) as world:
        timing = Timing(world)
        task = registry.task(config.task)
        if make_data is not None:
            timing.begin("making the data")
            world.broadcast_object("data", make_data)
        timing.begin("reading the data")
        data, samples = choose_samples(config, task, world)
        timing.begin("opening the model")
        backend = (open_backend or registry.load("backends", config.backend))(config, world)
        setup_logging(backend.mesh.tag, speaks=backend.mesh.is_leader)
        say(world, backend.notes)
        timing.begin("tokenising")
        prepared = prepare_samples(task, backend, samples, world)
        say_lengths(world, prepared)
        say_window(config, world, backend.model_facts(), prepared)
        timing.begin("planning")
        early_stop = early_stop_of(config, task, backend)
        manifest = describe_run(config, data, backend, prepared, early_stop)
        with RunFolder(config, manifest, world) as folder:
            plan = batches_left(config, backend, world, prepared, folder)
            if plan.batches:
                sizes = batch_sizes(config, plan, prepared)
                footprint = backend.footprint(plan)
                memory = MemoryWatch(config, footprint, world, sizes, folder.note, watches=backend.computes_here)
                timing.begin("loading the model")
                backend.load(plan)
                timing.begin("answering")
                scorers = recorded_scorers(config, task)
                answer_batches(config, scorers, early_stop, backend, world, plan.batches, prepared, folder)
                memory.conclude()
            timing.begin("merging")
            world.raise_if_stopped()
            world.barrier("answered")
            if world.is_main:
                merge_results(config)
            if plan.batches:  # a finished run keeps the seconds of the one that answered
                timing.write(folder)
        return Outcome(Path(config.save_path), world.is_main, len(prepared), len(folder.state.finished_keys))
