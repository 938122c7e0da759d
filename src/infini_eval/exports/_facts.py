"""What every export says of a run: its name, its metrics, its settings as flat words, and an identity that stays."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.api import registry
from infini_eval.keys import hide_keys
from infini_eval.reports.model import AnalysedRun, DepthRun, LengthSummary, QuestionSummary
from infini_eval.reports.model_facts import task_of
from infini_eval.reports.track import step_of
from infini_eval.results.manifest import MANIFEST, content
from infini_eval.results.merge import samples_table
from infini_eval.results.reader import read_run

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Point:
    """A value of a metric; `step` is the depth in percent for curves over depth, None for the run's own."""

    name: str
    value: float
    step: int | None = None


@dataclass(frozen=True)
class RunFacts:
    """An analysed run as trackers see it. `key` names the same run in the same folder whenever it is exported."""

    run: AnalysedRun
    name: str
    task: str
    model: str
    manifest: Mapping[str, Any]

    @classmethod
    def of(cls, run: AnalysedRun, name: str) -> RunFacts:
        manifest: dict[str, Any] = {}
        path = run.folder / MANIFEST
        if path.is_file():
            manifest = content(path)[0]
        summary = run.summary
        task = summary.task if isinstance(summary, QuestionSummary) else task_of(summary)
        return cls(run, name, task, summary.model, manifest)

    @property
    def key(self) -> str:
        place = str(self.run.folder.resolve())
        known = json.dumps([place, self.manifest.get("identity")], sort_keys=True, default=str)
        return hashlib.sha256(known.encode()).hexdigest()[:16]

    @property
    def series_and_step(self) -> tuple[str, int] | None:
        """The training run that the checkpoint belongs to (with its memory setting), and the checkpoint's step."""
        at = step_of(self.manifest)
        if at is None:
            return None
        memory = (self.manifest.get("model") or {}).get("memory")
        return Path(at[0]).name + (f"-memory-{memory}" if memory else ""), at[1]

    @property
    def started(self) -> datetime:
        """When the run began; when its folder was changed last where no manifest says."""
        text = (self.manifest.get("environment") or {}).get("started")
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(str(text))
        return datetime.fromtimestamp(self.run.folder.stat().st_mtime, UTC)

    @property
    def wall_seconds(self) -> float:
        """Seconds of all parts of the run, as its manifest has them; 0 where none does."""
        parts = ((self.manifest.get("environment") or {}).get("seconds") or {}).values()
        return float(sum(part.get("wall", 0.0) if isinstance(part, Mapping) else part for part in parts))

    def settings(self) -> dict[str, str]:
        """Identity, model and topology as flat names and short texts."""
        parts = {name: self.manifest.get(name) for name in ("identity", "model")}
        parts["topology"] = (self.manifest.get("environment") or {}).get("topology")
        return {"task": self.task, "run": self.name, **dict(_flat(parts))}

    def points(self) -> list[Point]:
        """Accuracies in percent with their intervals, by length, depth or judge, and what failed."""
        if isinstance(self.run.summary, QuestionSummary):
            return list(_judged_points(self.run.summary))
        assert isinstance(self.run, DepthRun)
        blocks = self.run.summary.by_context_length
        return [
            Point("failed_samples", self.run.summary.failed_samples),
            *(point for block in blocks for point in _length_points(block, self.task)),
        ]


def label(task: str, length: float | None) -> str:
    """A task at a length, as metrics are named."""
    return task if length is None else f"{task}/{length:.0f}"


def facts_of(runs: Sequence[AnalysedRun]) -> list[RunFacts]:
    """The facts of all runs; those of one name are told apart by the folders above theirs, then by number."""
    names = [run.folder.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [f"{run.folder.resolve().parent.name}-{name}" for run, name in zip(runs, names)]
    seen: Counter[str] = Counter()
    facts = []
    for run, name in zip(runs, names):
        seen[name] += 1
        facts.append(RunFacts.of(run, name if seen[name] == 1 else f"{name}-{seen[name]}"))
    return facts


def _length_points(block: LengthSummary, task: str) -> Iterator[Point]:
    where, stats = label(task, block.context_length), block.summary_stats
    values = {"accuracy": stats.average_accuracy, "ci_low": stats.average_ci_low, "ci_high": stats.average_ci_high}
    values |= {"accuracy_failed_as_wrong": stats.average_failed_as_wrong, "samples": block.total_samples}
    yield from (Point(f"{name}/{where}", float(value)) for name, value in values.items() if value is not None)
    for cell in block.results_by_depth:
        if cell.accuracy is not None:
            yield Point(f"accuracy_by_depth/{where}", float(cell.accuracy), round(cell.depth_percent))


def _judged_points(summary: QuestionSummary) -> Iterator[Point]:
    yield Point("answers", summary.answers)
    yield Point("failed_samples", summary.failed)
    for judge in summary.judges:
        for name in ("accuracy", "ci_low", "ci_high"):
            if judge.get(name) is not None:
                yield Point(f"{name}/{summary.task}/{judge['name']}", float(judge[name]))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(part, f"{name}.{key}" if name else str(key))
    elif value is not None:
        yield name, hide_keys(str(value))[:500]


def recorded(folder: Path) -> pa.Table:
    """A run's records, all columns; of a folder of foreign record files, the columns that we know."""
    if (folder / MANIFEST).is_file():
        return samples_table(folder)
    records = read_run(folder, scorers=registry.names("scorers"))
    return records.table.select([name for name in records.table.column_names if name in records.present])


def scorers_of(facts: RunFacts, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The scorers whose scores are recorded, the one that counts first; `correct` where nobody says which it was."""
    known = [name for name in registry.names("scorers") if rows and name in rows[0]]
    counts = (facts.manifest.get("identity") or {}).get("scorer")
    return [counts, *(name for name in known if name != counts)] if counts in known else ["correct", *known]


def stderr(values: Sequence[float]) -> float | None:
    """The standard error of a mean, from the sample's own variance; None for a single value."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
