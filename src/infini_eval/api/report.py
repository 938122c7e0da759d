"""Report: what is shown of a finished run. A function that writes files from a run's records and summary::

    @report("failures-csv")
    def failures(run: DepthRun, folder: Path) -> list[Path]:
        '''failures-csv: the failed samples as a table.'''
        …

The file names are returned, for the user to read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Write = Callable[[Any, Path], list[Path]]


@dataclass(frozen=True)
class Report:
    """A named report.

    write: called with the analysed run (`infini_eval.analyze` gives one) and a folder; returns the files it wrote.
    when: "always" (every analysis writes it), "page" (with --html and --plots) or "asked" (only by its name, --report NAME).
    """

    name: str
    write: Write
    when: Literal["always", "page", "asked"] = "asked"

    def __call__(self, run: Any, folder: Path) -> list[Path]:
        return self.write(run, folder)


def report(name: str, *, when: Literal["always", "page", "asked"] = "asked") -> Callable[[Write], Report]:
    """Make a function a report of that name."""
    return lambda write: Report(name, write, when)
