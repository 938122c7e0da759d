"""How a run ends: somebody's wish to stop, the first error of all ranks, and the exit of this process.

A main thread that waits in a collective cannot be made to raise, so an early end is an exit without unwinding. What is
finished is on disk, and nothing is lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from infini_eval._version import __version__
from infini_eval.errors import EXIT_INTERRUPTED, EXIT_USAGE, InfiniEvalError, first_line
from infini_eval.foreign import shown
from infini_eval.keys import hide_keys, safe_to_show, without_keys

if TYPE_CHECKING:
    from torch.distributed import Store

SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
SAME_SIGNAL_S = 2.0  # Ctrl-C reaches a worker twice: from the terminal and forwarded by torchrun
EXIT_FAILED = 1
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # set by torchrun
LAUNCHED = "INFINI_EVAL_LAUNCHED"  # set by `infini-eval launch`, which shows the message itself
FIRST_ERROR = "error/first"
SHOWN = "error/shown"
SHOW_S = 3.0  # time for rank 0 to show another rank's error
LOST_PEER = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed? ?out", re.IGNORECASE)


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop; everything finished is on disk (exit status errors.EXIT_INTERRUPTED)."""


class StopRequest:
    """Whether this run was asked to stop, by whom and when; set from any thread.

    `urgent`: asked a second time, so that the batch in hand is dropped.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.since: float | None = None
        self.urgent = False
        self._asked = threading.Event()

    @property
    def requested(self) -> bool:
        """Whether anybody has asked."""
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
        """Wait for SIGNALS and return their names as soon as one comes; empty after `timeout_s` or a call of `wake`."""
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


@dataclass(frozen=True)
class Fault:
    """An error as it travels between ranks. `report` says where to report a mistake of ours, empty for a user's.

    `rank` is where it was found; `elsewhere` when that rank has only seen another one fall silent.
    """

    rank: int
    activity: str
    message: str
    report: str
    status: int
    elsewhere: bool = False

    @classmethod
    def of(cls, error: BaseException, rank: int, activity: str) -> Fault:
        """Describe an exception: a user's mistake by its message, anything else also by the file with its traceback."""
        mistake = users_mistake(error)
        if mistake is not None:
            return cls(rank, activity, mistake, "", EXIT_USAGE)
        message, report = our_mistake(error)
        return cls(rank, activity, message, report, EXIT_FAILED)

    def render(self, reader: int, readers_message: str | None = None) -> str:
        """Write the message for the user.

        Args:
            reader: the rank that shows it; another rank is named.
            readers_message: of what the reader itself has raised: the same error needs no rank.
        """
        lines = [f"error: {self.message}"]
        if self.elsewhere:
            return lines[0]
        if self.rank != reader and self.message != readers_message:
            lines.append(f"  where: rank {self.rank}" + (f", {self.activity}" if self.activity else ""))
        elif self.activity and self.report:
            lines.append(f"  where: {self.activity}")
        return "\n".join([*lines, *filter(None, [self.report])])


def users_mistake(error: BaseException) -> str | None:
    """What to say of an error that the user can mend; None where it is one of ours."""
    if isinstance(error, InfiniEvalError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{shown(str(error.filename))} cannot be used: {error.strerror}"
    return None


def our_mistake(error: BaseException) -> tuple[str, str]:
    """What to say of an error that should not have happened, and where to report it: its traceback goes to a file."""
    text = hide_keys("".join(traceback.format_exception(error)))
    command = " ".join(without_keys(sys.argv))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="infini-eval-error-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(f"infini-eval {__version__}, Python {sys.version}\n{command}\n\n{text}")
        where = f"{file.name}, which says where"
    except OSError:
        where = f"these lines\n{text.rstrip()}"
    message = f"{type(error).__name__}: {first_line(error)[:500]}"
    return message, f"  next:  this should not happen: please report it with {where}"


def record_first_fault(store: Store, fault: Fault) -> Fault:
    """Record an error unless one is recorded already; returns the first one."""
    return _decode(store.compare_set(FIRST_ERROR, "", json.dumps(asdict(fault))))


def first_fault(store: Store) -> Fault | None:
    """Read the first error of the run, None while there is none."""
    return _decode(store.get(FIRST_ERROR)) if store.check([FIRST_ERROR]) else None


def is_lost_peer(error: BaseException) -> bool:
    """Tell whether an error only says that another rank went away or did not answer: the cause is elsewhere."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and isinstance(error, distributed.DistError):
        return True
    return isinstance(error, RuntimeError | ConnectionError) and LOST_PEER.search(str(error)) is not None


def print_message(text: str) -> None:
    """Print a message for the user, above whatever else is on the terminal."""
    with contextlib.suppress(
        OSError, ValueError, AttributeError
    ):  # the terminal may be gone, as the process soon will be
        print(safe_to_show(text), file=sys.stderr, flush=True)  # noqa: T201 - past any logging handler


def tell_user(text: str) -> None:
    """Say why this process ends: to its launcher, which says it last, and on stderr unless the launcher is our own."""
    leave_for_torchrun(safe_to_show(text))
    if LAUNCHED not in os.environ:
        print_message(text)


def leave_for_torchrun(text: str) -> None:
    """Write the reason into torchrun's error file, so that the summary that it ends with has it."""
    path = os.environ.get(ERROR_FILE)
    if not path:
        return
    # of failures in one second torchrun names the lowest rank's, and that one may only have been told to end
    extra = {"py_callstack": text, "timestamp": str(int(time.time()) - 1)}
    with contextlib.suppress(OSError):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps({"message": {"message": text, "extraInfo": extra}}))


def _decode(value: bytes | str) -> Fault:
    return Fault(**json.loads(value))


class ProcessExit:
    """Ends this process, from any thread, once."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._hooks: list[Callable[[], object]] = []
        self._shown = False
        self._lock = threading.RLock()

    def on_exit(self, hook: Callable[[], object]) -> None:
        """Call `hook` before the process is ended; it may run in any thread."""
        self._hooks.append(hook)

    def exit(self, status: int, message: str | None = None) -> NoReturn:
        """End this process now, after the hooks; the message goes to stderr."""
        with self._lock:
            if message is not None:
                if status != EXIT_INTERRUPTED:
                    leave_for_torchrun(message)
                print_message(message)
            for hook in self._hooks:
                with contextlib.suppress(Exception):
                    hook()
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(status)

    def exit_with_fault(self, store: Store, fault: Fault, raised: BaseException | None = None) -> NoReturn:
        """End with the run's first error: rank 0 shows it, the rank it is from makes sure that somebody has.

        raised: by this rank itself; of an error that all ranks have alike, no rank needs to be named.
        """
        leave_for_torchrun(fault.render(self._rank, None if raised is None else str(raised)))
        if self._rank == 0 or (fault.rank == self._rank and not self._is_shown(store)):
            self.show(store, fault, raised)
        self.exit(fault.status)

    def show(self, store: Store, fault: Fault, raised: BaseException | None = None) -> None:
        """Show the run's first error, once."""
        with self._lock:
            if not self._shown:
                self._shown = True
                tell_user(fault.render(self._rank, None if raised is None else str(raised)))
                store.set(SHOWN, "")

    def _is_shown(self, store: Store) -> bool:
        """Whether rank 0 has shown the error; a store that is gone went with rank 0, which shows before it leaves."""
        deadline = time.monotonic() + SHOW_S
        while time.monotonic() < deadline:
            try:
                if store.check([SHOWN]):
                    return True
            except (RuntimeError, OSError):
                return True
            time.sleep(0.05)
        return False
