"""A wish to stop, from a signal or from another rank: finish or drop the batch in hand, then leave."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import threading
import time
from collections.abc import Iterator

SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
SAME_SIGNAL_S = 2.0  # Ctrl-C reaches a worker twice: from the terminal and forwarded by torchrun


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop; everything finished is on disk (exit status errors.EXIT_INTERRUPTED)."""


class StopRequest:
    """Whether this run was asked to stop, by whom and when; set from any thread."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.since: float | None = None
        self.urgent = False
        self._asked = threading.Event()

    @property
    def requested(self) -> bool:
        return self._asked.is_set()

    def ask(self, reason: str) -> None:
        """Ask to stop; asked again after more than a moment, it becomes urgent."""
        now = time.monotonic()
        if self.since is None:
            self.reason, self.since = reason, now
        elif now - self.since > SAME_SIGNAL_S:
            self.urgent = True
        self._asked.set()

    def raise_if_requested(self) -> None:
        """Raise Interrupted where a stop was asked for."""
        if self.requested:
            raise Interrupted(self.reason)


class SignalPipe:
    """Signals as bytes on a socket: a thread learns of them even while the main thread waits in a collective."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader, selectors.EVENT_READ)

    def wait(self, timeout_s: float) -> list[str]:
        """Names of the SIGNALS that came, as soon as one comes; empty after `timeout_s` or a call of `wake`."""
        if not self._selector.select(timeout_s):
            return []
        numbers = self._reader.recv(64)  # Python writes a byte for every signal that has a handler, other people's too
        return [name for number in numbers if number and (name := signal.Signals(number).name) in SIGNALS]

    def wake(self) -> None:
        """Make `wait` return, without a signal."""
        with contextlib.suppress(OSError):
            self._writer.send(b"\0")

    def close(self) -> None:
        """Close both ends."""
        self._selector.close()
        self._reader.close()
        self._writer.close()

    @contextlib.contextmanager
    def catching(self) -> Iterator[None]:
        """Catch SIGNALS inside the block; outside the main thread Python allows no handlers, so nothing is caught."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
        wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, _note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)


def _note(number: int, frame: object) -> None:
    """The byte on the wakeup socket says it all; a handler must exist so that the signal does not kill."""
