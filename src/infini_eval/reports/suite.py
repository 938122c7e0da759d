"""The table of a suite of tasks: each task's score at each length, and their average with its interval.

A score is the mean over samples, in percent, as RULER's is; the average weighs all tasks alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.api import registry
from infini_eval.errors import InfiniEvalError
from infini_eval.reports.analyze import analyze_any
from infini_eval.reports.model import Number, fields_to_json, rounded, to_text
from infini_eval.reports.over_tasks import mean_and_reach
from infini_eval.reports.statistics.intervals import Average, average_over
from infini_eval.reports.statistics.samples import scored_samples
from infini_eval.reports.summary import with_failures_as_wrong, with_scores
from infini_eval.results.files import write_atomically
from infini_eval.results.reader import RunRecords, is_run_folder, read_run

if TYPE_CHECKING:
    import numpy as np

NAME, TEXT_NAME = "suite.json", "suite.txt"


@dataclass(frozen=True)
class TaskScore:
    """One task at one length: the score of the answered samples (None: no one was answered), and how many failed."""

    score: Average | None
    samples: int
    failed: int

    @property
    def with_failed_as_wrong(self) -> float:
        return self.score.value * self.samples / (self.samples + self.failed) if self.score else 0.0

    def to_json(self) -> dict[str, Any]:
        percent = (
            fields_to_json(in_percent(self.score)) if self.score else dict.fromkeys(("score", "ci_low", "ci_high"))
        )
        lowest = rounded(100 * self.with_failed_as_wrong)
        return {**percent, "num_samples": self.samples, "failed": self.failed, "score_failed_as_wrong": lowest}


@dataclass(frozen=True)
class Percent:
    """A score with its interval, in percent."""

    score: Number
    ci_low: Number
    ci_high: Number
    ci_method: str


@dataclass(frozen=True)
class SuiteLength:
    """All tasks of a suite at one length, and their average; `complete` where every task has a score and none failed."""

    context_length: int
    tasks: Mapping[str, TaskScore]
    average: Percent | None
    average_failed_as_wrong: Number
    averaged_tasks: int
    complete: bool
    failed: int


@dataclass(frozen=True)
class SuiteTable:
    """A suite's scores; `missing` names the tasks without a run."""

    suite: str
    tasks: tuple[str, ...]
    missing: tuple[str, ...]
    failed_as_wrong: bool
    lengths: tuple[SuiteLength, ...]

    def to_json(self) -> dict[str, Any]:
        """The content of suite.json."""
        return fields_to_json(self)


def in_percent(average: Average) -> Percent:
    return Percent(
        rounded(100 * average.value), rounded(100 * average.low), rounded(100 * average.high), average.method
    )


def finished(task: str, folder: Path, failed_as_wrong: bool) -> str:
    """Write a finished task's own report, as its own command does, and say its scores in one line."""
    try:
        analyze_any(folder, failed_as_wrong=failed_as_wrong).write(folder)
    except InfiniEvalError as error:  # no sample was answered: the table says so too
        return f"{task}: {error.problem}"
    cells = _cells(folder, failed_as_wrong)
    said = [f"{_shown(cell)} at {length} (n={cell.samples})" for length, cell in cells.items()]
    return f"{task}: {', '.join(said)}"


def summarise(name: str, folder: Path, tasks: Sequence[str], *, failed_as_wrong: bool = False) -> SuiteTable:
    """The scores of the runs at `folder`/TASK by length; tasks without a run are named as missing."""
    there = [task for task in tasks if is_run_folder(folder / task)]
    cells = {task: _cells(folder / task, failed_as_wrong) for task in there}
    lengths = sorted({length for by_length in cells.values() for length in by_length})
    return SuiteTable(
        suite=name,
        tasks=tuple(tasks),
        missing=tuple(task for task in tasks if task not in there),
        failed_as_wrong=failed_as_wrong,
        lengths=tuple(
            _length(length, {task: cells[task][length] for task in there if length in cells[task]}, len(tasks))
            for length in lengths
        ),
    )


def _length(length: int, cells: Mapping[str, TaskScore], tasks: int) -> SuiteLength:
    scores = [cell.score for cell in cells.values() if cell.score]
    failed = sum(cell.failed for cell in cells.values())
    lowest = sum(cell.with_failed_as_wrong for cell in cells.values()) / len(cells)
    return SuiteLength(
        context_length=length,
        tasks=cells,
        average=in_percent(average_of_tasks(scores)) if scores else None,
        average_failed_as_wrong=rounded(100 * lowest),
        averaged_tasks=len(scores),
        complete=len(scores) == tasks and not failed,
        failed=failed,
    )


def average_of_tasks(scores: Sequence[Average]) -> Average:
    """The unweighted mean of tasks' scores, with the interval that theirs give it (MOVER, Zou & Donner 2008).

    The tasks are the suite's own, not a draw from others; their samples are independent. So the distances between each
    score and its bounds add up as squares, divided by the number of tasks.
    """
    value, below = mean_and_reach([score.value for score in scores], [score.low for score in scores], True)
    _, above = mean_and_reach([score.value for score in scores], [score.high for score in scores], True)
    method = f"MOVER over {len(scores)} tasks"
    return Average(value, max(0.0, value - below), min(1.0, value + above), method)


def _cells(folder: Path, failed_as_wrong: bool) -> dict[int, TaskScore]:
    """Each labelled length of one run."""
    import numpy as np

    records = with_scores(
        read_run(folder, scorers=registry.names("scorers"), excerpts=0, without=("prompt_sha256", "id"))
    )
    if failed_as_wrong:
        records = with_failures_as_wrong(records)
    labels = records.number("context_length")
    return {int(length): _cell(records, labels == length) for length in np.unique(labels[~np.isnan(labels)])}


def _cell(records: RunRecords, mask: np.ndarray) -> TaskScore:
    import numpy as np

    scored = scored_samples(records)
    own = scored.where(np.isin(scored.row, np.flatnonzero(mask)))
    if not len(own):
        return TaskScore(None, 0, int(mask.sum()))
    together = np.zeros(len(own), dtype=np.int64)  # RULER averages over samples, whatever their depth
    return TaskScore(average_over(together, own.correct, own.cluster), len(own), int(mask.sum()) - len(own))


def write(table: SuiteTable, folder: Path, copy: Path | None = None) -> Path:
    """Write suite.json and suite.txt into `folder`, and the JSON to `copy` too; returns the JSON's path."""
    write_atomically(folder / TEXT_NAME, f"{render(table)}\n".encode())
    for path in (folder / NAME, *([copy] if copy else [])):
        write_atomically(path, to_text(table).encode())
    return folder / NAME


def render(table: SuiteTable) -> str:
    """The table, a row a task and a column a length, and what a reader must know about it."""
    blocks = table.lengths
    width = max(map(len, ("average of the tasks", *table.tasks))) + 2
    rows = [f"{'task':<{width}}" + "".join(f"{block.context_length:>14}" for block in blocks)]
    for task in table.tasks:
        cells = [_shown(block.tasks.get(task)) for block in blocks]
        rows.append(f"{task:<{width}}" + "".join(f"{cell:>14}" for cell in cells))
    rows.append("-" * len(rows[0]))
    averages = [block.average for block in blocks]
    rows.append(f"{'average of the tasks':<{width}}" + "".join(f"{_score(average):>14}" for average in averages))
    rows.append(f"{'95 % interval':<{width}}" + "".join(f"{_interval(average):>14}" for average in averages))
    rows.append(f"{'tasks averaged':<{width}}" + "".join(f"{block.averaged_tasks:>14}" for block in blocks))
    return "\n".join([*rows, *_remarks(table)])


def _remarks(table: SuiteTable) -> list[str]:
    remarks = ["Scores are the mean share of the references found, in percent; intervals are those of these samples."]
    for block in table.lengths:
        if block.failed:
            remarks.append(
                f"{block.context_length}: {block.failed} sample(s) failed (*); counted as wrong, the average is "
                f"{block.average_failed_as_wrong:.1f}"
            )
    if any(block.averaged_tasks < len(table.tasks) for block in table.lengths):
        remarks.append(f"An average of fewer than {len(table.tasks)} tasks is not the suite's.")
    if table.missing:
        remarks.append(f"No run of: {', '.join(table.missing)} (docs/ruler.md says what they need).")
    return remarks


def _shown(cell: TaskScore | None) -> str:
    if cell is None:
        return "-"
    return _score(in_percent(cell.score) if cell.score else None) + "*" * bool(cell.failed)


def _score(percent: Percent | None) -> str:
    return "-" if percent is None else f"{percent.score:.1f}"


def _interval(percent: Percent | None) -> str:
    return "-" if percent is None else f"{percent.ci_low:.1f} to {percent.ci_high:.1f}"
