"""One block of a summary: the samples of one context length, or of all, as the dictionary that summary.json holds."""

from __future__ import annotations

from typing import Any

from infini_eval.reports.insights import advice, errors_json, trends_json
from infini_eval.reports.model_facts import PASSKEY, ModelFacts
from infini_eval.reports.numbers import number
from infini_eval.reports.statistics.depth_labels import label_warning
from infini_eval.reports.statistics.failures import Bounds, Cell, Counted, bounds, cells
from infini_eval.reports.statistics.intervals import Average, Proportion
from infini_eval.reports.statistics.phases import phase_groups, phase_warning
from infini_eval.reports.statistics.scored import Scored
from infini_eval.reports.statistics.segments import by_compressions, segment_groups
from infini_eval.reports.statistics.verdicts import LEAST_A_DEPTH, headline, performance, verdict
from infini_eval.results.reader import RunRecords


def block(records: RunRecords, counted: Counted, length: float | None, facts: ModelFacts) -> dict[str, Any]:
    """The keys of formats/results.md and ours, for these samples; percentages are 0..100, intervals 95 %."""
    scored = counted.scored
    depths, rounded = cells(counted)
    found = bounds(counted)
    stats = _summary_stats(depths, found)
    tokens = _tokens(scored)
    segments = facts.segments(length or (tokens["median"] if tokens else None))
    phases = phase_groups(scored)
    warnings = [label_warning(records, counted.everything.row), phase_warning(phases)]
    made: dict[str, Any] = {
        "model": facts.name,
        "context_length": int(length) if length is not None else None,
        "total_samples": len(scored),
        "failed": counted.failed,
        "expected_segments": number(segments),
        "prompt_tokens": tokens,
        "results_by_depth": [_cell_json(cell) for cell in depths],
        "depths_rounded_to_5_percent": rounded,
        "summary_stats": stats,
        "segment_analysis": _segment_analysis(scored),
        "phase_analysis": _phase_analysis(phases),
        **_judged(found.claim, counted, stats["std_dev"], len(depths), segments, length, facts),
        "errors": errors_json(records, scored),
        "trends": trends_json(scored),
        "warnings": [warning for warning in warnings if warning],
    }
    return {**made, "advice": advice(made, facts.memory)}


def _judged(
    claim: Average, counted: Counted, std_dev: float | None, depths: int, segments: float | None,
    length: float | None, facts: ModelFacts,
) -> dict[str, Any]:  # fmt: skip
    """Headline and both verdicts, of what holds however the failed samples would have been answered."""
    spread_known = depths > 1 and len(counted.scored) >= LEAST_A_DEPTH * depths
    judged = performance(
        100 * claim.value, std_dev if spread_known else None, segments,
        interval=(100 * claim.low, 100 * claim.high), has_segments=facts.has_segments is not False,
    )  # fmt: skip
    fixed = verdict(claim, length if facts.task == PASSKEY else None)
    return {
        "headline": headline(fixed, claim.clusters, counted.failed),
        "performance": judged.to_json(),
        "verdict": fixed,
    }


def proportion_json(found: Proportion) -> dict[str, Any]:
    """{accuracy, num_samples, correct, ci_low, ci_high}; accuracy and interval are null without samples."""
    low, high = (100 * bound for bound in found.interval)
    accuracy = None if found.accuracy is None else 100 * found.accuracy
    return {
        "accuracy": number(accuracy), "num_samples": found.n, "correct": number(found.correct),
        "ci_low": number(low) if found.n else None, "ci_high": number(high) if found.n else None,
    }  # fmt: skip


def _average_json(average: Average | None) -> dict[str, Any]:
    """An average's interval in percent, and how it was made; null where nothing was answered."""
    if average is None:
        return {
            "average_ci_low": None,
            "average_ci_high": None,
            "ci_method": "no sample was answered",
            "haystacks": None,
        }
    return {
        "average_ci_low": number(100 * average.low), "average_ci_high": number(100 * average.high),
        "ci_method": average.method, "haystacks": average.clusters,
    }  # fmt: skip


def _cell_json(cell: Cell) -> dict[str, Any]:
    return {
        "depth_percent": number(cell.depth_percent), **proportion_json(cell.answered),
        "failed": cell.failed, "accuracy_failed_as_wrong": number(100 * cell.accuracy_failed_as_wrong),
    }  # fmt: skip


def _summary_stats(depths: list[Cell], found: Bounds) -> dict[str, Any]:
    """Average and population standard deviation over depths with answers; the first depth wins among equals.

    `bound_low` and `bound_high` are the interval that holds however failed samples would have been answered.
    """
    import numpy as np

    measured = [
        (100 * cell.answered.accuracy, cell.depth_percent) for cell in depths if cell.answered.accuracy is not None
    ]
    worst = min(measured, key=lambda item: item[0], default=(None, None))
    best = max(measured, key=lambda item: item[0], default=(None, None))
    accuracies = [accuracy for accuracy, _ in measured]
    return {
        "average_accuracy": number(float(np.mean(accuracies))) if measured else None,
        "std_dev": number(float(np.std(accuracies))) if measured else None,
        "min_accuracy": number(worst[0]), "max_accuracy": number(best[0]),
        "min_depth": number(worst[1]), "max_depth": number(best[1]),
        **_average_json(found.answered),
        "average_failed_as_wrong": number(100 * found.as_wrong.value),
        "average_failed_as_right": number(100 * found.as_right.value),
        "bound_low": number(100 * found.claim.low), "bound_high": number(100 * found.claim.high),
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
