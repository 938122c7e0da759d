"""How a process among several ends early: the first error shown once, hooks called, then gone without unwinding.

A main thread that waits in a collective cannot be made to raise; what is finished is on disk, so nothing is lost.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from infini_eval.distributed import faults
from infini_eval.distributed.faults import Fault

if TYPE_CHECKING:
    from torch.distributed import Store

SHOW_S = 3.0  # time for rank 0 to show another rank's error


class Ending:
    """Ends this process, from any thread, once."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._hooks: list[Callable[[], object]] = []
        self._shown = False
        self._lock = threading.RLock()

    def on_exit(self, hook: Callable[[], object]) -> None:
        """Call `hook` before the process is ended; it may run in any thread."""
        self._hooks.append(hook)

    def leave(self, status: int, message: str | None = None) -> NoReturn:
        """End this process now."""
        with self._lock:
            if message is not None:
                faults.show(message)
            for hook in self._hooks:
                with contextlib.suppress(Exception):
                    hook()
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(status)

    def leave_with(self, store: Store, fault: Fault, own: BaseException | None = None) -> NoReturn:
        """End with the run's first error: rank 0 shows it, the rank it is from makes sure that somebody has.

        `own` is what this rank itself has raised: of an error that all ranks have alike, no rank needs to be named.
        """
        if self._rank == 0 or (fault.rank == self._rank and not self._is_shown(store)):
            self.show(store, fault, own)
        self.leave(fault.status)

    def show(self, store: Store, fault: Fault, own: BaseException | None = None) -> None:
        """Show the run's first error, once."""
        with self._lock:
            if not self._shown:
                self._shown = True
                faults.show(fault.render(self._rank, None if own is None else str(own)))
                store.set(faults.SHOWN, "")

    def _is_shown(self, store: Store) -> bool:
        """Whether rank 0 has shown the error; a store that is gone went with rank 0, which shows before it leaves."""
        deadline = time.monotonic() + SHOW_S
        while time.monotonic() < deadline:
            try:
                if store.check([faults.SHOWN]):
                    return True
            except (RuntimeError, OSError):
                return True
            time.sleep(0.05)
        return False
