"""The run folder while a run lasts: opened, locked and described by rank 0, known to all ranks, merged at the end."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import sys
import time
from collections.abc import Container
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from infini_eval._version import __version__
from infini_eval.api.backend import Backend, EarlyStop
from infini_eval.api.task import LoadedData
from infini_eval.config import EvalConfig
from infini_eval.distributed.launch import World
from infini_eval.errors import RunFolderError
from infini_eval.evaluation.messages import log_notes
from infini_eval.evaluation.prepare import preprocess_identity
from infini_eval.keys import without_keys
from infini_eval.records import RunManifest
from infini_eval.results.lock import WAIT_S, RunLock
from infini_eval.results.manifest import ResumeState, open_run, read_manifest, update_environment
from infini_eval.results.merge import merge_samples
from infini_eval.results.results_file import ResultsFile
from infini_eval.results.samples import SampleWriter, replica_name

if TYPE_CHECKING:
    from torch.distributed import Store

logger = logging.getLogger(__name__)
LARGEST = "largest_batch"
PHASE = "while "  # how the note of an error begins that says in which part of a run it came


class RunFolder:
    """A run folder inside a `with` block: it owns lock, manifest, resume state, samples, merge and results file.

    Rank 0 holds the lock and alone writes the manifest and what is merged; every rank knows `state`.

    Args:
        folder: where the run lies, or will lie.
        manifest: what the run is; an earlier attempt's must have the same identity.
        overwrite: discards a run that is there.
        results_file: written beside the folder after the merge.
        planned: keys of the run's samples; records of others in the folder are reported and left out.

    Raises:
        RunFolderError: the folder is in use, holds another run, or cannot be written.
    """

    def __init__(
        self,
        folder: str,
        manifest: RunManifest,
        world: World,
        overwrite: bool = False,
        results_file: ResultsFile | None = None,
        planned: Container[str] | None = None,
    ) -> None:
        self._folder, self._manifest, self._world = folder, manifest, world
        self._overwrite, self._results_file, self._planned = overwrite, results_file, planned
        self._lock = RunLock(folder, on_lost=self._lost)
        self._store: Store | None = None
        self.state = ResumeState()

    def __enter__(self) -> RunFolder:
        self.state = ResumeState.from_json(self._world.broadcast_object("run_folder", self._open))
        log_notes(self._world, self.state.notes)
        if self.state.finished_keys:
            planned = self._manifest.samples_planned
            log_notes(self._world, [f"continuing: {len(self.state.finished_keys)} of {planned} are done"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._world.is_main:
            self._leave(early=kind is not None)

    @property
    def largest_batch(self) -> int | None:
        """Rows that memory allowed in an earlier attempt; None where nothing is known."""
        learnt: dict[str, int] = self.state.previous.environment.get("batch_sizes") or {} if self.state.previous else {}
        return learnt.get("largest")

    def note(self, **changes: Any) -> None:
        """Change entries of the manifest's environment: written by rank 0, said in vain by the others.

        Raises:
            RunFolderError: another run has taken the folder's lock over.
        """
        if self._world.is_main:
            self._lock.confirm()
            update_environment(self._folder, **changes)

    def note_largest_batch(self, rows: int) -> None:
        """From any rank: the next attempt must not have larger batches. Of several numbers the least counts."""
        store = self._world.store
        if store is None or self._world.is_main:
            self._note_least([rows])
        else:
            store.set(f"{LARGEST}/{store.add(LARGEST, 1)}", str(rows))

    def writer(self, replica: int) -> SampleWriter:
        """The file into which this replica's leader writes its samples."""
        return SampleWriter(self._folder, replica_name(replica))

    def merge(self) -> None:
        """Wait for all ranks and let them go; rank 0 merges what all replicas wrote, and writes the results file."""
        self._world.raise_if_stopped()
        self._world.disband()
        if not self._world.is_main:
            return
        merged = merge_samples(self._folder, self._planned, self._world.raise_if_stopped)
        log_notes(self._world, [note for note in merged.notes if note not in self.state.notes])
        if merged.failed:
            logger.warning("%d of %d samples failed; the same command tries them again", merged.failed, merged.rows)
        if self._results_file is not None:
            self._results_file.write(self._folder, read_manifest(self._folder))

    def _open(self) -> dict[str, Any]:
        if self._results_file is not None:
            self._results_file.check()
        if self._world.run_store is not None:  # at an early end another thread reads what the ranks have asked for
            self._store = self._world.new_client()
        self._lock.acquire(wait_s=WAIT_S)
        self._world.on_exit(lambda: self._leave(early=True))
        try:
            return open_run(self._folder, self._manifest, self._overwrite, self._planned).to_json()
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


def _asked_for(store: Store) -> list[int]:
    """The numbers of rows that other ranks have put into the store; one that is just being put may be missing."""
    keys = [f"{LARGEST}/{number}" for number in range(1, store.add(LARGEST, 0) + 1)]
    return [int(store.get(key)) for key in keys if store.check([key])]


def describe_run(
    config: EvalConfig,
    data: LoadedData,
    backend: Backend,
    planned: int,
    early_stop: EarlyStop | None = None,
) -> RunManifest:
    """What a run is: everything that can change an answer is its identity, the rest its environment.

    Args:
        planned: the number of samples.
        early_stop: the rule that ends answers, None where they go on to --max-new-tokens.
    """
    filters = {"num_shots": config.num_shots, "num_digits": config.num_digits or None, "depths": config.depths}
    identity = {
        "task": config.task,
        "scorer": config.scorer,
        "data": data.fingerprint,
        **({"data_settings": dict(data.settings)} if data.settings else {}),
        **({"preprocess": preprocess_identity(config.preprocess)} if config.preprocess else {}),
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
    return RunManifest(identity, backend.model_facts(), environment, planned)


def _versions() -> dict[str, str]:
    versions = {"infini_eval": __version__, "python": platform.python_version()}
    for package in ("torch", "tokenizers", "safetensors", "numpy"):
        versions[package] = importlib.metadata.version(package)
    return versions


class Timing:
    """The parts of a run, one after the other; each is also what this rank says it is doing in messages about errors.

    CPU seconds are those of the whole process: a part counts what other threads do in its time. Inside a `with` block an
    error gets a note (PEP 678) with the part that it ended.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._name: str | None = None
        self._began = _clocks()
        self._seconds: dict[str, dict[str, float]] = {}

    def __enter__(self) -> Timing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._name is not None:
            error.add_note(f"{PHASE}{self._name}")

    def begin(self, name: str) -> None:
        """End the part before, and begin `name`."""
        self._end()
        self._name, self._began = name, _clocks()
        self._world.set_status(name)

    def end(self) -> dict[str, dict[str, float]]:
        """End the last part; seconds of all parts, by name."""
        self._end()
        return self._seconds

    def _end(self) -> None:
        if self._name is not None:
            wall, cpu = (round(now - then, 3) for now, then in zip(_clocks(), self._began, strict=True))
            self._seconds[self._name] = {"wall": wall, "cpu": cpu}


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
