"""The run folder while a run lasts: opened, locked and described by rank 0, known to all ranks, merged at the end."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from infini_eval._version import __version__
from infini_eval.api.backend import Backend, EarlyStop, WorkItem
from infini_eval.api.task import LoadedData
from infini_eval.backends._keys import without_keys
from infini_eval.config import EvalConfig
from infini_eval.distributed.launch import World
from infini_eval.errors import RunFolderError
from infini_eval.evaluation.messages import say
from infini_eval.records import RunManifest
from infini_eval.results.lock import WAIT_S, RunLock
from infini_eval.results.manifest import ResumeState, open_run, read_manifest, update_environment
from infini_eval.results.samples import check_results_file, merge_samples, write_results_file

if TYPE_CHECKING:
    from torch.distributed import Store


class Timing:
    """The parts of a run, one after the other; each is also what this rank says it is doing in messages about errors.

    CPU seconds are those of the whole process: a part counts what other threads do in its time.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._name: str | None = None
        self._began = _clocks()
        self._seconds: dict[str, dict[str, float]] = {}

    def begin(self, name: str) -> None:
        """End the part before, and begin `name`."""
        self._end()
        self._name, self._began = name, _clocks()
        self._world.set_status(name)

    def write(self, folder: RunFolder) -> None:
        """End the last part, and write all of them into the manifest."""
        self._end()
        folder.note(seconds=self._seconds)

    def _end(self) -> None:
        if self._name is not None:
            wall, cpu = (round(now - then, 3) for now, then in zip(_clocks(), self._began, strict=True))
            self._seconds[self._name] = {"wall": wall, "cpu": cpu}


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def describe_run(
    config: EvalConfig,
    data: LoadedData,
    backend: Backend,
    prepared: Sequence[WorkItem],
    early_stop: EarlyStop | None = None,
) -> RunManifest:
    """The manifest that is written before the first sample; the task stands in the configuration."""
    filters = {"num_shots": config.num_shots, "num_digits": config.num_digits or None, "depths": config.depths}
    identity = {
        "task": config.task,
        "scorer": config.scorer,
        "data": data.fingerprint,
        **({"data_settings": dict(data.settings)} if data.settings else {}),
        "filters": {**filters, "context_length": config.context_length},
        "seed": config.seed,
        "num_samples": config.num_samples,
        "max_new_tokens": config.max_new_tokens,
        # it leaves every score as it is, but not the recorded text
        **({"early_stop": True} if early_stop is not None else {}),
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


def _versions() -> dict[str, str]:
    versions = {"infini_eval": __version__, "python": platform.python_version()}
    for package in ("torch", "tokenizers", "safetensors", "numpy"):
        versions[package] = importlib.metadata.version(package)
    return versions


logger = logging.getLogger(__name__)
LARGEST = "largest_batch"


class RunFolder:
    """A run folder inside a `with` block: rank 0 holds its lock, and alone writes its manifest; all ranks know `state`."""

    def __init__(self, config: EvalConfig, manifest: RunManifest, world: World) -> None:
        self._config, self._manifest, self._world = config, manifest, world
        self._lock = RunLock(config.save_path, on_lost=self._lost)
        self._store: Store | None = None
        self.state = ResumeState()

    def __enter__(self) -> RunFolder:
        self.state = ResumeState.from_json(self._world.broadcast_object("run_folder", self._open))
        say(self._world, self.state.notes)
        if self.state.finished_keys:
            planned = self._manifest.samples_planned
            say(self._world, [f"continuing: {len(self.state.finished_keys)} of {planned} are done"])
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if self._world.is_main:
            self._leave(early=kind is not None)

    def note(self, **changes: Any) -> None:
        """Change entries of the manifest's environment: written by rank 0, said in vain by the others.

        Raises RunFolderError where another run has taken the folder's lock over.
        """
        if self._world.is_main:
            self._lock.confirm()
            update_environment(self._config.save_path, **changes)

    def note_largest_batch(self, rows: int) -> None:
        """From any rank: the next attempt must not have larger batches. Of several numbers the least counts."""
        store = self._world.store
        if store is None or self._world.is_main:
            self._note_least([rows])
        else:
            store.set(f"{LARGEST}/{store.add(LARGEST, 1)}", str(rows))

    def _open(self) -> dict[str, Any]:
        if self._config.results_file:
            check_results_file(self._config.results_file)
        if self._world.run_store is not None:  # at an early end another thread reads what the ranks have asked for
            self._store = self._world.new_client()
        self._lock.acquire(wait_s=WAIT_S)
        self._world.on_exit(lambda: self._leave(early=True))
        try:
            return open_run(self._config.save_path, self._manifest, self._config.overwrite).to_json()
        except BaseException:
            self._lock.release()
            raise

    def _leave(self, *, early: bool) -> None:
        try:
            if early and self._store is not None:
                self._note_least(_asked_for(self._store))
        finally:
            self._lock.release()

    def _note_least(self, rows: list[int]) -> None:
        if rows:
            self.note(batch_sizes={"largest": min(rows)})

    def _lost(self, reason: str) -> None:
        self._world.abort(RunFolderError(reason))


def merge_results(config: EvalConfig) -> None:
    """Merge what all replicas wrote, and write the file of --results_file; rank 0 only."""
    merged = merge_samples(config.save_path)
    if merged.failed:
        logger.warning("%d of %d samples failed; the same command tries them again", merged.failed, merged.rows)
    if config.results_file:
        write_results_file(
            config.save_path,
            read_manifest(config.save_path),
            config.results_file,
            failed_as_wrong=config.failed_as_wrong,
        )


def _asked_for(store: Store) -> list[int]:
    """The numbers of rows that other ranks have put into the store; one that is just being put may be missing."""
    keys = [f"{LARGEST}/{number}" for number in range(1, store.add(LARGEST, 0) + 1)]
    return [int(store.get(key)) for key in keys if store.check([key])]
