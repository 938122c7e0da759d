"""Export: runs, a checkpoint or a data set in another tool's form. A function that writes analysed runs to a place::

    @export("failures", place="failures.txt")
    def failures(runs: Sequence[AnalysedRun], place: Path) -> list[str]:
        '''failures: the ids of failed samples, one a line.'''
        …

What it wrote is returned, in words for the user: files, or where a service has it. An export of something else than runs
says so, and one that has flags of its own names the class that holds them::

    @dataclass(frozen=True)
    class OnnxSettings:
        TITLE: ClassVar[str] = "the format onnx"
        opset: int = option(20, "version of the operators (default: %(default)s)", read=positive_int)

    @export("onnx", place="model.onnx", made_from="checkpoint", settings=OnnxSettings)
    def onnx(checkpoint: Path, place: Path, settings: OnnxSettings) -> list[str]:
        '''onnx: the weights as a graph.'''
        …
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from infini_eval.errors import ConfigError

Write = Callable[..., list[str]]
MadeFrom = Literal["runs", "checkpoint", "data"]
SOURCES: dict[MadeFrom, str] = {
    "runs": "run folders, or folders of run folders",
    "checkpoint": "one checkpoint: a step folder, or its parent with latest.txt",
    "data": "one data set: a file, a folder or a hub id",
}


def always_ready(place: Path | None) -> None:
    """Nothing is needed that could be missing."""


@dataclass(frozen=True)
class Export:
    """A named form of runs, of a checkpoint or of a data set.

    write: called with the source, the place (None only where `service`) and, where `settings`, an object of that class.
    place: file or folder where it goes by default.
    service: it has a place of its own, as the user's environment says; a place that is named is used instead, offline.
    ready: called with the place before hours of work; raises an InfiniEvalError where the export could not be made.
    made_from: what the source is: "runs" (a sequence of analysed runs), "checkpoint" (its path), "data" (path or hub id).
    settings: a frozen dataclass of `infini_eval.options.option` fields, each a flag of `infini-eval export`.
    """

    name: str
    write: Write
    place: str
    service: bool = False
    ready: Callable[[Path | None], None] = always_ready
    made_from: MadeFrom = "runs"
    settings: type | None = None

    def __call__(self, source: Any, place: Path | None = None, **options: Any) -> list[str]:
        """Write the source to a place, the usual one where None; returns what was written.

        options: fields of `settings` by name; the others have their defaults.
        """
        if place is None and not self.service:
            place = Path(self.place)
        chosen = self._chosen(options)
        self.ready(place)
        return self.write(source, place, *chosen)

    def _chosen(self, options: dict[str, Any]) -> tuple[Any, ...]:
        """The settings object, where this export has one."""
        known = [] if self.settings is None else [field.name for field in fields(self.settings)]
        unknown = [name for name in options if name not in known]
        if unknown:
            raise ConfigError(
                f"the export {self.name} has no option {unknown[0]!r}", valid=", ".join(known) or "no options"
            )
        return () if self.settings is None else (self.settings(**options),)

    @property
    def about(self) -> str:
        """What it is, in a line: the first of the function's docstring."""
        return (self.write.__doc__ or self.name).strip().splitlines()[0]


def export(
    name: str,
    *,
    place: str,
    service: bool = False,
    ready: Callable[[Path | None], None] = always_ready,
    made_from: MadeFrom = "runs",
    settings: type | None = None,
) -> Callable[[Write], Export]:
    """Make a function an export of that name; the arguments are fields of `Export`."""
    return lambda write: Export(name, write, place, service, ready, made_from, settings)
