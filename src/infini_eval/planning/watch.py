"""Planned memory beside measured memory: refuses before loading, measures afterwards, and writes both down."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from infini_eval.api.backend import Footprint
from infini_eval.config import EvalConfig
from infini_eval.distributed.device_memory import all_devices, peak_bytes, restart_peak, used_bytes
from infini_eval.distributed.launch import World
from infini_eval.planning.check import as_json, check, describe
from infini_eval.planning.text import gigabytes

logger = logging.getLogger(__name__)


class MemoryWatch:
    """The most that loading and answering use, beyond what is used before: planned, then measured.

    Made before `backend.load()`: raises ConfigError for what cannot fit, unless `config.plan` is False.

    batches: (rows, tokens of the longest row with its answer) of each batch to come. note: keeps what it is given in the
    manifest's environment. watches: whether the model computes in this process; else nothing is planned or measured.
    Where the footprint is None (a model spread over devices, weights that come packed) or the planner does not know the
    model, memory is measured only.
    """

    def __init__(
        self,
        config: EvalConfig,
        footprint: Footprint | None,
        world: World,
        batches: Sequence[tuple[int, int]],
        note: Callable[..., None],
        *,
        watches: bool,
    ) -> None:
        self._note = note
        self._watches = watches and world.is_main
        self._plan = None if footprint is None else check(footprint, batches, refuse=config.plan)
        self._devices = all_devices(world.device) if footprint is None else [world.device]
        self._before = [used_bytes(device) for device in self._devices]
        for device in self._devices:
            restart_peak(device)
        if self._watches and footprint is None:
            logger.info("memory is not planned for a model spread over devices, or stored quantised; it is measured")
        elif self._watches:
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
        peaks = [peak_bytes(device) for device in self._devices]
        measured = [max(0, peak - before) for peak, before in zip(peaks, self._before, strict=True)]
        planned = "not" if self._plan is None else gigabytes(self._plan.planned)
        logger.info("memory of this rank: %s planned, %s measured", planned, gigabytes(sum(measured)))
        self._write(measured_bytes=sum(measured), measured_peak_bytes=sum(peaks))

    def _write(self, **measured: int) -> None:
        planned = {} if self._plan is None else as_json(self._plan)
        self._note(memory={**planned, **measured})
