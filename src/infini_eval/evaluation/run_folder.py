"""The run folder while a run lasts: opened and locked by rank 0, known to all ranks, merged at the end."""

from __future__ import annotations

import logging
from typing import Any

from infini_eval.config import EvalConfig
from infini_eval.distributed.launch import World
from infini_eval.errors import RunFolderError
from infini_eval.evaluation.telling import say
from infini_eval.records import RunManifest
from infini_eval.results.lock import run_lock
from infini_eval.results.manifest import open_run
from infini_eval.results.merge import check_results_file, merge_samples, write_results_file
from infini_eval.results.resume import ResumeState

logger = logging.getLogger(__name__)


class opened_run_folder:
    """Opens the run folder on rank 0, which holds its lock until the block ends; all ranks get where it stands."""

    def __init__(self, config: EvalConfig, manifest: RunManifest, world: World) -> None:
        self._config, self._manifest, self._world = config, manifest, world
        self._lock: Any = None

    def __enter__(self) -> ResumeState:
        state = ResumeState.from_json(self._world.broadcast_object("run_folder", self._open))
        say(self._world, state.notes)
        if state.finished_keys:
            say(self._world, [f"continuing: {len(state.finished_keys)} of {self._manifest.samples_planned} are done"])
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


def merge_results(config: EvalConfig) -> None:
    """Merge what all replicas wrote, and write the file of --results_file; rank 0 only."""
    merged = merge_samples(config.save_path)
    if merged.failed:
        logger.warning("%d of %d samples failed; the same command tries them again", merged.failed, merged.rows)
    if config.results_file:
        write_results_file(config.save_path, config.results_file, failed_as_wrong=config.failed_as_wrong)
