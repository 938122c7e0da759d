"""Asking again: what may be tried again, how long to wait, and what a failure means for the sample or the run."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from infini_eval.errors import BackendError

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
LONGEST_ASKED_DELAY_S = 600.0  # what a server may ask for with Retry-After
PAUSE_S = 0.1
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
REFUSED = {401: "the key was refused", 403: "access was refused", 404: "the model or the address does not exist"}


class TryAgain(Exception):
    """This attempt failed for a reason that may pass. `after_s`: what the server asks us to wait.

    `unreachable`: no connection could be made; after the last attempt that is the run's failure, not the sample's.
    """

    def __init__(self, reason: str, after_s: float | None = None, *, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.after_s, self.unreachable = after_s, unreachable


class SampleFailed(Exception):
    """This sample cannot be answered now; asking again would cost much or change nothing."""


@dataclass(frozen=True)
class Retry:
    """A policy: `attempts` tries in all; `stopping` ends the waiting early."""

    attempts: int
    stopping: Callable[[], bool] = lambda: False

    def __call__(self, ask: Callable[[], Answer]) -> tuple[Answer, int]:
        """The answer and the number of attempts that it took; SampleFailed, or BackendError for an unreachable server."""
        for attempt in range(1, self.attempts + 1):
            try:
                return ask(), attempt
            except TryAgain as problem:
                if attempt == self.attempts or self.stopping():
                    raise _given_up(problem, attempt) from None
                delay = delay_s(attempt, problem.after_s)
                logger.warning("%s; attempt %d of %d in %.1f s", problem, attempt + 1, self.attempts, delay)
                self._wait(delay)
        raise AssertionError("attempts is at least 1")

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.stopping() and (left := end - time.monotonic()) > 0:
            time.sleep(min(PAUSE_S, left))


def delay_s(attempt: int, asked_s: float | None = None) -> float:
    """Seconds before the next attempt: as the server asks, else doubling; spread, so that requests do not return at once."""
    if asked_s is not None:
        return min(max(asked_s, 0.0), LONGEST_ASKED_DELAY_S) + random.uniform(0, FIRST_DELAY_S)
    return min(FIRST_DELAY_S * 2.0 ** (attempt - 1), LONGEST_DELAY_S) * random.uniform(0.5, 1.0)


def refused(status: int, message: str, valid: str | None = None) -> BackendError:
    """The one clear error for a refusal that every other sample would get too."""
    return BackendError(
        f"{REFUSED.get(status, 'the request was refused')} (status {status}): {message}",
        valid=valid,
        next_step="mend this and run the same command again: it continues where it stopped",
    )


def _given_up(problem: TryAgain, attempts: int) -> Exception:
    times = "once" if attempts == 1 else f"{attempts} times"
    if problem.unreachable:
        return BackendError(
            f"{problem}; tried {times}",
            next_step="start the server or mend --base-url, then run the same command again: it continues",
        )
    return SampleFailed(f"{problem}; tried {times}")
