"""The last line of defence of every command: what it prints is safe for a terminal, and what nobody expected is told shortly."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from infini_eval.distributed.shutdown import our_mistake, tell_user
from infini_eval.errors import EXIT_CHECK_FAILED, EXIT_OK
from infini_eval.keys import safe_to_show


class OutputLost(Exception):
    """Standard output takes nothing more: its reader has left, or its disk is full."""

    def __init__(self, stream: TextIO, error: OSError | ValueError) -> None:
        super().__init__(str(error))
        self._stream, self._error = stream, error

    def end(self) -> int:
        """Say so, unless the reader has left (`| head`), which is no mistake; the exit status."""
        with contextlib.suppress(OSError, ValueError):  # else the interpreter tries once more, and complains
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        if isinstance(self._error, BrokenPipeError):
            return EXIT_OK
        reason = getattr(self._error, "strerror", None) or self._error
        tell_user(f"error: standard output cannot be written: {reason}")
        return EXIT_CHECK_FAILED


class SafeStream:
    """A text stream that shows foreign text harmlessly: keys hidden, and what would act on the terminal written out."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text; what the stream's encoding lacks is written as Python writes it."""
        safe = safe_to_show(text)
        try:
            self._stream.write(safe)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            self._stream.write(safe.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError) as error:
            raise OutputLost(self._stream, error) from None
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            raise OutputLost(self._stream, error) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def safe_output() -> Iterator[None]:
    """Print through a `SafeStream`; streams that were closed before the command began are replaced by an empty one.

    What a thread in the background did not expect is told as shortly as what the command itself did not.
    """
    before, hook = (sys.stdout, sys.stderr), threading.excepthook
    nowhere = Path(os.devnull)
    if before[1] is None:
        sys.stderr = nowhere.open("w")
    sys.stdout = SafeStream(nowhere.open("w") if before[0] is None else before[0])
    threading.excepthook = _tell_of_a_thread
    try:
        yield
    finally:
        (sys.stdout, sys.stderr), threading.excepthook = before, hook


def _tell_of_a_thread(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None and not isinstance(failed.exc_value, SystemExit):
        tell_of_our_mistake(failed.exc_value)


def tell_of_our_mistake(error: BaseException) -> int:
    """One message for what should not have happened, its traceback in a file; the exit status."""
    message, report = our_mistake(error)
    tell_user(f"error: {message}\n{report}")
    return EXIT_CHECK_FAILED
