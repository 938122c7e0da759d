"""The one tree of errors that a user can cause, and the form their messages take.

    InfiniEvalError
    ├── ConfigError        a flag, a setting or a combination of settings
    │   └── MaterialError  a file or a package that the user has to bring was not given
    ├── CheckpointError    a checkpoint folder, its config.yaml or its weight files
    ├── DataError          a data set, its rows, a tokenizer
    ├── TopologyError      dp, tp, pp against the world and the model
    ├── RunFolderError     a results folder: in use, of another run, unwritable
    ├── BackendError       a backend that cannot start or that failed
    │   └── OutOfMemory    a batch did not fit; `rows` is its size
    ├── NumericsError      NaN or infinity where a number was due; `answers` is what was computed beside it
    └── CacheError         a kept state that is not what its place says

A command turns any of them into one message and exit status 2, without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

EXIT_OK = 0
EXIT_CHECK_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: stopped by a signal, everything finished is on disk, run again to continue


class InfiniEvalError(Exception):
    """A mistake a user can mend: what is wrong, what would be valid, and what to do next.

    `problem` names the wrong value, `valid` says what would be accepted, `next_step` is a command or an action.
    """

    def __init__(self, problem: str, *, valid: str | None = None, next_step: str | None = None) -> None:
        self.problem = problem
        self.valid = valid
        self.next_step = next_step
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.problem]
        if self.valid:
            lines.append(f"  valid: {self.valid}")
        if self.next_step:
            lines.append(f"  next:  {self.next_step}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:  # keyword-only fields survive the trip between processes
        return (_rebuild, (type(self), self.problem, self.valid, self.next_step))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "; did you mean X?" for what comes nearest to a misspelt word, empty where nothing comes near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def similar_path(path: str | Path) -> str:
    """The same for a path that does not exist: what lies in its folder under nearly that name."""
    path = Path(path)
    if path.exists() or not path.parent.is_dir():
        return ""
    near = difflib.get_close_matches(path.name, [one.name for one in path.parent.iterdir()], n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def in_one_line(error: object, most: int | None = 500) -> str:
    """Another library's message without its line breaks, `most` characters of it (None: all)."""
    return " ".join(str(error).split())[:most]


def first_line(error: BaseException) -> str:
    """The first line of another library's message; its class where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def first_sentence(error: BaseException) -> str:
    """The first sentence of a message that goes on with figures and advice."""
    return first_line(error).partition(". ")[0]


def _rebuild(kind: type[InfiniEvalError], problem: str, valid: str | None, next_step: str | None) -> InfiniEvalError:
    return kind(problem, valid=valid, next_step=next_step)


class ConfigError(InfiniEvalError, ValueError):
    """A flag, a setting or a combination of settings that cannot be used."""


class MaterialError(ConfigError):
    """A file or a package that the user has to bring was not given: what needs it cannot be made, all else can."""


class CheckpointError(InfiniEvalError):
    """A checkpoint folder, its config.yaml or its weight files cannot be used."""


class DataError(InfiniEvalError):
    """A data set, its rows or a tokenizer cannot be used."""


class TopologyError(InfiniEvalError, ValueError):
    """dp, tp and pp do not fit the number of processes or the model."""


class RunFolderError(InfiniEvalError):
    """A results folder is in use, belongs to another run, or cannot be written."""


class BackendError(InfiniEvalError):
    """A backend cannot start, or failed while answering."""


class OutOfMemory(BackendError):
    """A batch of `rows` samples did not fit into the device's memory."""

    rows: int = 1


class NumericsError(InfiniEvalError):
    """A computation gave NaN or infinity.

    answers: what was computed beside it, one for each row or prompt that was asked, None for those that have none.
    """

    answers: Sequence[Any] = ()


class CacheError(InfiniEvalError):
    """A state that was kept for a shared prefix belongs to another model, other settings or other tokens."""
