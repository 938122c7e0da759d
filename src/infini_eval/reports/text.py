"""The text report: one bar a depth with n and its 95 % interval, statistics, and verdicts with their rules.

Its sentences are the page's too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infini_eval.api.report import report
from infini_eval.reports.model import (
    Cell,
    DepthRun,
    EffectiveBar,
    EffectiveContext,
    Errors,
    LengthSummary,
    OpenLength,
    Share,
    Summary,
    SummaryStats,
    Trends,
    TrendSummary,
)
from infini_eval.reports.model_facts import (
    DEFAULT_SCORER,
    PASSKEY,
    UNKNOWN,
    facts_of,
    has_segments,
    memory_words,
    task_of,
    timing_line,
)
from infini_eval.reports.statistics.failures import KINDS
from infini_eval.reports.statistics.verdicts import SYMBOLS, UNDECIDED, Headline
from infini_eval.results.files import write_atomically

_ASCII = str.maketrans({"█": "#", "✓": "+", "⚠": "!", "✗": "x", "—": "-", "≥": ">=", "≤": "<="})


def terminal_shows_bars() -> bool:
    """Whether standard output can show the bars and marks; if not, ask for ASCII."""
    if os.environ.get("TERM") == "dumb":
        return False
    try:
        "█✓⚠✗".encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def plain_text(text: str, ascii_only: bool) -> str:
    """The text without control characters (they may come from foreign files), and as ASCII where asked."""
    unseen = {ord(c): " " for c in set(text) if not c.isprintable() and c != "\n"}
    text = text.translate(unseen) if unseen else text
    return text.translate(_ASCII).encode("ascii", "replace").decode() if ascii_only else text


NEEDLE_PLACES = {
    "needle in the question's segment": "within_segment", "needle in an earlier segment": "cross_segment",
    "needle on a segment border": "straddling",
}  # fmt: skip
ANSWER_PLACES = {
    "answer inside one segment": "answer_inside_segment", "answer runs over a border": "answer_crosses_border",
}  # fmt: skip
_RELATIVE = "0.85 x the shortest length's accuracy, {:.1f} %"
_AXES = {"depth": "depth", "length": "context length", "compressions": "compressions survived"}


def wrong_answer_lines(errors: Errors) -> list[str]:
    """One line a kind of wrong answer, the most frequent first."""
    lines = []
    for kind, count in sorted(errors.kinds.items(), key=lambda item: -item[1]):
        more = ""
        if kind == "wrong_digits":
            places = ", ".join(f"{place}: {n}" for place, n in errors.first_wrong_digit.items())
            more = f" (first wrong digit at {places})"
        if kind == "cut_short" and errors.cut_short_by_max_new_tokens:
            more = f" ({errors.cut_short_by_max_new_tokens} ended by max_new_tokens)"
        lines.append(f"{count:>6}  {KINDS[kind]}{more}")
    if errors.looked_at < errors.wrong:
        lines.append(f"        (an even selection of {errors.looked_at} of {errors.wrong} was looked at)")
    return lines


def trend_lines(trends: Trends, axes: tuple[str, ...]) -> list[str]:
    """A line for each axis along which accuracy clearly changes, or clearly could be said not to."""
    lines = []
    for axis in axes:
        trend: TrendSummary = getattr(trends, axis)
        if trend.direction is None:
            if trend.reason and trend.reason.startswith("right and wrong"):
                lines.append(f"{_AXES[axis]}: {trend.reason}")
            continue
        odds = f"odds x {trend.odds_ratio:.3g} [{trend.ci_low:.3g}, {trend.ci_high:.3g}] per {trend.per}"
        word = trend.direction if trend.direction == "no clear trend" else f"accuracy {trend.direction}"
        where = "; on this haystack only" if trend.haystacks == 1 else ""
        lines.append(f"{_AXES[axis]}: {word} ({odds}{where})")
    return lines


def effective_lines(effective: EffectiveContext) -> list[str]:
    """The effective context length under both bars, with what is not yet decided and what would decide it."""
    lines = []
    rules = ((effective.fixed, f"bar of {{:.1f}} %; {effective.source}"), (effective.relative, _RELATIVE))
    for bar, rule in rules:
        if bar is not None:
            lines.append(f"{effective_sentence(bar)} ({rule.format(bar.threshold)})")
            lines += [f"  {open_.context_length} tokens: undecided; {_decided_by(open_)}" for open_ in bar.undecided]
    if effective.relative is None:
        lines.append(f"none relative to the shortest length: {effective.no_relative_because}")
    return lines


def _decided_by(length: OpenLength) -> str:
    if length.failed:
        return f"{_samples(length.failed)} to be answered first"
    if length.samples_needed:
        return f"about {length.samples_needed} samples would decide it"
    return "too close to the bar for any number of samples"


def _samples(failed: int) -> str:
    return "1 failed sample has" if failed == 1 else f"{failed} failed samples have"


def counts_words(block: Any) -> str:
    """ "n=105, 105 failed: 50.00% with them wrong", of a LengthSummary or of the average over tasks."""
    bound = block.summary_stats.average_failed_as_wrong
    failed = f", {block.failed} failed: {bound:.2f}% with them wrong" if block.failed else ""
    return f"n={block.total_samples}{failed}"


def answered_only(block: LengthSummary) -> str:
    """What to add to the title of numbers that failed samples could change."""
    return f" (answered samples only; {block.failed} failed)" if block.failed else ""


def older_rule(block: LengthSummary) -> str:
    """The older rule's verdict in small print: it judges by another bar, and may disagree with the headline."""
    judged = block.performance
    message = "" if judged.category == UNDECIDED else f", {judged.message}"
    return f"older rule, {judged.rule}: {judged.category}{message}"


def consistency_word(block: LengthSummary) -> str | None:
    """ "CONSISTENT", or None where that was not measured or nothing else is known either."""
    spread = block.performance.consistency
    return None if spread == "UNKNOWN" or block.headline.category == UNDECIDED else spread


def effective_sentence(bar: EffectiveBar) -> str:
    """ "at least 4096, below 16384 tokens at 95 %"."""
    parts = [f"at least {bar.at_least}"] if bar.at_least else []
    parts += [f"below {bar.below}"] if bar.below else []
    return f"{', '.join(parts)} tokens at 95 %" if parts else "undecided at 95 %"


def disagreement_lines(summary: Summary) -> list[str]:
    """Where another stored scorer judges answers otherwise than the one that counts: how many, and which way."""
    scores, main = summary.other_scores, summary.scorer or DEFAULT_SCORER
    lines = []
    for name, counts in summary.scorer_disagreements.items():
        differ = counts.only_main + counts.only_other
        if differ:
            lines.append(
                f"{main} and {name} disagree on {differ} of {counts.compared} answers: {counts.only_other} pass "
                f"{name} only, {counts.only_main} pass {main} only ({name} gives {scores[name]:.2f}% over all samples)"
            )
    return lines


NAME = "report.txt"
WIDTH = 70
BAR = 32
GRID_COLUMN = 5  # characters
_MEMORY = {"off": "memory off", "ablate": "memory ablated"}
FAILED = "neither right nor wrong in accuracies; every verdict holds whatever they would have been"
_TASKS = {"passkey": "PASSKEY RETRIEVAL", "needle": "NEEDLE RETRIEVAL", "niah": "NEEDLE RETRIEVAL"}


@report("text", when="always")
def text_report(run: DepthRun, folder: Path) -> list[Path]:
    """Write report.txt into `folder`; returns what was written."""
    write_atomically(folder / NAME, (run.text + "\n").encode("utf-8", "replace"))
    return [folder / NAME]


def render(summary: Summary, *, ascii_only: bool = False) -> str:
    """The whole report of one run from its summary, without a final newline."""
    blocks = summary.by_context_length
    lines = [*_title(summary), *_header(summary, blocks)]
    passkey, segments = task_of(summary) == PASSKEY, has_segments(summary)
    for block in blocks:
        lines += _block(block, several=len(blocks) > 1, passkey=passkey, has_segments=segments)
    if len(blocks) > 1:
        lines += _all_lengths(summary, blocks)
    lines += _notes(summary, blocks)
    return plain_text("\n".join(lines), ascii_only)


def render_overview(summary: Summary, *, ascii_only: bool = False) -> str:
    """Several lengths in one table, with each length's depths on one row; the lengths' own reports are left out."""
    blocks = summary.by_context_length
    lines = [*_title(summary), *_header(summary, blocks)]
    lines += _all_lengths(summary, blocks) if len(blocks) > 1 else _block_alone(summary)
    lines += _notes(summary, blocks)
    return plain_text("\n".join(lines), ascii_only)


def _block_alone(summary: Summary) -> list[str]:
    """The report of the one length there is."""
    (block,) = summary.by_context_length
    return _block(block, several=False, passkey=task_of(summary) == PASSKEY, has_segments=has_segments(summary))


def render_quiet(summary: Summary, *, ascii_only: bool = False) -> str:
    """One line a context length: average, interval, n, verdicts."""
    lines = [_quiet_block(block) for block in summary.by_context_length]
    if summary.complete is False:
        lines.append(_progress(summary))
    if summary.failed_samples:
        lines.append(f"failed samples: {summary.failed_samples} ({FAILED})")
    return plain_text("\n".join(lines), ascii_only)


def _quiet_block(block: LengthSummary) -> str:
    stats, said = block.summary_stats, block.headline
    spread = consistency_word(block)
    verdict = f"{SYMBOLS[said.category]} {said.words}" + (f", {spread}" if spread else "")
    if not block.total_samples:
        return f"{_length(block)}: {_unanswered(block)} {verdict}"
    average = f"{stats.average_accuracy:.2f}% {_average_interval(stats)}"
    return f"{_length(block)}: {average} ({counts_words(block)}) {verdict}"


def bar_line(label: str, cell: Cell) -> str:
    """`label`, a bar, the accuracy with its counts, and the interval."""
    if cell.accuracy is None:
        return f"{label}: {'':<{BAR}} no answer ({cell.failed} failed)"
    bar = "█" * round(cell.accuracy / 100 * BAR)
    bound = f"{cell.accuracy_failed_as_wrong:.1f}% with them wrong"
    failed = f", {cell.failed} failed: {bound}" if cell.failed else ""
    counts = f"({cell.correct:g}/{cell.num_samples}{failed})"
    return f"{label}: {bar:<{BAR}} {cell.accuracy:6.2f}% {counts:<9} {_interval(cell)}"


def _unanswered(block: LengthSummary) -> str:
    return f"no sample was answered ({block.failed} failed)"


def _title(summary: Summary) -> list[str]:
    name = summary.model.upper()
    task = task_of(summary)
    what = _TASKS.get(task, task.upper())
    model = name if name.endswith("MODEL") else f"{name} MODEL"
    return ["=" * WIDTH, f"{what} ANALYSIS - {model}", "=" * WIDTH]


def _header(summary: Summary, blocks: Sequence[LengthSummary]) -> list[str]:
    memory = facts_of(summary).memory
    facts = [f"segment_length={summary.segment_length}"] if summary.segment_length else []
    if not facts and summary.model == UNKNOWN:
        facts = ["no manifest: name and segment length are not known"]
    facts += [_MEMORY[memory]] if memory in _MEMORY else []
    lines = [f"Model: {summary.model}" + (f" ({', '.join(facts)})" if facts else "")]
    if (used := memory_words(summary.run)) is not None:
        lines.append(f"Memory of One Rank: {used}")
    if len(blocks) > 1:
        lines.append(f"Context Lengths: {', '.join(_length(block) for block in blocks)}")
        lines.append(f"Total Samples: {_total(summary)}")
    if summary.complete is False:
        lines.append(_progress(summary))
    if summary.failed_samples:
        reasons = "; ".join(f"{reason.count} x {reason.error}" for reason in summary.failures[:3])
        lines.append(f"Failed Samples: {summary.failed_samples} ({reasons})")
        lines.append(f"  {FAILED}; --failed-as-wrong counts them")
    return lines


def _total(block: LengthSummary) -> str:
    return f"{block.total_samples}" + (f" answered, {block.failed} failed" if block.failed else "")


def _block(block: LengthSummary, *, several: bool, passkey: bool, has_segments: bool) -> list[str]:
    lines = ["", "=" * WIDTH] if several else []
    lines += [f"Context Length: {_length(block)}", f"Total Samples: {_total(block)}"]
    segments = block.expected_segments
    if has_segments:
        lines.append(f"Expected Segments: {'unknown' if segments is None else f'{segments:g}'}")
    tokens = block.prompt_tokens
    if tokens and (tokens.min != tokens.max or tokens.median != block.context_length):
        real = f"{tokens.min} to {tokens.max} tokens (median {tokens.median})"
        real = f"{tokens.min} tokens" if tokens.min == tokens.max else real
        lines.append(f"Real Length: {real} by this model's tokenizer")
    lines.append("=" * WIDTH)
    lines += [bar_line(f"Depth {_depth(cell.depth_percent)}%", cell) for cell in block.results_by_depth]
    return [*lines, *_statistics(block), *_segments(block), *_explained(block), *_assessment(block, passkey)]


def _statistics(block: LengthSummary) -> list[str]:
    stats = block.summary_stats
    lines = ["", "-" * WIDTH, "SUMMARY STATISTICS:"]
    if not block.total_samples:
        return [*lines, f"Average Accuracy: {_unanswered(block)}"]
    lines.append(
        f"Average Accuracy: {stats.average_accuracy:.2f}%  95% interval "
        f"{_average_interval(stats)} (n={block.total_samples}; {stats.ci_method})"
    )
    if block.failed:
        lines.append(f"  with the {block.failed} failed samples wrong: {stats.average_failed_as_wrong:.2f}%")
        lines.append(f"  whatever they would have been: [{stats.bound_low:.1f}, {stats.bound_high:.1f}]")
    return [
        *lines, f"Std Deviation: {stats.std_dev:.2f}%",
        f"Min Accuracy: {stats.min_accuracy:.2f}% (at depth {stats.min_depth:g}%)",
        f"Max Accuracy: {stats.max_accuracy:.2f}% (at depth {stats.max_depth:g}%)",
    ]  # fmt: skip


def places(block: LengthSummary) -> list[tuple[str, Share]]:
    """Accuracy by the needle's and the answer's real place among the segments, where there are samples of it."""
    named = [(name, getattr(block.segment_analysis, key)) for name, key in NEEDLE_PLACES.items()]
    if block.phase_analysis is not None:
        named += [(name, getattr(block.phase_analysis, key)) for name, key in ANSWER_PLACES.items()]
    return [(name, share) for name, share in named if share.num_samples]


def _segments(block: LengthSummary) -> list[str]:
    shown = [
        f"{name:<33}{share.accuracy:6.2f}% (n={share.num_samples}) {_interval(share)}" for name, share in places(block)
    ]
    only = answered_only(block)
    return ["", "-" * WIDTH, f"SEGMENT ANALYSIS (by real token spans){only}:", *shown] if shown else []


def _explained(block: LengthSummary) -> list[str]:
    """Kinds of wrong answers, and trends where there is something to see."""
    wrong = wrong_answer_lines(block.errors)
    trends = trend_lines(block.trends, ("depth", "compressions"))
    lines = ["", "-" * WIDTH, f"WRONG ANSWERS ({block.errors.wrong}):", *wrong] if wrong else []
    title = f"TRENDS (logistic fit, 95% interval){answered_only(block)}:"
    return [*lines, *(["", "-" * WIDTH, title, *trends] if trends else [])]


def _assessment(block: LengthSummary, passkey: bool) -> list[str]:
    """The headline verdict first; the older rule's verdict and the usual expectation for passkeys only."""
    said, spread = block.headline, consistency_word(block)
    lines = ["", "-" * WIDTH, "PERFORMANCE ASSESSMENT:", headline_text(said)]
    if spread:
        lines.append(f"Consistency: {spread} (std dev: {block.summary_stats.std_dev:.2f}%)")
    expected = block.verdict.expectation
    if expected:
        met = {"yes": "met", "no": "not met", "unclear": "too few samples to tell"}[expected.met]
        met = "failed samples leave it open" if block.failed and expected.met == "unclear" else met
        lines.append(f"Expected at this length: above {expected.above}%: {met}")
    lines.append(f"  ({block.verdict.rule})")
    lines += [f"  ({older_rule(block)})"] if passkey else []
    return [*lines, *(f"Advice: {line}" for line in block.advice)]


def headline_text(said: Headline) -> str:
    """The verdict with its mark, and what keeps it from being certain."""
    return f"{SYMBOLS[said.category]} {said.words}" + (f": {said.why}" if said.why else "")


def _all_lengths(summary: Summary, blocks: Sequence[LengthSummary]) -> list[str]:
    lines = ["", "=" * WIDTH, "ALL CONTEXT LENGTHS (average over depths):"]
    width = max(len(_length(block)) for block in blocks)
    lines += [f"{_length(block):>{width}}: {_length_bar(block)}" for block in blocks]
    lines += _grid(blocks)
    at = summary.worst.headline if summary.worst else None
    lines.append(f"Verdict at {at or 'unlabelled'} tokens, the worst: {headline_text(summary.headline)}")
    if task_of(summary) == PASSKEY:
        lines.append(f"  ({older_rule(summary)})")
    if summary.long_context:
        lines += [f"Long context: {summary.long_context.category}", f"  rule: {summary.long_context.rule}"]
    effective = summary.effective_context_length
    if effective:
        lines += ["", "-" * WIDTH, f"{effective.name.upper()}:", *effective_lines(effective)]
    trend = trend_lines(summary.trends, ("length",))
    return [*lines, *(f"Trend over {line}{answered_only(summary)}" for line in trend)]


def _grid(blocks: Sequence[LengthSummary]) -> list[str]:
    """Accuracy in whole percent, a row a length and a column a depth; of many depths as many columns as fit evenly."""
    depths = sorted({cell.depth_percent for block in blocks for cell in block.results_by_depth})
    if len(depths) < 2:
        return []
    width = max(len(_length(block)) for block in blocks)
    step = -(-len(depths) // ((2 * WIDTH - width) // GRID_COLUMN))
    shown = depths[::step]
    lines = ["", "-" * WIDTH, "ACCURACY BY LENGTH AND DEPTH (percent):"]
    lines.append(f"{'depth':>{width}}: " + "".join(f"{depth:>{GRID_COLUMN}g}" for depth in shown))
    for block in blocks:
        cells = {cell.depth_percent: cell.accuracy for cell in block.results_by_depth}
        values = (_whole_percent(cells.get(depth)) for depth in shown)
        lines.append(f"{_length(block):>{width}}: " + "".join(f"{value:>{GRID_COLUMN}}" for value in values))
    return [*lines, ""]


def _whole_percent(accuracy: float | None) -> str:
    """Rounded, but never to 0 or 100 where it is neither."""
    if accuracy is None:
        return "-"
    return f"{accuracy:.0f}" if accuracy in (0, 100) else f"{min(99, max(1, round(accuracy)))}"


def _length_bar(block: LengthSummary) -> str:
    stats = block.summary_stats
    if stats.average_accuracy is None:
        return f"{'':<{BAR}} {_unanswered(block)}"
    bar = "█" * round(stats.average_accuracy / 100 * BAR)
    counts = f"({counts_words(block)}) {_average_interval(stats)}"
    return f"{bar:<{BAR}} {stats.average_accuracy:6.2f}% {counts}"


def _notes(summary: Summary, blocks: Sequence[LengthSummary]) -> list[str]:
    notes = [*summary.notes, *_shared_warnings(blocks)]
    if any(block.depths_rounded_to_5_percent for block in blocks):
        notes.append("depths were drawn freely; they are shown rounded to 5 %")
    notes += disagreement_lines(summary)
    shared = timing_line(summary.timing)
    notes += [shared] if shared else []
    return ["", "-" * WIDTH, "NOTES:", *(f"- {note}" for note in notes)] if notes else []


def _shared_warnings(blocks: Sequence[LengthSummary]) -> list[str]:
    """Each warning once, with the lengths it holds for unless it holds for all."""
    where: dict[str, list[str]] = {}
    for block in blocks:
        for warning in block.warnings:
            where.setdefault(warning, []).append(_length(block))
    return [line if len(at) == len(blocks) else f"{', '.join(at)}: {line}" for line, at in where.items()]


def _progress(summary: Summary) -> str:
    done = summary.total_samples + summary.failed_samples
    planned = summary.samples_planned
    return f"INCOMPLETE: {done} of {planned} planned samples; the evaluation's own command continues it"


def _length(block: LengthSummary) -> str:
    return "unlabelled" if block.context_length is None else f"{block.context_length} tokens"


def _depth(depth: float) -> str:
    return f"{depth:>3g}" if float(depth).is_integer() else f"{depth:>5.1f}"


def _interval(share: Share) -> str:
    return f"[{share.ci_low:.1f}, {share.ci_high:.1f}]"


def _average_interval(stats: SummaryStats) -> str:
    return f"[{stats.average_ci_low:.1f}, {stats.average_ci_high:.1f}]"
