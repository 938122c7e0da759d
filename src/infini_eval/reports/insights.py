"""The part of a summary that explains: error kinds, trends, effective length, and advice that the data support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infini_eval.reports.numbers import number
from infini_eval.reports.statistics.effective_length import SOURCE, EffectiveLength, effective_length
from infini_eval.reports.statistics.error_kinds import KINDS, ErrorBreakdown, breakdown
from infini_eval.reports.statistics.intervals import Average
from infini_eval.reports.statistics.scored import Scored, depth_groups
from infini_eval.reports.statistics.trends import Trend, logistic_trend
from infini_eval.results.reader import RunRecords

MAX_CLASSIFIED = 20_000
_COLUMNS = ("answer", "generation_text", "excerpt", "finish_reason", "number_from")


def errors_json(records: RunRecords, scored: Scored) -> dict[str, Any]:
    """Kinds of wrong answers, in all and by depth; of more than 20,000 an even selection is looked at."""
    import numpy as np

    depths, group, _ = depth_groups(scored)
    wrong = np.flatnonzero(scored.correct < 1)
    chosen = wrong[np.linspace(0, len(wrong) - 1, MAX_CLASSIFIED).astype(int)] if len(wrong) > MAX_CLASSIFIED else wrong
    texts = [records.texts(name, scored.row[chosen]) for name in _COLUMNS]
    by_depth: dict[int, list[Any]] = {}
    for depth, *sample in zip(group[chosen].tolist(), *texts, strict=True):
        by_depth.setdefault(depth, []).append(sample)
    found = {depth: breakdown(samples) for depth, samples in sorted(by_depth.items())}
    total = sum(found.values(), breakdown([]))
    return {
        "wrong": len(wrong),
        "looked_at": total.looked_at,
        "kinds": _kinds(total),
        "first_wrong_digit": {str(place): count for place, count in sorted(total.first_wrong_digit.items())},
        "cut_short_by_max_new_tokens": total.cut_by_limit,
        "by_depth": [{"depth_percent": number(depths[depth]), "kinds": _kinds(part)} for depth, part in found.items()],
    }


def _kinds(found: ErrorBreakdown) -> dict[str, int]:
    return {kind: found.kinds[kind] for kind in KINDS if found.kinds[kind]}


def trends_json(scored: Scored) -> dict[str, Any]:
    """Trends over depth (a unit is 10 points), length (a doubling), compressions (a doubling of 1 + compressions)."""
    import numpy as np

    axes = {
        "depth": (scored.depth / 10, "10 percent points of depth"),
        "length": (np.log2(np.maximum(scored.length, 1)), "doubling of the context"),
        "compressions": (np.log2(1 + scored.compressions), "doubling of 1 + compressions"),
    }
    found = {}
    for name, (x, unit) in axes.items():
        known = ~np.isnan(x)
        part = scored.where(known)
        found[name] = {"per": unit, **_trend_json(logistic_trend(x[known], part.correct, part.cluster), name)}
    return found


def _trend_json(trend: Trend, name: str) -> dict[str, Any]:
    back = {"depth": lambda x: 10 * x, "length": lambda x: 2**x, "compressions": lambda x: 2**x - 1}[name]
    return {
        "direction": trend.direction,
        "odds_ratio": number(trend.odds_ratio),
        "ci_low": number(trend.low),
        "ci_high": number(trend.high),
        "reason": trend.reason,
        "haystacks": trend.clusters,
        "curve": [
            dict(zip(("x", "accuracy", "ci_low", "ci_high"), (number(back(x), 3), *shares), strict=True))
            for x, *fractions in trend.curve
            for shares in [[number(100 * fraction, 3) for fraction in fractions]]
        ],
    }


def effective_json(
    averages: Sequence[tuple[int, Average, int]], failed: Mapping[int, int], of: str
) -> dict[str, Any] | None:
    """Effective context length by the fixed bar and relative to the shortest length, from (length, average, samples).

    `failed` counts the failed samples of each length, for which `averages` hold the bounds; `of` says what was averaged.
    """
    if not averages:
        return None
    fixed = effective_length(averages)
    relative = effective_length(averages, None) if len(averages) > 1 else None
    reason = "a single length" if len(averages) == 1 else "the shortest length itself is below the fixed bar"
    return {
        "name": f"effective context length of {of}",
        "source": SOURCE,
        "fixed": fixed and _effective(fixed, failed),
        "relative": relative and _effective(relative, failed),
        "no_relative_because": None if relative else reason,
    }


def _effective(found: EffectiveLength, failed: Mapping[int, int]) -> dict[str, Any]:
    """Where samples failed, no number of further samples decides, but the answers that are missing."""
    undecided = [
        {"context_length": length, "samples_needed": None if failed.get(length) else n, "failed": failed.get(length, 0)}
        for length, n in found.undecided
    ]
    return {
        "threshold": number(100 * found.threshold, 3),
        "estimate": found.estimate,
        "at_least": found.at_least,
        "below": found.below,
        "undecided": undecided,
    }


def advice(block: Mapping[str, Any], memory: str | None) -> list[str]:
    """Lines of the guide's troubleshooting, each only where this block's evidence fits it."""
    segments, phases, errors = block["segment_analysis"], block["phase_analysis"], block["errors"]
    here = " (on this haystack only)" if block["summary_stats"]["haystacks"] == 1 else ""
    lines = []
    if memory in (None, "on") and _clearly_below(segments["cross_segment_ci"], segments["within_segment_ci"]):
        lines.append(
            f"needles in earlier segments are found less often than those in the question's own{here}: the memory is the "
            "weak part; look at the gates, and compare with --memory ablate; in training, balance_factor_lr is the first "
            "setting to vary (0.001, 0.1)"
        )
    if phases and _clearly_below(*(_ci(phases[key]) for key in ("answer_crosses_border", "answer_inside_segment"))):
        lines.append(
            f"answers that run over a segment border are worse{here}: a limit of this model class, not of its memory; "
            "measure with jittered phase before judging"
        )
    wrong = max(1, errors["looked_at"])
    silent = errors["kinds"].get("empty", 0) + errors["kinds"].get("no_number", 0)
    if errors["looked_at"] >= 10 and silent > wrong / 2:
        lines.append("most wrong answers hold no number at all: check that the tokenizer is the one of the training")
    if errors["cut_short_by_max_new_tokens"] > wrong / 10:
        lines.append("answers end where max_new_tokens ends: raise --max-new-tokens")
    return lines


def _ci(cell: Mapping[str, Any]) -> list[float | None]:
    return [cell["ci_low"], cell["ci_high"]]


def _clearly_below(one: Sequence[float | None], other: Sequence[float | None]) -> bool:
    """Whether the whole first interval lies below the second; False where either is unknown."""
    return one[1] is not None and other[0] is not None and one[1] < other[0]
