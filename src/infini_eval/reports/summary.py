"""From a run's records to its typed summary: each context length, all together, and what explains them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.api import registry
from infini_eval.api.report import report
from infini_eval.errors import DataError
from infini_eval.records import Sample
from infini_eval.reports.model import (
    Cell,
    CompressionCell,
    CurvePoint,
    DepthErrors,
    DepthRun,
    Disagreement,
    EffectiveBar,
    EffectiveContext,
    Errors,
    Failure,
    LengthSummary,
    Number,
    OpenLength,
    PhaseAnalysis,
    PromptTokens,
    Provenance,
    SegmentAnalysis,
    Share,
    Summary,
    SummaryStats,
    Trends,
    TrendSummary,
    WorstLengths,
    number,
    rounded,
    to_text,
)
from infini_eval.reports.model_facts import DEFAULT_SCORER, PASSKEY, ModelFacts, model_facts, one_line, timing
from infini_eval.reports.statistics.failures import (
    KINDS,
    Bounds,
    Counted,
    DepthCell,
    ErrorBreakdown,
    bounds,
    breakdown,
    cells,
)
from infini_eval.reports.statistics.intervals import Average, Proportion
from infini_eval.reports.statistics.samples import (
    PhaseGroups,
    Scored,
    by_compressions,
    depth_groups,
    label_warning,
    phase_groups,
    phase_warning,
    scored_samples,
    segment_groups,
)
from infini_eval.reports.statistics.trends import Trend, logistic_trend
from infini_eval.reports.statistics.verdicts import (
    LEAST_A_DEPTH,
    SOURCE,
    WORST_FIRST,
    EffectiveLength,
    effective_length,
    headline,
    long_context_verdict,
    performance,
    verdict,
)
from infini_eval.results.files import write_atomically
from infini_eval.results.reader import RunRecords, from_floats

if TYPE_CHECKING:
    import numpy as np

NAME = "summary.json"
BESIDE = "chat_digits"  # what else is judged here, so that the report can say where the two disagree
MAX_CLASSIFIED = 20_000
_COLUMNS = ("answer", "generation_text", "excerpt", "finish_reason", "number_from")
_JUDGEMENTS = ("performance", "verdict", "headline")


@report("summary", when="always")
def summary_report(run: DepthRun, folder: Path) -> list[Path]:
    """Write summary.json into `folder`; returns what was written."""
    write_atomically(folder / NAME, to_text(run.summary).encode())
    return [folder / NAME]


def summarise(records: RunRecords, scored: Scored) -> Summary:
    """The summary of one run: its one length, or all lengths together (context_length None) and each by itself."""
    facts = model_facts(records.manifest)
    counted = Counted(scored, scored_samples(with_failures_as_wrong(records)))
    blocks = [length_summary(records, part, length, facts) for length, part in counted.by_length().items()]
    several = len(blocks) > 1
    together, worst = _together(records, blocks, counted, facts) if several else (blocks[0], None)
    averages: dict[float, Average] = {
        block.context_length: claim_of(block.summary_stats) for block in blocks if block.context_length
    }
    failed = len(records) - len(scored)
    return Summary(
        **vars(together),
        worst=worst,
        long_context=long_context_verdict(averages) if several and facts.task == PASSKEY else None,
        by_context_length=tuple(blocks),
        effective_context_length=effective_of(blocks, f"this task ({facts.task})"),
        failed_samples=failed,
        failures=_failures(records, scored) if failed else (),
        samples_planned=records.planned,
        complete=None if records.planned is None else len(records) >= records.planned,
        segment_length=facts.segment_length,
        scorer=facts.scorer,
        other_scores=_other_scores(records, scored),
        scorer_disagreements=_disagreements(records, scored),
        timing=timing(records),
        notes=tuple(records.notes),
        run=_provenance(records),
    )


def length_summary(records: RunRecords, counted: Counted, length: float | None, facts: ModelFacts) -> LengthSummary:
    """Everything that is said of these samples: those of one length, or of all (None)."""
    scored = counted.scored
    depths, depths_rounded = cells(counted)
    bound = bounds(counted)
    stats = _summary_stats(depths, bound)
    tokens = _tokens(scored)
    segments = facts.segments(length or (tokens.median if tokens else None))
    phases = phase_groups(scored)
    warnings = (label_warning(records, counted.everything.row), phase_warning(phases))
    fixed = verdict(bound.claim, length if facts.task == PASSKEY else None)
    spread_known = len(depths) > 1 and len(scored) >= LEAST_A_DEPTH * len(depths)
    summary = LengthSummary(
        model=facts.name,
        context_length=int(length) if length is not None else None,
        total_samples=len(scored),
        failed=counted.failed,
        expected_segments=number(segments),
        prompt_tokens=tokens,
        results_by_depth=tuple(_cell(cell) for cell in depths),
        depths_rounded_to_5_percent=depths_rounded,
        summary_stats=stats,
        segment_analysis=_segment_analysis(scored),
        phase_analysis=_phase_analysis(phases),
        headline=headline(fixed, bound.claim.clusters, counted.failed),
        performance=performance(
            100 * bound.claim.value,
            stats.std_dev if spread_known else None,
            segments,
            interval=(100 * bound.claim.low, 100 * bound.claim.high),
            has_segments=facts.has_segments is not False,
        ),
        verdict=fixed,
        errors=_errors(records, scored),
        trends=_trends(scored),
        warnings=tuple(warning for warning in warnings if warning),
        advice=(),
    )
    return replace(summary, advice=tuple(advice(summary, facts.memory)))


def claim_of(stats: Any) -> Average:
    """An average as fractions, as it holds however its failed samples would have been answered.

    stats: what has `average_failed_as_wrong`, the bounds, `ci_method` and `haystacks`: SummaryStats or TasksStats.
    """
    value, low, high = (percent / 100 for percent in (stats.average_failed_as_wrong, stats.bound_low, stats.bound_high))
    return Average(value, low, high, stats.ci_method, stats.haystacks)


def effective_of(blocks: Sequence[Any], of: str) -> EffectiveContext | None:
    """The effective context length from the summaries with a labelled length, ascending; `of` says what was averaged."""
    labelled = [block for block in blocks if block.context_length]
    averages = [(block.context_length, claim_of(block.summary_stats), block.total_samples) for block in labelled]
    if not averages:
        return None
    failed = {block.context_length: block.failed for block in labelled}
    fixed = effective_length(averages)
    relative = effective_length(averages, None) if len(averages) > 1 else None
    # what one haystack shows says nothing about others, whatever the number of samples
    where = ", on this haystack only" if any(average.clusters == 1 for _, average, _ in averages) else ""
    reason = "a single length" if len(averages) == 1 else "the shortest length itself is below the fixed bar"
    return EffectiveContext(
        name=f"effective context length of {of}{where}",
        source=SOURCE,
        fixed=_bar(fixed, failed) if fixed else None,
        relative=_bar(relative, failed) if relative else None,
        no_relative_because=None if relative else reason,
    )


def _bar(length: EffectiveLength, failed: Mapping[int, int]) -> EffectiveBar:
    """Where samples failed, no number of further samples decides, but the answers that are missing."""
    undecided = tuple(
        OpenLength(tokens, None if failed.get(tokens) else needed, failed.get(tokens, 0))
        for tokens, needed in length.undecided
    )
    return EffectiveBar(rounded(100 * length.threshold, 3), length.estimate, length.at_least, length.below, undecided)


def _together(
    records: RunRecords, blocks: Sequence[LengthSummary], counted: Counted, facts: ModelFacts
) -> tuple[LengthSummary, WorstLengths]:
    """All lengths together; headline, performance and verdict are those of the worst length, which they name."""
    together = length_summary(records, counted, None, facts)
    worst = {judgement: _worst(blocks, judgement) for judgement in _JUDGEMENTS}
    slowest = worst["performance"]
    message = (
        f"{slowest.performance.message} (worst of {len(blocks)} lengths: {slowest.context_length or 'unlabelled'})"
    )
    older = replace(slowest.performance, message=message, consistency=together.performance.consistency)
    lengths = WorstLengths(**{judgement: block.context_length for judgement, block in worst.items()})
    return (
        replace(together, performance=older, verdict=worst["verdict"].verdict, headline=worst["headline"].headline),
        lengths,
    )


def _worst(blocks: Sequence[LengthSummary], judgement: str) -> LengthSummary:
    """The length of the worst category, of several the one of the lowest average."""

    def badness(block: LengthSummary) -> tuple[int, float]:
        category = getattr(block, judgement).category
        return WORST_FIRST.index(category), block.summary_stats.average_failed_as_wrong

    return min(blocks, key=badness)


def _share(group: Proportion) -> Share:
    low, high = (100 * bound for bound in group.interval)
    accuracy = None if group.accuracy is None else 100 * group.accuracy
    return Share(
        accuracy=number(accuracy), num_samples=group.n, correct=rounded(group.correct),
        ci_low=number(low) if group.n else None, ci_high=number(high) if group.n else None,
    )  # fmt: skip


def _cell(cell: DepthCell) -> Cell:
    return Cell(
        **vars(_share(cell.answered)),
        depth_percent=rounded(cell.depth_percent),
        failed=cell.failed,
        accuracy_failed_as_wrong=rounded(100 * cell.accuracy_failed_as_wrong),
    )


def _summary_stats(depths: Sequence[DepthCell], bound: Bounds) -> SummaryStats:
    """Average and population standard deviation over depths with answers; the first depth wins among equals."""
    import numpy as np

    measured = [
        (100 * cell.answered.accuracy, cell.depth_percent) for cell in depths if cell.answered.accuracy is not None
    ]
    worst = min(measured, key=lambda item: item[0], default=(None, None))
    best = max(measured, key=lambda item: item[0], default=(None, None))
    accuracies = [accuracy for accuracy, _ in measured]
    answered = bound.answered
    return SummaryStats(
        average_accuracy=number(float(np.mean(accuracies))) if measured else None,
        std_dev=number(float(np.std(accuracies))) if measured else None,
        min_accuracy=number(worst[0]),
        max_accuracy=number(best[0]),
        min_depth=number(worst[1]),
        max_depth=number(best[1]),
        average_ci_low=number(100 * answered.low) if answered else None,
        average_ci_high=number(100 * answered.high) if answered else None,
        ci_method=answered.method if answered else "no sample was answered",
        haystacks=answered.clusters if answered else None,
        average_failed_as_wrong=rounded(100 * bound.as_wrong.value),
        average_failed_as_right=rounded(100 * bound.as_right.value),
        bound_low=rounded(100 * bound.claim.low),
        bound_high=rounded(100 * bound.claim.high),
    )


def _tokens(scored: Scored) -> PromptTokens | None:
    """The real prompt lengths, counted with the model's tokenizer; None where nobody counted (recorded as 0)."""
    import numpy as np

    known = scored.tokens[scored.tokens > 0]
    if not len(known):
        return None
    return PromptTokens(rounded(known.min()), rounded(float(np.median(known))), rounded(known.max()))


def _segment_analysis(scored: Scored) -> SegmentAnalysis:
    groups = segment_groups(scored)
    return SegmentAnalysis(
        within_segment=_share(groups.within),
        cross_segment=_share(groups.cross),
        straddling=_share(groups.straddling),
        unknown_count=groups.unknown.n,
        by_compressions=tuple(
            CompressionCell(**vars(_share(group)), first=first, last=last)
            for first, last, group in by_compressions(scored)
        ),
    )


def _phase_analysis(phases: PhaseGroups | None) -> PhaseAnalysis | None:
    if phases is None:
        return None
    return PhaseAnalysis(
        answer_inside_segment=_share(phases.inside),
        answer_crosses_border=_share(phases.crossing),
        distinct_phases=phases.phases,
        only_phase=phases.only_phase,
        cells=phases.cells,
        cells_of_one_phase=phases.fixed_cells,
    )


def _errors(records: RunRecords, scored: Scored) -> Errors:
    """Kinds of wrong answers, in all and by depth; of more than 20,000 an even selection is looked at."""
    import numpy as np

    depths, group, _ = depth_groups(scored)
    wrong = np.flatnonzero(scored.correct < 1)
    chosen = wrong[np.linspace(0, len(wrong) - 1, MAX_CLASSIFIED).astype(int)] if len(wrong) > MAX_CLASSIFIED else wrong
    texts = [records.texts(name, scored.row[chosen]) for name in _COLUMNS]
    by_depth: dict[int, list[Any]] = {}
    for depth, *sample in zip(group[chosen].tolist(), *texts, strict=True):
        by_depth.setdefault(depth, []).append(sample)
    parts = {depth: breakdown(samples) for depth, samples in sorted(by_depth.items())}
    total = sum(parts.values(), breakdown([]))
    return Errors(
        wrong=len(wrong),
        looked_at=total.looked_at,
        kinds=_kinds(total),
        first_wrong_digit={str(place): count for place, count in sorted(total.first_wrong_digit.items())},
        cut_short_by_max_new_tokens=total.cut_by_limit,
        by_depth=tuple(DepthErrors(rounded(depths[depth]), _kinds(part)) for depth, part in parts.items()),
    )


def _kinds(part: ErrorBreakdown) -> dict[str, int]:
    return {kind: part.kinds[kind] for kind in KINDS if part.kinds[kind]}


def _trends(scored: Scored) -> Trends:
    """Trends over depth (a unit is 10 points), length (a doubling), compressions (a doubling of 1 + compressions)."""
    import numpy as np

    axes = {
        "depth": (scored.depth / 10, "10 percent points of depth"),
        "length": (np.log2(np.maximum(scored.length, 1)), "doubling of the context"),
        "compressions": (np.log2(1 + scored.compressions), "doubling of 1 + compressions"),
    }
    fitted = {}
    for axis, (x, unit) in axes.items():
        known = ~np.isnan(x)
        part = scored.where(known)
        fitted[axis] = _trend(logistic_trend(x[known], part.correct, part.cluster), axis, unit)
    return Trends(**fitted)


def _trend(trend: Trend, axis: str, unit: str) -> TrendSummary:
    scales: dict[str, Callable[[float], float]] = {
        "depth": lambda x: 10 * x,
        "length": lambda x: 2**x,
        "compressions": lambda x: 2**x - 1,
    }
    back = scales[axis]
    return TrendSummary(
        per=unit,
        direction=trend.direction,
        odds_ratio=number(trend.odds_ratio),
        ci_low=number(trend.low),
        ci_high=number(trend.high),
        reason=trend.reason,
        haystacks=trend.clusters,
        curve=tuple(
            CurvePoint(rounded(back(x), 3), *(rounded(100 * fraction, 3) for fraction in fractions))
            for x, *fractions in trend.curve
        ),
    )


def advice(block: LengthSummary, memory: str | None) -> list[str]:
    """What to try next, each line only where the evidence fits it."""
    segments, phases, errors = block.segment_analysis, block.phase_analysis, block.errors
    here = " (on this haystack only)" if block.summary_stats.haystacks == 1 else ""
    lines = []
    if memory in (None, "on") and _clearly_below(segments.cross_segment, segments.within_segment):
        lines.append(
            f"needles in earlier segments are found less often than those in the question's own{here}: the memory is the "
            "weak part; look at the gates, and compare with --memory ablate; in training, balance_factor_lr is the first "
            "setting to vary (0.001, 0.1)"
        )
    if phases and _clearly_below(phases.answer_crosses_border, phases.answer_inside_segment):
        lines.append(
            f"answers that run over a segment border are worse{here}: a limit of this model class, not of its memory; "
            "measure with jittered phase before judging"
        )
    wrong = max(1, errors.looked_at)
    silent = errors.kinds.get("empty", 0) + errors.kinds.get("no_number", 0)
    if errors.looked_at >= 10 and silent > wrong / 2:
        lines.append("most wrong answers hold no number at all: check that the tokenizer is the one of the training")
    if errors.cut_short_by_max_new_tokens > wrong / 10:
        lines.append("answers end where max_new_tokens ends: raise --max-new-tokens")
    return lines


def _clearly_below(one: Share, other: Share) -> bool:
    """Whether the whole first interval lies below the second; False where either is unknown."""
    return one.ci_high is not None and other.ci_low is not None and one.ci_high < other.ci_low


def _failures(records: RunRecords, scored: Scored) -> tuple[Failure, ...]:
    """Why samples failed, the most frequent reasons first."""
    import numpy as np

    rows = np.setdiff1d(np.arange(len(records)), scored.row)
    reasons = Counter(one_line(reason or "no answer stored") for reason in records.texts("error", rows))
    return tuple(Failure(reason, count) for reason, count in reasons.most_common(10))


def _other_scores(records: RunRecords, scored: Scored) -> dict[str, Number | None]:
    """The average of every stored scorer's judgement, in percent over samples."""
    import numpy as np

    averages = {}
    for name in sorted(records.present & set(records.scorers)):
        scores = records.number(name)[scored.row]
        scores = scores[~np.isnan(scores)]
        averages[name] = number(100 * float(scores.mean())) if len(scores) else None
    return averages


def _disagreements(records: RunRecords, scored: Scored) -> dict[str, Disagreement]:
    """For every other stored scorer: how many answers only the judging scorer passes, and how many only the other."""
    import numpy as np

    main = (model_facts(records.manifest).scorer or DEFAULT_SCORER).partition(":")[0]
    counts = {}
    for name in sorted((records.present & set(records.scorers)) - {main}):
        other = records.number(name)[scored.row]
        known = ~np.isnan(other)
        passed, other_passed = scored.correct[known] >= 1, other[known] >= 1
        counts[name] = Disagreement(
            compared=int(known.sum()),
            only_main=int((passed & ~other_passed).sum()),
            only_other=int((~passed & other_passed).sum()),
        )
    return counts


def _provenance(records: RunRecords) -> Provenance:
    manifest = records.manifest or {}
    files = tuple(path.name for path in records.sources)
    parts = (manifest.get(name) for name in ("identity", "model", "environment"))
    return Provenance(records.folder.name, files, *parts)


def with_scores(records: RunRecords) -> RunRecords:
    """The records with `correct` filled; unchanged where scores are stored. Failed samples keep none.

    Records that come without scores (another tool's answers) are judged here by exact_digits.
    """
    if "correct" in records.present:
        _check_range(records)
        return records
    note = f"no scores are stored; answers were judged by {DEFAULT_SCORER}"
    scored = records.replace(correct=from_floats(_judge(records, DEFAULT_SCORER)))
    if BESIDE in records.table.column_names:
        scored = scored.replace(**{BESIDE: from_floats(_judge(records, BESIDE))})
    return replace(scored, notes=(*scored.notes, note))


def with_failures_as_wrong(records: RunRecords) -> RunRecords:
    """The records with failed samples counted as wrong answers (`--failed-as-wrong`), which a note says."""
    import numpy as np

    scores = records.number("correct")
    failed = np.isnan(scores)
    if not failed.any():
        return records
    counted = records.replace(correct=from_floats(np.where(failed, 0.0, scores)))
    note = f"{int(failed.sum())} failed sample(s) are counted as wrong (--failed-as-wrong)"
    return replace(counted, notes=(*counted.notes, note))


def _check_range(records: RunRecords) -> None:
    import numpy as np

    scores = records.number("correct")
    outside = np.flatnonzero((scores < 0) | (scores > 1))
    if len(outside):
        raise DataError(
            f"{records.folder}: column 'correct' holds {scores[outside[0]]:g} ({len(outside)} record(s) outside 0..1)",
            valid="scores from 0 (wrong) to 1 (right); or no such column, then answers are judged here",
        )


def _judge(records: RunRecords, scorer: str) -> np.ndarray:
    """Scores float64 [rows], NaN where there is no answer to judge."""
    import numpy as np

    score = registry.scorer(scorer)
    everything = np.arange(len(records))
    scores = np.full(len(records), np.nan)
    generations, answers = records.texts("generation_text", everything), records.texts("answer", everything)
    for place, (generation, answer) in enumerate(zip(generations, answers, strict=True)):
        if generation is not None and answer is not None:
            scores[place] = score(generation, Sample("", "", answer, 0)).value
    return scores
