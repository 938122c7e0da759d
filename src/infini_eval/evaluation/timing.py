"""Where the time of a run goes: seconds of each part, wall clock and CPU of rank 0, kept in the manifest."""

from __future__ import annotations

import time

from infini_eval.distributed.launch import World
from infini_eval.evaluation.run_folder import RunFolder


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
