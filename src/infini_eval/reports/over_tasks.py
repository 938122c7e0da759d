"""The average over several tasks of one model, by length, as RULER has it; a single task says nothing of the others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infini_eval.reports.model import (
    AnalysedRun,
    DepthRun,
    EffectiveContext,
    LengthSummary,
    Number,
    fields_to_json,
    rounded,
)
from infini_eval.reports.model_facts import model_facts
from infini_eval.reports.summary import claim_of, effective_of
from infini_eval.reports.text import BAR, WIDTH, counts_words, effective_lines, plain_text

_NOT_THE_MODEL = {
    "task", "scorer", "data", "data_settings", "filters", "seed", "num_samples", "max_new_tokens", "early_stop",
}  # fmt: skip


@dataclass(frozen=True)
class TasksStats:
    """The mean over tasks in percent, and its bounds whatever failed samples would have been answered."""

    average_accuracy: Number | None
    average_failed_as_wrong: Number
    average_failed_as_right: Number
    bound_low: Number
    bound_high: Number
    ci_method: str
    haystacks: None = None


@dataclass(frozen=True)
class TasksLength:
    """All tasks at one context length."""

    context_length: int
    total_samples: int
    failed: int
    by_task: Mapping[str, Number | None]
    summary_stats: TasksStats


@dataclass(frozen=True)
class TasksAverage:
    """One model over its tasks; `left_out` says which lengths are not there, and why."""

    model: str
    tasks: tuple[str, ...]
    by_context_length: tuple[TasksLength, ...]
    left_out: tuple[str, ...]
    effective_context_length: EffectiveContext | None

    def to_json(self) -> dict[str, object]:
        """As `analyze --json-only` prints it."""
        return fields_to_json(self)


@dataclass(frozen=True)
class _Part:
    """One task at one length: its folder, its summary, and the haystacks that its samples stand in."""

    folder: str
    task: str
    length: int
    block: LengthSummary
    haystacks: frozenset[str]


def over_tasks(runs: Sequence[AnalysedRun]) -> list[TasksAverage]:
    """For each model that was asked two tasks or more: the average over tasks at each length that all have.

    Runs belong to one model where everything in their identity but the task, its data and its settings is the same.
    The tasks are those asked, not a sample of all that could be: the interval is for these. Judged runs have no part.
    """
    groups: dict[str, list[DepthRun]] = {}
    for run in runs:
        if isinstance(run, DepthRun):
            groups.setdefault(_model_key(run), []).append(run)
    averages = [_of_model(group) for group in groups.values()]
    return [average for average in averages if average is not None]


def _model_key(run: DepthRun) -> str:
    manifest = run.records.manifest or {}
    identity = manifest.get("identity") if isinstance(manifest.get("identity"), dict) else {}
    model = {name: value for name, value in (identity or {}).items() if name not in _NOT_THE_MODEL}
    facts = model_facts(manifest)
    return json.dumps([facts.name, facts.memory, model], sort_keys=True, default=str)


def _of_model(runs: Sequence[DepthRun]) -> TasksAverage | None:
    parts = [part for run in runs for part in _parts(run)]
    tasks = tuple(sorted({part.task for part in parts}))
    if len(tasks) < 2:
        return None
    model = model_facts(runs[0].records.manifest).name
    twice = _measured_twice(parts)
    if twice:
        return TasksAverage(model, tasks, (), tuple(twice), None)
    by_length = {
        length: [part for part in parts if part.length == length] for length in sorted({part.length for part in parts})
    }
    blocks = tuple(_average(length, own) for length, own in by_length.items() if len(own) == len(tasks))
    left_out = tuple(
        f"{length} tokens: measured for {len(own)} of {len(tasks)} tasks ({', '.join(part.task for part in own)})"
        for length, own in by_length.items()
        if len(own) < len(tasks)
    )
    effective = effective_of(blocks, f"the average over {len(tasks)} tasks (RULER-like)")
    return TasksAverage(model, tasks, blocks, left_out, effective)


def _parts(run: DepthRun) -> list[_Part]:
    task = model_facts(run.records.manifest).task
    haystacks: set[str] = set()
    for name in ("haystack_id", "haystack_hash"):
        haystacks |= {str(text) for text in run.records.codes(name)[1]}
    return [
        _Part(str(run.folder), task, block.context_length, block, frozenset(haystacks))
        for block in run.summary.by_context_length
        if block.context_length
    ]


def _measured_twice(parts: Sequence[_Part]) -> list[str]:
    """Which of two runs counts is not for us to choose."""
    seen: dict[tuple[str, int], list[str]] = {}
    for part in parts:
        seen.setdefault((part.task, part.length), []).append(part.folder)
    return [
        f"{task} at {length} tokens is in {len(folders)} runs ({', '.join(folders)}): name one run a task and length"
        for (task, length), folders in seen.items()
        if len(folders) > 1
    ]


def _average(length: int, parts: Sequence[_Part]) -> TasksLength:
    """The mean over tasks at one length; tasks that share haystacks, or may, are not independent."""
    stats = [part.block.summary_stats for part in parts]
    known = all(part.haystacks for part in parts)
    shared = len(frozenset().union(*(part.haystacks for part in parts))) < sum(len(part.haystacks) for part in parts)
    independent = known and not shared
    wrong, down = mean_and_reach(
        [each.average_failed_as_wrong for each in stats], [each.bound_low for each in stats], independent
    )
    right, up = mean_and_reach(
        [each.average_failed_as_right for each in stats], [each.bound_high for each in stats], independent
    )
    answered = [each.average_accuracy for each in stats if each.average_accuracy is not None]
    how = "independent tasks" if independent else "tasks on shared haystacks" if known else "haystacks unknown"
    return TasksLength(
        context_length=length,
        total_samples=sum(part.block.total_samples for part in parts),
        failed=sum(part.block.failed for part in parts),
        by_task={part.task: part.block.summary_stats.average_accuracy for part in parts},
        summary_stats=TasksStats(
            average_accuracy=rounded(sum(answered) / len(answered)) if len(answered) == len(stats) else None,
            average_failed_as_wrong=rounded(wrong),
            average_failed_as_right=rounded(right),
            bound_low=rounded(max(0.0, wrong - down)),
            bound_high=rounded(min(100.0, right + up)),
            ci_method=f"intervals of the tasks combined; {how}",
        ),
    )


def mean_and_reach(values: Sequence[float], ends: Sequence[float], independent: bool) -> tuple[float, float]:
    """The unweighted mean of tasks' values, and how far one end of its interval lies from it.

    ends: the same end of each task's own interval. The distances of the ends from the values add up in squares where
    tasks are independent (MOVER, Zou and Donner 2008); else as they are, which holds however strongly the tasks agree.
    """
    power = 2 if independent else 1
    reach = sum(abs(end - value) ** power for value, end in zip(values, ends, strict=True)) ** (1 / power)
    return sum(values) / len(values), reach / len(values)


def render(average: TasksAverage, *, ascii_only: bool = False) -> str:
    """One model's averages over tasks as text."""
    tasks = average.tasks
    lines = ["=" * WIDTH, f"AVERAGE OVER {len(tasks)} TASKS - {average.model.upper()}", "=" * WIDTH]
    lines.append(f"Tasks: {', '.join(tasks)}")
    lines += [_line(block) for block in average.by_context_length]
    lines += [f"left out: {line}" for line in average.left_out]
    effective = average.effective_context_length
    if effective:
        lines += ["", f"{effective.name[:1].upper()}{effective.name[1:]}:", *effective_lines(effective)]
        lines.append(f"  (RULER averages its 13 tasks; these are {len(tasks)})")
    return plain_text("\n".join(lines), ascii_only)


def _line(block: TasksLength) -> str:
    stats = block.summary_stats
    value = stats.average_accuracy if stats.average_accuracy is not None else stats.average_failed_as_wrong
    bar = "█" * round(value / 100 * BAR)
    interval = f"[{claim_of(stats).low * 100:.1f}, {stats.bound_high:.1f}]"
    counts = f"{counts_words(block)}; {stats.ci_method}"
    return f"{block.context_length:>8} tokens: {bar:<{BAR}} {value:6.2f}% {interval} ({counts})"
