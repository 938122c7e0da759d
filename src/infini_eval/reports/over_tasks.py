"""The average over several tasks of one model, by length, as RULER has it; a single task says nothing of the others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infini_eval.reports import sentences
from infini_eval.reports.analyze import AnalysedRun
from infini_eval.reports.ascii_bars import BAR, WIDTH
from infini_eval.reports.model_facts import model_facts
from infini_eval.reports.numbers import number
from infini_eval.reports.summary import claim_of, effective_of
from infini_eval.reports.terminal import plain_text

_NOT_THE_MODEL = {
    "task", "scorer", "data", "data_settings", "filters", "seed", "num_samples", "max_new_tokens", "early_stop",
}  # fmt: skip


@dataclass(frozen=True)
class _Part:
    """One task at one length: its folder, its block of the summary, and the haystacks that its samples stand in."""

    folder: str
    task: str
    block: Mapping[str, Any]
    haystacks: frozenset[str]


def over_tasks(runs: Sequence[AnalysedRun]) -> list[dict[str, Any]]:
    """For each model that was asked two tasks or more: the average over tasks at each length that all have; JSON-ready.

    Runs belong to one model where everything in their identity but the task, its data and its settings is the same.
    The tasks are those asked, not a sample of all that could be: the interval is for these.
    """
    groups: dict[str, list[AnalysedRun]] = {}
    for run in runs:
        groups.setdefault(_model_key(run), []).append(run)
    found = [_of_model(group) for group in groups.values()]
    return [each for each in found if each is not None]


def _model_key(run: AnalysedRun) -> str:
    manifest = run.records.manifest or {}
    identity = manifest.get("identity") if isinstance(manifest.get("identity"), dict) else {}
    model = {name: value for name, value in (identity or {}).items() if name not in _NOT_THE_MODEL}
    facts = model_facts(manifest)
    return json.dumps([facts.name, facts.memory, model], sort_keys=True, default=str)


def _of_model(runs: Sequence[AnalysedRun]) -> dict[str, Any] | None:
    parts = [part for run in runs for part in _parts(run)]
    tasks = sorted({part.task for part in parts})
    if len(tasks) < 2:
        return None
    made: dict[str, Any] = {"model": model_facts(runs[0].records.manifest).name, "tasks": tasks}
    twice = _measured_twice(parts)
    if twice:
        return {**made, "by_context_length": [], "left_out": twice, "effective_context_length": None}
    lengths = sorted({part.block["context_length"] for part in parts})
    at = {length: [part for part in parts if part.block["context_length"] == length] for length in lengths}
    blocks = [_average(length, found) for length, found in at.items() if len(found) == len(tasks)]
    left_out = [
        f"{length} tokens: measured for {len(found)} of {len(tasks)} tasks ({', '.join(part.task for part in found)})"
        for length, found in at.items()
        if len(found) < len(tasks)
    ]
    effective = effective_of(blocks, f"the average over {len(tasks)} tasks (RULER-like)")
    return {**made, "by_context_length": blocks, "left_out": left_out, "effective_context_length": effective}


def _parts(run: AnalysedRun) -> list[_Part]:
    task = model_facts(run.records.manifest).task
    haystacks: set[str] = set()
    for name in ("haystack_id", "haystack_hash"):
        haystacks |= {str(text) for text in run.records.codes(name)[1]}
    return [
        _Part(str(run.folder), task, block, frozenset(haystacks))
        for block in run.summary["by_context_length"]
        if block["context_length"]
    ]


def _measured_twice(parts: Sequence[_Part]) -> list[str]:
    """Which of two runs counts is not for us to choose."""
    seen: dict[tuple[str, int], list[str]] = {}
    for part in parts:
        seen.setdefault((part.task, part.block["context_length"]), []).append(part.folder)
    return [
        f"{task} at {length} tokens is in {len(folders)} runs ({', '.join(folders)}): name one run a task and length"
        for (task, length), folders in seen.items()
        if len(folders) > 1
    ]


def _average(length: int, parts: Sequence[_Part]) -> dict[str, Any]:
    """The mean over tasks with its interval, in the keys of a summary's block.

    Tasks on different haystacks are independent: the distances of the tasks' own interval ends from their averages add
    up in squares (Zou and Donner 2008, MOVER). Where tasks share haystacks they add up as they are, which holds however
    strongly the tasks agree.
    """
    stats = [part.block["summary_stats"] for part in parts]
    shared = len(frozenset().union(*(part.haystacks for part in parts))) < sum(len(part.haystacks) for part in parts)
    known = all(part.haystacks for part in parts)
    power = 1 if shared or not known else 2
    wrong, right = (_mean([each[f"average_failed_as_{way}"] for each in stats]) for way in ("wrong", "right"))
    down = _added([each["average_failed_as_wrong"] - each["bound_low"] for each in stats], power)
    up = _added([each["bound_high"] - each["average_failed_as_right"] for each in stats], power)
    answered = [each["average_accuracy"] for each in stats]
    how = "independent tasks" if power == 2 else "tasks on shared haystacks" if known else "haystacks unknown"
    return {
        "context_length": length,
        "total_samples": sum(part.block["total_samples"] for part in parts),
        "failed": sum(part.block["failed"] for part in parts),
        "by_task": {part.task: part.block["summary_stats"]["average_accuracy"] for part in parts},
        "summary_stats": {
            "average_accuracy": None if None in answered else number(_mean(answered)),
            "average_failed_as_wrong": number(wrong), "average_failed_as_right": number(right),
            "bound_low": number(max(0.0, wrong - down)), "bound_high": number(min(100.0, right + up)),
            "ci_method": f"intervals of the tasks combined; {how}", "haystacks": None,
        },
    }  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _added(distances: Sequence[float], power: int) -> float:
    """How far the mean's end lies from the mean: the tasks' distances added up (power 1) or their squares (power 2)."""
    return sum(max(0.0, distance) ** power for distance in distances) ** (1 / power) / len(distances)


def render(found: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    """One model's averages over tasks as text."""
    tasks = found["tasks"]
    lines = ["=" * WIDTH, f"AVERAGE OVER {len(tasks)} TASKS - {found['model'].upper()}", "=" * WIDTH]
    lines.append(f"Tasks: {', '.join(tasks)}")
    lines += [_line(block) for block in found["by_context_length"]]
    lines += [f"left out: {line}" for line in found["left_out"]]
    effective = found["effective_context_length"]
    if effective:
        lines += ["", f"{effective['name'][:1].upper()}{effective['name'][1:]}:", *sentences.effective(effective)]
        lines.append(f"  (RULER averages its 13 tasks; these are {len(tasks)})")
    return plain_text("\n".join(lines), ascii_only)


def _line(block: Mapping[str, Any]) -> str:
    stats = block["summary_stats"]
    value = stats["average_accuracy"] if stats["average_accuracy"] is not None else stats["average_failed_as_wrong"]
    bar = "█" * round(value / 100 * BAR)
    interval = f"[{claim_of(block).low * 100:.1f}, {stats['bound_high']:.1f}]"
    counts = sentences.counts(block)
    return (
        f"{block['context_length']:>8} tokens: {bar:<{BAR}} {value:6.2f}% {interval} ({counts}; {stats['ci_method']})"
    )
