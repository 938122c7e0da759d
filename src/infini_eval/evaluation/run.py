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
from infini_eval.errors import ConfigError
from infini_eval.evaluation.answer import SampleLog, Scoring, answer_batches, check_measures
from infini_eval.evaluation.guard import MemoryWatch, batch_sizes, batches_left
from infini_eval.evaluation.messages import check_context_window, log_notes, log_prompt_lengths
from infini_eval.evaluation.prepare import choose_samples, prepare_items
from infini_eval.evaluation.run_folder import RunFolder, Timing, describe_run
from infini_eval.results.manifest import check_results_file
from infini_eval.results.results_file import ResultsFile

OpenBackend = Callable[[EvalConfig, World], Backend]


@dataclass(frozen=True)
class Outcome:
    """Where the results lie, and whether this process is the one that should report them."""

    folder: Path
    is_main: bool
    planned: int


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
    if not config.save_path.strip():
        raise ConfigError("--save_path is empty", valid="the folder of the run")
    if config.results_file is not None:
        check_results_file(config.results_file, config.save_path)
    with launch(config.model.device, timeout_s) as world, Timing(world) as timing:
        task = registry.task(config.task)
        if make_data is not None:
            timing.begin("making the data")
            world.broadcast_object("data", make_data)
        timing.begin("reading the data")
        data, samples = choose_samples(config, task, world)
        timing.begin("opening the model")
        backend = (open_backend or registry.load("backends", config.backend))(config, world)
        setup_logging(backend.mesh.tag, speaks=backend.mesh.is_leader)
        log_notes(world, backend.notes)
        check_measures(backend, samples, config.backend)
        timing.begin("tokenising")
        items = prepare_items(task, backend, samples, world, config.progress_every)
        log_prompt_lengths(world, items)
        check_context_window(config, world, backend.model_facts(), items)
        timing.begin("planning")
        scoring = Scoring.of(task, config.scorer)
        early_stop = scoring.early_stop(backend, allowed=config.early_stop)
        manifest = describe_run(config, data, backend, len(items), early_stop)
        results_file = ResultsFile(config.results_file, config.failed_as_wrong) if config.results_file else None
        keys = {item.sample.key for item in items} if world.is_main else None
        with RunFolder(config.save_path, manifest, world, config.overwrite, results_file, keys) as folder:
            plan = batches_left(config, backend, world, items, folder)
            if plan.batches:
                sizes, footprint = batch_sizes(plan, items, config.max_new_tokens), backend.footprint(plan)
                watched = backend.computes_here
                memory = MemoryWatch(footprint, sizes, world, folder.note, refuse=config.plan, watches=watched)
                timing.begin("loading the model")
                with memory.loading(config.progress_every):
                    backend.load(plan)
                timing.begin("answering")
                log, every_s = SampleLog.of(config), config.progress_every
                answer_batches(plan, items, backend, world, folder, scoring, early_stop, log, every_s)
                memory.log_peak()
            timing.begin("merging")
            folder.merge()
            if plan.batches:  # a finished run keeps the seconds of the one that answered
                folder.note(seconds=timing.end())
        return Outcome(Path(config.save_path), world.is_main, len(items))
