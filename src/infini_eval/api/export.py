"""Export: results in another tool's form. A function that writes analysed runs to a place::

    @export("failures", place="failures.txt")
    def failures(runs: Sequence[AnalysedRun], place: Path) -> list[str]:
        '''failures: the ids of failed samples, one a line.'''
        …

What it wrote is returned, in words for the user: files, or where a service has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Write = Callable[[Sequence[Any], Any], list[str]]


def always_ready(place: Path | None) -> None:
    """Nothing is needed that could be missing."""


@dataclass(frozen=True)
class Export:
    """A named form of results.

    write: called with analysed runs (`infini_eval.analyze` gives one) and the place, None only where `service`.
    place: file or folder where it goes by default.
    service: it has a place of its own, as the user's environment says; a place that is named is used instead, offline.
    ready: called with the place before hours of work; raises an InfiniEvalError where the export could not be made.
    """

    name: str
    write: Write
    place: str
    service: bool = False
    ready: Callable[[Path | None], None] = always_ready

    def __call__(self, runs: Sequence[Any], place: Path | None = None) -> list[str]:
        """Write the runs to a place, the usual one where None; returns what was written."""
        if place is None and not self.service:
            place = Path(self.place)
        self.ready(place)
        return self.write(runs, place)

    @property
    def about(self) -> str:
        """What it is, in a line: the first of the function's docstring."""
        return (self.write.__doc__ or self.name).strip().splitlines()[0]


def export(
    name: str, *, place: str, service: bool = False, ready: Callable[[Path | None], None] = always_ready
) -> Callable[[Write], Export]:
    """Make a function an export of that name."""
    return lambda write: Export(name, write, place, service, ready)
