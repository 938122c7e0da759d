"""THE path from a configuration to a results folder: data, model, run folder, answers, scores, records, merge."""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infini_eval import __version__, registry
from infini_eval.backends._backend import AnyBackend, Prepared
from infini_eval.backends._keys import without_keys
from infini_eval.config import EvalConfig
from infini_eval.datasets.parquet import LoadedData, select_samples
from infini_eval.distributed.launch import World, launch
from infini_eval.distributed.logging import setup_logging
from infini_eval.distributed.progress import Progress
from infini_eval.distributed.work_queue import WorkQueue
from infini_eval.engine.batching import Batch
from infini_eval.errors import DataError, OutOfMemory, RunFolderError
from infini_eval.planning.watch import MemoryWatch
from infini_eval.records import Response, RunManifest, Sample, SampleRecord
from infini_eval.results.lock import run_lock
from infini_eval.results.manifest import open_run, update_environment
from infini_eval.results.merge import check_results_file, merge_samples, write_results_file
from infini_eval.results.resume import ResumeState
from infini_eval.results.writer import SampleWriter, replica_name
from infini_eval.tasks._task import Task

logger = logging.getLogger(__name__)
Answered = tuple[Batch, list[Response]]


@dataclass(frozen=True)
class Outcome:
    """Where the results lie, and whether this process is the one that should report them."""

    folder: Path
    is_main: bool
    planned: int
    already_finished: int


def evaluate(config: EvalConfig, *, timeout_s: float = 1800.0, make_data: Callable[[], None] | None = None) -> Outcome:
    """Run one evaluation, or continue it; every process of a launch calls this with the same configuration.

    make_data: called once, on rank 0, before the data are read.
    """
    setup_logging()
    with launch(config.model.device, timeout_s) as world:
        task: Task = registry.load("tasks", config.task)
        if make_data is not None:
            world.at("making the data")
            world.share("data", make_data)
        data, samples = _samples(config, task, world)
        backend: AnyBackend = registry.load("backends", config.backend)(config, world)
        setup_logging(backend.mesh.tag, speaks=backend.mesh.is_leader)
        _say(world, backend.notes)
        prepared = [backend.prepare(sample, task.locate(sample)) for sample in samples]
        _say_lengths(world, prepared)
        manifest = _manifest(config, task, data, backend, prepared)
        with _run_folder(config, manifest, world) as state:
            left = _unfinished(backend.plan(prepared, _largest_batch(state)), prepared, state)
            if left:
                memory = MemoryWatch(config, backend, world, _sizes(config, left, prepared))
                world.at("loading the model")
                backend.load()
                _answer(config, task, backend, world, left, prepared)
                memory.conclude()
            world.raise_if_stopped()
            world.barrier("answered")
            if world.is_main:
                _finish(config)
        return Outcome(Path(config.save_path), world.is_main, len(prepared), len(state.finished_keys))


def _samples(config: EvalConfig, task: Task, world: World) -> tuple[LoadedData, list[Sample]]:
    """The rows to ask, validated; alike on every rank."""
    filters = {"num_shots": config.num_shots, "num_digits": config.num_digits}
    data = task.load(config.eval_dataset_path, **filters, context_length=config.context_length, depths=config.depths)
    samples, notes = select_samples(data.samples, config.num_samples, config.seed)
    findings = [str(finding) for finding in task.validate(samples)]
    if findings and config.strict_data:
        raise DataError(
            f"{data.source} does not pass validation: " + "; ".join(findings),
            next_step="mend the data, or leave --strict-data out to be warned only",
        )
    _say(world, [*data.notes, *notes, *findings])
    return data, samples


def _manifest(
    config: EvalConfig, task: Task, data: LoadedData, backend: AnyBackend, prepared: Sequence[Prepared]
) -> RunManifest:
    filters = {"num_shots": config.num_shots, "num_digits": config.num_digits or None, "depths": config.depths}
    identity = {
        "task": config.task,
        "scorer": config.scorer,
        "data": data.fingerprint,
        "filters": {**filters, "context_length": config.context_length},
        "seed": config.seed,
        "num_samples": config.num_samples,
        "max_new_tokens": config.max_new_tokens,
        **backend.identity(),
    }
    environment = {
        "eval_dataset_path": data.source,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": without_keys(sys.argv),
        "versions": _versions(),
        **backend.environment(),
    }
    return RunManifest(identity, backend.model_facts(), environment, len(prepared))


class _run_folder:
    """Opens the run folder on rank 0, which holds its lock until the block ends; all ranks get where it stands."""

    def __init__(self, config: EvalConfig, manifest: RunManifest, world: World) -> None:
        self._config, self._manifest, self._world = config, manifest, world
        self._lock: Any = None

    def __enter__(self) -> ResumeState:
        state = ResumeState.from_json(self._world.share("run_folder", self._open))
        _say(self._world, state.notes)
        if state.finished_keys:
            _say(self._world, [f"continuing: {len(state.finished_keys)} of {self._manifest.samples_planned} are done"])
        return state

    def __exit__(self, *exception: Any) -> None:
        if self._lock is not None:
            self._lock.__exit__(*exception)

    def _open(self) -> dict[str, Any]:
        if self._config.results_file:
            check_results_file(self._config.results_file)
        self._lock = run_lock(self._config.save_path, on_lost=self._lost)
        self._world.on_exit(self._lock.__enter__().release)
        return open_run(self._config.save_path, self._manifest, self._config.overwrite).to_json()

    def _lost(self, reason: str) -> None:
        self._world.abort(RunFolderError(reason))


def _unfinished(batches: list[Batch], prepared: Sequence[Prepared], state: ResumeState) -> list[Batch]:
    """Planned batches without the rows that are done: a row keeps its companions' plan however often a run resumes."""
    left = []
    for batch in batches:
        rows = tuple(row for row in batch.rows if prepared[row].sample.key not in state.finished_keys)
        if rows:
            left.append(Batch(rows, batch.cost * len(rows) // len(batch.rows)))
    return left


def _answer(
    config: EvalConfig, task: Task, backend: AnyBackend, world: World, left: list[Batch], prepared: Sequence[Prepared]
) -> None:
    """Answer this replica's share of the batches; its leader scores, logs and writes each sample as it finishes."""
    mesh = backend.mesh
    queue = WorkQueue([batch.cost for batch in left], mesh, world.store, stopping=lambda: world.stop.requested)
    scorers = {name: registry.load("scorers", name) for name in dict.fromkeys([config.scorer, *task.scorers])}
    rows = [row for batch in left for row in batch.rows]

    def work() -> Iterator[tuple[Batch, Sequence[Prepared]]]:
        for index in queue:
            world.at(f"batch {index}, samples {', '.join(prepared[row].sample.id for row in left[index].rows[:4])}")
            yield left[index], prepared

    with (
        SampleWriter(config.save_path, replica_name(mesh.dp_rank)) if mesh.is_leader else _Silent() as writer,
        Progress(world, len(rows), sum(prepared[row].tokens for row in rows)) as progress,
    ):

        def on_tokens(tokens: int) -> None:
            if mesh.is_leader:
                progress.add(tokens=tokens)

        for batch, responses in _smaller_next_time(config, backend.answer(work(), on_tokens)):
            if not mesh.is_leader:
                continue
            for row, response in zip(batch.rows, responses, strict=True):
                record = _record(config, scorers, prepared[row], response, mesh.dp_rank)
                writer.write(record)
                _log_sample(config, record)
                progress.add(samples=1, score=None if response.error else record.scores[config.scorer].value)


def _sizes(config: EvalConfig, left: Sequence[Batch], prepared: Sequence[Prepared]) -> list[tuple[int, int]]:
    """Rows of each batch, and tokens of its longest row with the answer."""
    return [(len(b.rows), max(prepared[row].tokens for row in b.rows) + config.max_new_tokens) for b in left]


def _largest_batch(state: ResumeState) -> int | None:
    """What memory allowed in an earlier attempt; None where nothing is known."""
    return ((state.previous.environment if state.previous else {}).get("batch_sizes") or {}).get("largest")


def _smaller_next_time(config: EvalConfig, answers: Iterator[Answered]) -> Iterator[Answered]:
    """Pass answers on; where memory runs out on a sharded model, note a smaller batch for the next attempt."""
    try:
        yield from answers
    except OutOfMemory as error:
        if error.rows > 1:
            update_environment(config.save_path, batch_sizes={"largest": error.rows // 2})
        raise


def _record(
    config: EvalConfig, scorers: dict[str, Any], prepared: Prepared, response: Response, replica: int
) -> SampleRecord:
    scores = {name: score(response.text, prepared.sample) for name, score in scorers.items()}
    return SampleRecord(prepared.sample, response, scores, config.scorer, prepared.position, prepared.excerpt, replica)


def _finish(config: EvalConfig) -> None:
    merged = merge_samples(config.save_path)
    if merged.failed:
        logger.warning("%d of %d samples failed; the same command tries them again", merged.failed, merged.rows)
    if config.results_file:
        write_results_file(config.save_path, config.results_file, failed_as_wrong=config.failed_as_wrong)


class _Silent:
    """Stands in for the writer on ranks that only compute."""

    def __enter__(self) -> Any:
        return None

    def __exit__(self, *exception: Any) -> None:
        return None


def _log_sample(config: EvalConfig, record: SampleRecord) -> None:
    if config.quiet:
        return
    prompt = record.sample.prompt if config.log_prompts else record.excerpt
    logger.info("input: %s", prompt)
    logger.info("generation: %s\n%s", record.response.text, "-" * 50)


def _say(world: World, lines: Sequence[str]) -> None:
    if world.is_main:
        for line in lines:
            logger.warning("%s", line)


def _say_lengths(world: World, prepared: Sequence[Prepared]) -> None:
    """The real lengths: a data set's label often counts another tokenizer's tokens."""
    if not world.is_main:
        return
    unit = "tokens" if any(item.tokens for item in prepared) else "characters"  # only the server has the tokenizer
    lengths = [item.tokens if unit == "tokens" else len(item.sample.prompt) for item in prepared]
    segments = [item.position.question_segment for item in prepared if item.position.question_segment is not None]
    text = f"{len(prepared)} samples of {min(lengths):,} to {max(lengths):,} {unit}"
    if segments:
        text += f" ({min(segments) + 1} to {max(segments) + 1} segments)"
    labels = sorted({item.sample.context_length for item in prepared if item.sample.context_length is not None})
    logger.info("%s; labelled %s", text, ", ".join(f"{label:,}" for label in labels) or "nothing")


def _versions() -> dict[str, str]:
    import importlib.metadata

    versions = {"infini_eval": __version__, "python": platform.python_version()}
    for package in ("torch", "tokenizers", "safetensors", "numpy"):
        versions[package] = importlib.metadata.version(package)
    return versions
