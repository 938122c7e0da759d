"""The table of a suite of tasks: each task's score at each length, and their average with its interval.

A score is the mean over samples, in percent, as RULER's is; the average weighs all tasks alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.api import registry
from infini_eval.errors import InfiniEvalError
from infini_eval.reports.judged import analyze_any
from infini_eval.reports.numbers import number
from infini_eval.reports.scoring import with_failures_as_wrong, with_scores
from infini_eval.reports.statistics.intervals import Average, average_over
from infini_eval.reports.statistics.scored import scored_samples
from infini_eval.reports.summary import to_text
from infini_eval.results.files import write_atomically
from infini_eval.results.reader import RunRecords, is_run_folder, read_run

if TYPE_CHECKING:
    import numpy as np

NAME, TEXT_NAME = "suite.json", "suite.txt"


@dataclass(frozen=True)
class Cell:
    """One task at one length: the score of the answered samples (None: no one was answered), and how many failed."""

    score: Average | None
    samples: int
    failed: int

    @property
    def with_failed_as_wrong(self) -> float:
        return self.score.value * self.samples / (self.samples + self.failed) if self.score else 0.0

    def to_json(self) -> dict[str, Any]:
        percent = average_percent(self.score) if self.score else dict.fromkeys(("score", "ci_low", "ci_high"))
        lowest = number(100 * self.with_failed_as_wrong)
        return {**percent, "num_samples": self.samples, "failed": self.failed, "score_failed_as_wrong": lowest}


def average_percent(found: Average) -> dict[str, Any]:
    return {
        "score": number(100 * found.value), "ci_low": number(100 * found.low), "ci_high": number(100 * found.high),
        "ci_method": found.method,
    }  # fmt: skip


def finished(task: str, folder: Path, failed_as_wrong: bool) -> str:
    """Write a finished task's own report, as its own command does, and say its scores in one line."""
    try:
        analyze_any(folder, failed_as_wrong=failed_as_wrong).write(folder)
    except InfiniEvalError as error:  # no sample was answered: the table says so too
        return f"{task}: {error.problem}"
    cells = _cells(folder, failed_as_wrong)
    said = [f"{_shown(cell.to_json())} at {length} (n={cell.samples})" for length, cell in cells.items()]
    return f"{task}: {', '.join(said)}"


def summarise(name: str, folder: Path, tasks: Sequence[str], *, failed_as_wrong: bool = False) -> dict[str, Any]:
    """The scores of the runs at `folder`/TASK by length, JSON-ready; tasks without a run are named as missing."""
    there = [task for task in tasks if is_run_folder(folder / task)]
    cells = {task: _cells(folder / task, failed_as_wrong) for task in there}
    lengths = sorted({length for found in cells.values() for length in found})
    return {
        "suite": name,
        "tasks": list(tasks),
        "missing": [task for task in tasks if task not in there],
        "failed_as_wrong": failed_as_wrong,
        "lengths": [
            _length(length, {task: cells[task][length] for task in there if length in cells[task]}, len(tasks))
            for length in lengths
        ],
    }


def _length(length: int, cells: Mapping[str, Cell], tasks: int) -> dict[str, Any]:
    scores = [cell.score for cell in cells.values() if cell.score]
    failed = sum(cell.failed for cell in cells.values())
    average = average_of_tasks(scores) if scores else None
    lowest = sum(cell.with_failed_as_wrong for cell in cells.values()) / len(cells)
    return {
        "context_length": length,
        "tasks": {task: cell.to_json() for task, cell in cells.items()},
        "average": average_percent(average) if average else None,
        "average_failed_as_wrong": number(100 * lowest),
        "averaged_tasks": len(scores),
        "complete": len(scores) == tasks and not failed,
        "failed": failed,
    }


def average_of_tasks(scores: Sequence[Average]) -> Average:
    """The unweighted mean of tasks' scores, with the interval that theirs give it (MOVER, Zou & Donner 2008).

    The tasks are the suite's own, not a draw from others; their samples are independent. So the distances between each
    score and its bounds add up as squares, divided by the number of tasks.
    """
    count = len(scores)
    value = sum(score.value for score in scores) / count
    below = math.sqrt(sum((score.value - score.low) ** 2 for score in scores)) / count
    above = math.sqrt(sum((score.high - score.value) ** 2 for score in scores)) / count
    return Average(value, max(0.0, value - below), min(1.0, value + above), f"MOVER over {count} tasks")


def _cells(folder: Path, failed_as_wrong: bool) -> dict[int, Cell]:
    """Each labelled length of one run."""
    import numpy as np

    records = with_scores(
        read_run(folder, scorers=registry.names("scorers"), excerpts=0, without=("prompt_sha256", "id"))
    )
    if failed_as_wrong:
        records = with_failures_as_wrong(records)
    labels = records.number("context_length")
    return {int(length): _cell(records, labels == length) for length in np.unique(labels[~np.isnan(labels)])}


def _cell(records: RunRecords, mask: np.ndarray) -> Cell:
    import numpy as np

    scored = scored_samples(records)
    own = scored.where(np.isin(scored.row, np.flatnonzero(mask)))
    if not len(own):
        return Cell(None, 0, int(mask.sum()))
    together = np.zeros(len(own), dtype=np.int64)  # RULER averages over samples, whatever their depth
    return Cell(average_over(together, own.correct, own.cluster), len(own), int(mask.sum()) - len(own))


def write(found: Mapping[str, Any], folder: Path, copy: Path | None = None) -> Path:
    """Write suite.json and suite.txt into `folder`, and the JSON to `copy` too; returns the JSON's path."""
    write_atomically(folder / TEXT_NAME, f"{render(found)}\n".encode())
    for path in (folder / NAME, *([copy] if copy else [])):
        write_atomically(path, to_text(found).encode())
    return folder / NAME


def render(found: Mapping[str, Any]) -> str:
    """The table, a row a task and a column a length, and what a reader must know about it."""
    blocks = found["lengths"]
    width = max(map(len, ("average of the tasks", *found["tasks"]))) + 2
    rows = [f"{'task':<{width}}" + "".join(f"{block['context_length']:>14}" for block in blocks)]
    for task in found["tasks"]:
        cells = [_shown(block["tasks"].get(task)) for block in blocks]
        rows.append(f"{task:<{width}}" + "".join(f"{cell:>14}" for cell in cells))
    rows.append("-" * len(rows[0]))
    averages = [block["average"] for block in blocks]
    rows.append(f"{'average of the tasks':<{width}}" + "".join(f"{_score(average):>14}" for average in averages))
    rows.append(f"{'95 % interval':<{width}}" + "".join(f"{_interval(average):>14}" for average in averages))
    rows.append(f"{'tasks averaged':<{width}}" + "".join(f"{block['averaged_tasks']:>14}" for block in blocks))
    return "\n".join([*rows, *_remarks(found)])


def _remarks(found: Mapping[str, Any]) -> list[str]:
    remarks = ["Scores are the mean share of the references found, in percent; intervals are those of these samples."]
    for block in found["lengths"]:
        if block["failed"]:
            remarks.append(
                f"{block['context_length']}: {block['failed']} sample(s) failed (*); counted as wrong, the average is "
                f"{block['average_failed_as_wrong']:.1f}"
            )
    if any(block["averaged_tasks"] < len(found["tasks"]) for block in found["lengths"]):
        remarks.append(f"An average of fewer than {len(found['tasks'])} tasks is not the suite's.")
    if found["missing"]:
        remarks.append(f"No run of: {', '.join(found['missing'])} (docs/ruler.md says what they need).")
    return remarks


def _shown(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "-"
    return _score(cell) + "*" * bool(cell["failed"])


def _score(found: Mapping[str, Any] | None) -> str:
    return "-" if found is None or found["score"] is None else f"{found['score']:.1f}"


def _interval(found: Mapping[str, Any] | None) -> str:
    return "-" if found is None else f"{found['ci_low']:.1f} to {found['ci_high']:.1f}"
