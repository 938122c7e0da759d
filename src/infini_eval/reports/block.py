"""One block of a summary: the samples of one context length, or of all, as the dictionary that summary.json holds."""

from __future__ import annotations

from typing import Any

from infini_eval.reports.insights import advice, errors_json, trends_json
from infini_eval.reports.model_facts import ModelFacts
from infini_eval.reports.numbers import number
from infini_eval.reports.statistics.intervals import Average, Proportion, average_over, proportions
from infini_eval.reports.statistics.phases import phase_groups, phase_warning
from infini_eval.reports.statistics.scored import Scored, depth_groups
from infini_eval.reports.statistics.segments import by_compressions, segment_groups
from infini_eval.reports.statistics.verdicts import performance, verdict
from infini_eval.results.reader import RunRecords


def block(records: RunRecords, scored: Scored, length: float | None, facts: ModelFacts) -> dict[str, Any]:
    """The keys of formats/results.md and ours, for these samples; percentages are 0..100, intervals 95 %."""
    depths, group, rounded = depth_groups(scored)
    by_depth = _by_depth(depths, group, scored)
    average = average_over(group, scored.correct, scored.cluster)
    stats = _summary_stats(by_depth, average)
    tokens = _tokens(scored)
    segments = facts.segments(length or (tokens["median"] if tokens else None))
    phases = phase_groups(scored)
    warning = phase_warning(phases)
    judged = performance(stats["average_accuracy"], stats["std_dev"], segments)
    made: dict[str, Any] = {
        "model": facts.name,
        "context_length": int(length) if length is not None else None,
        "total_samples": len(scored),
        "expected_segments": number(segments),
        "prompt_tokens": tokens,
        "results_by_depth": by_depth,
        "depths_rounded_to_5_percent": rounded,
        "summary_stats": stats,
        "segment_analysis": _segment_analysis(scored),
        "phase_analysis": _phase_analysis(phases),
        "performance": judged.to_json(),
        "verdict": verdict(average, length),
        "errors": errors_json(records, scored),
        "trends": trends_json(scored),
        "warnings": [warning] if warning else [],
    }
    return {**made, "advice": advice(made, facts.memory)}


def proportion_json(found: Proportion) -> dict[str, Any]:
    """{accuracy, num_samples, correct, ci_low, ci_high}; accuracy and interval are null without samples."""
    low, high = (100 * bound for bound in found.interval)
    accuracy = None if found.accuracy is None else 100 * found.accuracy
    return {
        "accuracy": number(accuracy), "num_samples": found.n, "correct": number(found.correct),
        "ci_low": number(low) if found.n else None, "ci_high": number(high) if found.n else None,
    }  # fmt: skip


def average_json(average: Average, prefix: str = "average") -> dict[str, Any]:
    """An average's interval in percent, and how it was made."""
    return {
        f"{prefix}_ci_low": number(100 * average.low), f"{prefix}_ci_high": number(100 * average.high),
        "ci_method": average.method, "haystacks": average.clusters,
    }  # fmt: skip


def _by_depth(depths: Any, group: Any, scored: Scored) -> list[dict[str, Any]]:
    cells = proportions(group, scored.correct, scored.cluster, len(depths))
    return [
        {"depth_percent": number(depth), **proportion_json(cell)} for depth, cell in zip(depths, cells, strict=True)
    ]


def _summary_stats(by_depth: list[dict[str, Any]], average: Average) -> dict[str, Any]:
    """Average and population standard deviation over depths; the first depth wins among equals."""
    import numpy as np

    accuracies = [cell["accuracy"] for cell in by_depth]
    worst = min(by_depth, key=lambda cell: cell["accuracy"])
    best = max(by_depth, key=lambda cell: cell["accuracy"])
    return {
        "average_accuracy": number(np.mean(accuracies)), "std_dev": number(np.std(accuracies)),
        "min_accuracy": worst["accuracy"], "max_accuracy": best["accuracy"],
        "min_depth": worst["depth_percent"], "max_depth": best["depth_percent"],
        **average_json(average),
    }  # fmt: skip


def _tokens(scored: Scored) -> dict[str, Any] | None:
    """The real prompt lengths, counted with the model's tokenizer."""
    import numpy as np

    known = scored.tokens[~np.isnan(scored.tokens)]
    if not len(known):
        return None
    return {"min": number(known.min()), "median": number(np.median(known)), "max": number(known.max())}


def _segment_analysis(scored: Scored) -> dict[str, Any]:
    groups = segment_groups(scored)
    found: dict[str, Any] = {}
    names = {"within_segment": groups.within, "cross_segment": groups.cross, "straddling": groups.straddling}
    for name, group in names.items():
        cell = proportion_json(group)
        found |= {f"{name}_avg": cell["accuracy"], f"{name}_count": group.n}
        found[f"{name}_ci"] = [cell["ci_low"], cell["ci_high"]]
    found["unknown_count"] = groups.unknown.n
    found["by_compressions"] = [
        {"from": first, "to": last, **proportion_json(cell)} for first, last, cell in by_compressions(scored)
    ]
    return found


def _phase_analysis(phases: Any) -> dict[str, Any] | None:
    if phases is None:
        return None
    return {
        "answer_inside_segment": proportion_json(phases.inside),
        "answer_crosses_border": proportion_json(phases.crossing),
        "distinct_phases": phases.phases, "only_phase": phases.only_phase,
        "cells": phases.cells, "cells_of_one_phase": phases.fixed_cells,
    }  # fmt: skip
