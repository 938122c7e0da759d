"""The first error of a run: kept in the store, so that the user sees the cause and not what it broke elsewhere."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import traceback
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from infini_eval.errors import EXIT_USAGE, InfiniEvalError

if TYPE_CHECKING:
    from torch.distributed import Store

EXIT_FAILED = 1
FIRST_ERROR = "error/first"
SHOWN = "error/shown"
LOST_PEER = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed? ?out", re.IGNORECASE)


@dataclass(frozen=True)
class Fault:
    """An error as it travels between ranks. `details` is a traceback, empty for a user's mistake.

    `rank` is where it was found; `elsewhere` when that rank has only seen another one fall silent.
    """

    rank: int
    activity: str
    message: str
    details: str
    status: int
    elsewhere: bool = False

    @classmethod
    def of(cls, error: BaseException, rank: int, activity: str) -> Fault:
        """A user's mistake keeps its message; anything else comes with its traceback."""
        if isinstance(error, InfiniEvalError):
            return cls(rank, activity, str(error), "", EXIT_USAGE)
        details = "".join(traceback.format_exception(error))
        return cls(rank, activity, f"{type(error).__name__}: {error}", details, EXIT_FAILED)

    def render(self, reader: int, readers_own: str | None = None) -> str:
        """The message for the user; says on which rank it happened unless the reading rank has the same error."""
        lines = [self.details.rstrip()] if self.details else []
        lines.append(f"error: {self.message}")
        if self.elsewhere:
            return lines[-1]
        if self.rank != reader and self.message != readers_own:
            lines.append(f"  where: rank {self.rank}" + (f", {self.activity}" if self.activity else ""))
        elif self.activity and self.details:
            lines.append(f"  where: {self.activity}")
        return "\n".join(lines)


def record_first(store: Store, fault: Fault) -> Fault:
    """Record an error unless one is recorded already; returns the first one."""
    return _decode(store.compare_set(FIRST_ERROR, "", json.dumps(asdict(fault))))


def recorded(store: Store) -> Fault | None:
    """The first error of the run, None while there is none."""
    return _decode(store.get(FIRST_ERROR)) if store.check([FIRST_ERROR]) else None


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error only says that another rank went away or did not answer: the cause is elsewhere."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and isinstance(error, distributed.DistError):
        return True
    return isinstance(error, RuntimeError | ConnectionError) and LOST_PEER.search(str(error)) is not None


def show(text: str) -> None:
    """Print a message for the user, above whatever else is on the terminal."""
    with contextlib.suppress(OSError, ValueError):  # the terminal may be gone, as the process soon will be
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - past any logging handler


def _decode(value: bytes | str) -> Fault:
    return Fault(**json.loads(value))
