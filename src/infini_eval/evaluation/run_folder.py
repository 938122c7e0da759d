"""The run folder while a run lasts: opened, locked and described by rank 0, known to all ranks, merged at the end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from infini_eval.config import EvalConfig
from infini_eval.distributed.launch import World
from infini_eval.errors import RunFolderError
from infini_eval.evaluation.telling import say
from infini_eval.records import RunManifest
from infini_eval.results.lock import WAIT_S, RunLock
from infini_eval.results.manifest import open_run, update_environment
from infini_eval.results.merge import check_results_file, merge_samples, write_results_file
from infini_eval.results.resume import ResumeState

if TYPE_CHECKING:
    from torch.distributed import Store

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
        write_results_file(config.save_path, config.results_file, failed_as_wrong=config.failed_as_wrong)


def _asked_for(store: Store) -> list[int]:
    """The numbers of rows that other ranks have put into the store; one that is just being put may be missing."""
    keys = [f"{LARGEST}/{number}" for number in range(1, store.add(LARGEST, 0) + 1)]
    return [int(store.get(key)) for key in keys if store.check([key])]
