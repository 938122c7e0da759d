"""Planned memory beside measured memory: refuses before loading, measures afterwards, and writes both down."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from infini_eval.api.backend import Footprint
from infini_eval.config import EvalConfig
from infini_eval.distributed.device_memory import peak_bytes, restart_peak, used_bytes
from infini_eval.distributed.launch import World
from infini_eval.planning.check import as_json, check, describe
from infini_eval.planning.text import gigabytes
from infini_eval.results.manifest import update_environment

logger = logging.getLogger(__name__)


class MemoryWatch:
    """The most that loading and answering use, beyond what is used before: planned, then measured.

    Made before `backend.load()`: raises ConfigError for what cannot fit, unless `config.plan` is False.

    batches: (rows, tokens of the longest row with its answer) of each batch to come. Without a footprint
    the model computes elsewhere: nothing is planned and nothing measured. A model that the planner
    does not know is measured only.
    """

    def __init__(
        self, config: EvalConfig, footprint: Footprint | None, world: World, batches: Sequence[tuple[int, int]]
    ) -> None:
        self._config, self._world = config, world
        self._plan = None if footprint is None else check(footprint, batches, refuse=config.plan)
        self._watches = footprint is not None and world.is_main
        self._before = used_bytes(world.device)
        restart_peak(world.device)
        if self._watches:
            self._say(config.model_path)

    def _say(self, name: str) -> None:
        if self._plan is None:
            logger.warning("--no-plan: going on although no memory plan can be made for %s", name)
            return
        logger.info("planned: %s of %s free", describe(self._plan), gigabytes(self._plan.capacity))
        if not self._plan.fits:
            logger.warning("--no-plan: going on although the plan says that it does not fit")
        self._write()

    def conclude(self) -> None:
        """After the last answer: the measured peak of this rank, logged and written into the manifest."""
        if not self._watches:
            return
        peak = peak_bytes(self._world.device)
        measured = max(0, peak - self._before)
        planned = "not" if self._plan is None else gigabytes(self._plan.planned)
        logger.info("memory of this rank: %s planned, %s measured", planned, gigabytes(measured))
        self._write(measured_bytes=measured, measured_peak_bytes=peak)

    def _write(self, **measured: int) -> None:
        planned = {} if self._plan is None else as_json(self._plan)
        update_environment(self._config.save_path, memory={**planned, **measured})
