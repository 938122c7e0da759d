"""Runs that differ only in length or depth, as one run; and a run in a few lines of JSON.

The joined run is a `DepthRun` over all their samples, so that every report of a run is also the report of many.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infini_eval.reports.analyze import report_on
from infini_eval.reports.model import AnalysedRun, DepthRun, Number, QuestionSummary
from infini_eval.reports.model_facts import model_facts, one_line, task_of
from infini_eval.reports.summary import NAME
from infini_eval.results.reader import RunRecords

# what the lengths and depths of a run follow from; the number of samples decides intervals, not what is measured
_MAY_DIFFER = ("data", "filters.context_length", "filters.depths", "num_samples")
_SHOWN = 16  # characters of a value, most of which are digests


@dataclass(frozen=True)
class NotJoined:
    """Why runs are not one: what differs, or is measured twice."""

    reasons: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"  {reason}" for reason in self.reasons]
        return "\n".join(["Not joined into one table: the runs differ in more than length and depth", *lines])


def join_runs(runs: Sequence[DepthRun], folder: Path, *, ascii_only: bool = False) -> DepthRun | NotJoined:
    """Runs of one model, task and settings at several lengths or depths as one run that lies in `folder`.

    Data sets and numbers of samples may differ, because each length has its own. Two runs that hold the same length and
    depth are not added up: which of them counts is not for us to choose.
    """
    reasons = (*_differences(runs), *_measured_twice(runs))
    if reasons:
        return NotJoined(reasons)
    return report_on(_union(runs, folder), folder, ascii_only=ascii_only)


def _differences(runs: Sequence[DepthRun]) -> tuple[str, ...]:
    """One line a setting that is not the same in all, with the runs that have each value."""
    settings = [dict(_settings(run)) for run in runs]
    found = []
    for key in dict.fromkeys(key for one in settings for key in one):
        runs_with: dict[str, list[str]] = {}
        for run, one in zip(runs, settings, strict=True):
            runs_with.setdefault(one.get(key, "(not recorded)"), []).append(run.folder.name)
        if len(runs_with) > 1:
            values = (f"{_shortened(value)} ({', '.join(names)})" for value, names in runs_with.items())
            found.append(f"{key}: {'; '.join(values)}")
    return tuple(found)


def _settings(run: DepthRun) -> Iterator[tuple[str, str]]:
    """What decides a run's answers, but for its data: name and value of each setting."""
    manifest = run.records.manifest or {}
    facts = model_facts(manifest)
    yield "model", facts.name
    yield "memory", str(facts.memory)
    yield "segment_length", str(facts.segment_length)
    for key, value in _flat(manifest.get("identity")):
        said_already = key == "model.memory" and facts.memory is not None
        if key not in _MAY_DIFFER and not key.startswith("data.") and not said_already:
            yield key, value if isinstance(value, str) else json.dumps(value)


def _flat(data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items() if isinstance(data, Mapping) else ():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shortened(value: str) -> str:
    """A digest by its first digits; words stay whole."""
    digest = len(value) > _SHOWN and all(c in "0123456789abcdef" for c in value)
    return f"{value[:_SHOWN]}…" if digest else one_line(value)


def _measured_twice(runs: Sequence[DepthRun]) -> tuple[str, ...]:
    """The first length and depth that is in several runs."""
    seen: dict[tuple[int | None, Number], list[str]] = {}
    for run in runs:
        for block in run.summary.by_context_length:
            for cell in block.results_by_depth:
                seen.setdefault((block.context_length, cell.depth_percent), []).append(run.folder.name)
    for (length, depth), names in seen.items():
        if len(names) > 1:
            tokens = "no length" if length is None else f"{length} tokens"
            return (f"{tokens} at depth {depth:g} % is in several runs: {', '.join(names)}",)
    return ()


def _union(runs: Sequence[DepthRun], folder: Path) -> RunRecords:
    """All records, under a manifest that says what the runs have in common."""
    import pyarrow as pa

    every = [run.records for run in runs]
    planned = [records.planned for records in every]
    notes = [f"{run.folder.name}: {note}" for run in runs for note in run.records.notes]
    names = ", ".join(run.folder.name for run in runs)
    return RunRecords(
        folder=folder,
        table=pa.concat_tables([records.table for records in every]),
        present=frozenset().union(*(records.present for records in every)),
        manifest=_common([records.manifest for records in every]),
        notes=(f"{len(runs)} runs joined: {names}", *notes),
        planned=None if None in planned else sum(number or 0 for number in planned),
        sources=tuple(path for records in every for path in records.sources),
        parts=tuple(records.folder for records in every),
        scorers=tuple(dict.fromkeys(name for records in every for name in records.scorers)),
    )


def _common(manifests: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """What all manifests say alike, part by part; None where no run has one."""
    known = [manifest for manifest in manifests if manifest is not None]
    return _shared(known) if len(known) == len(manifests) else None


def _shared(mappings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, *others = mappings
    shared: dict[str, Any] = {}
    for key, value in first.items():
        values = [value, *(other.get(key) for other in others)]
        parts = [one for one in values if isinstance(one, Mapping)]
        if len(parts) == len(values):
            shared[key] = _shared(parts)
        elif all(one == value for one in values):
            shared[key] = value
    return shared


@dataclass(frozen=True)
class BriefLength:
    """One context length in a line: the average over depths with its 95 % interval, in percent, and its verdict."""

    context_length: int | None
    accuracy: Number | None
    ci_low: Number | None
    ci_high: Number | None
    num_samples: int
    failed: int
    verdict: str


@dataclass(frozen=True)
class BriefJudge:
    """One judge of a judged run; accuracy and interval in percent."""

    judge: str
    accuracy: Number | None
    ci_low: Number | None
    ci_high: Number | None


@dataclass(frozen=True)
class BriefRun:
    """A run in a list of many: where it lies, what it is, and its numbers. `summary` is the file that has the rest.

    `at_least` and `below` bound the effective context length under the fixed bar, in tokens; None where unknown.
    """

    folder: str
    summary: str | None
    model: str
    task: str
    total_samples: int
    complete: bool | None
    at_least: int | None = None
    below: int | None = None
    by_context_length: tuple[BriefLength, ...] = ()
    judges: tuple[BriefJudge, ...] = ()


def brief(run: AnalysedRun, summary: Path | None = None) -> BriefRun:
    """A run in a few lines; `summary` is where its summary.json is, in its folder unless said."""
    file = str(summary or run.folder / NAME)
    found = run.summary
    if isinstance(found, QuestionSummary):
        return BriefRun(
            str(run.folder), file, found.model, found.task, found.answers, found.complete,
            judges=tuple(_judge(one) for one in found.judges),
        )  # fmt: skip
    bar = found.effective_context_length.fixed if found.effective_context_length else None
    return BriefRun(
        str(run.folder), file, found.model, task_of(found), found.total_samples, found.complete,
        bar.at_least if bar else None, bar.below if bar else None,
        by_context_length=tuple(_length(block) for block in found.by_context_length),
    )  # fmt: skip


def _length(block: Any) -> BriefLength:
    stats = block.summary_stats
    return BriefLength(
        block.context_length, stats.average_accuracy, stats.average_ci_low, stats.average_ci_high,
        block.total_samples, block.failed, block.headline.category,
    )  # fmt: skip


def _judge(judge: Mapping[str, Any]) -> BriefJudge:
    return BriefJudge(judge["name"], judge.get("accuracy"), judge.get("ci_low"), judge.get("ci_high"))
