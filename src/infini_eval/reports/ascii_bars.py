"""The text report: one bar a depth with n and its 95 % interval, statistics, and verdicts with their rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.api.report import report
from infini_eval.reports import sentences
from infini_eval.reports.model_facts import UNKNOWN, memory_words
from infini_eval.reports.terminal import plain_text
from infini_eval.reports.timing import timing_line
from infini_eval.results.files import write_atomically

if TYPE_CHECKING:
    from infini_eval.reports.analyze import AnalysedRun

NAME = "report.txt"
WIDTH = 70
BAR = 32
_MEMORY = {"off": "memory off", "ablate": "memory ablated"}
_TASKS = {"passkey": "PASSKEY RETRIEVAL", "needle": "NEEDLE RETRIEVAL", "niah": "NEEDLE RETRIEVAL"}


@report("text", when="always")
def write(run: AnalysedRun, folder: Path) -> list[Path]:
    """Write report.txt into `folder`; returns what was written."""
    write_atomically(folder / NAME, (run.text + "\n").encode("utf-8", "replace"))
    return [folder / NAME]


def render(summary: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    """The whole report of one run from its summary, without a final newline."""
    blocks = summary["by_context_length"]
    lines = [*_title(summary), *_header(summary, blocks)]
    for block in blocks:
        lines += _block(block, several=len(blocks) > 1)
    if len(blocks) > 1:
        lines += _all_lengths(summary, blocks)
    lines += _notes(summary, blocks)
    return plain_text("\n".join(lines), ascii_only)


def render_quiet(summary: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    """One line a context length: average, interval, n, verdicts."""
    lines = []
    for block in summary["by_context_length"]:
        stats, judged = block["summary_stats"], block["performance"]
        lines.append(
            f"{_length(block)}: {stats['average_accuracy']:.2f}% {_average_interval(stats)} "
            f"(n={block['total_samples']}) {judged['status']} {judged['category']}, {judged['consistency']}"
        )
    if summary["complete"] is False:
        lines.append(_progress(summary))
    if summary["failed_samples"]:
        lines.append(f"failed samples: {summary['failed_samples']} (not counted)")
    return plain_text("\n".join(lines), ascii_only)


def bar_line(label: str, cell: Mapping[str, Any]) -> str:
    """`label`, a bar, the accuracy with its counts, and the interval."""
    bar = "█" * round(cell["accuracy"] / 100 * BAR)
    counts = f"({cell['correct']:g}/{cell['num_samples']})"
    return f"{label}: {bar:<{BAR}} {cell['accuracy']:6.2f}% {counts:<9} {_interval(cell)}"


def _title(summary: Mapping[str, Any]) -> list[str]:
    name = summary["model"].upper()
    task = str(((summary["run"].get("identity") or {}).get("task")) or "passkey")
    what = _TASKS.get(task, task.upper())
    model = name if name.endswith("MODEL") else f"{name} MODEL"
    return ["=" * WIDTH, f"{what} ANALYSIS - {model}", "=" * WIDTH]


def _header(summary: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    model = summary["run"].get("model") or {}
    facts = [f"segment_length={summary['segment_length']}"] if summary["segment_length"] else []
    if not facts and summary["model"] == UNKNOWN:
        facts = ["no manifest: name and segment length are not known"]
    facts += [_MEMORY[text] for text in [str(model.get("memory"))] if text in _MEMORY]
    lines = [f"Model: {summary['model']}" + (f" ({', '.join(facts)})" if facts else "")]
    if (used := memory_words(summary)) is not None:
        lines.append(f"Memory of One Rank: {used}")
    if len(blocks) > 1:
        lines.append(f"Context Lengths: {', '.join(_length(block) for block in blocks)}")
        lines.append(f"Total Samples: {summary['total_samples']}")
    if summary["complete"] is False:
        lines.append(_progress(summary))
    if summary["failed_samples"]:
        reasons = "; ".join(f"{reason['count']} x {reason['error']}" for reason in summary["failures"][:3])
        lines.append(f"Failed Samples: {summary['failed_samples']} (not counted; {reasons})")
    return lines


def _block(block: Mapping[str, Any], *, several: bool) -> list[str]:
    lines = ["", "=" * WIDTH] if several else []
    lines += [f"Context Length: {_length(block)}", f"Total Samples: {block['total_samples']}"]
    segments = block["expected_segments"]
    lines.append(f"Expected Segments: {'unknown' if segments is None else f'{segments:g}'}")
    tokens = block["prompt_tokens"]
    if tokens and (tokens["min"] != tokens["max"] or tokens["median"] != block["context_length"]):
        real = f"{tokens['min']} to {tokens['max']} tokens (median {tokens['median']})"
        real = f"{tokens['min']} tokens" if tokens["min"] == tokens["max"] else real
        lines.append(f"Real Length: {real} by this model's tokenizer")
    lines.append("=" * WIDTH)
    lines += [bar_line(f"Depth {_depth(cell['depth_percent'])}%", cell) for cell in block["results_by_depth"]]
    return [*lines, *_statistics(block), *_segments(block), *_explained(block), *_assessment(block)]


def _statistics(block: Mapping[str, Any]) -> list[str]:
    stats = block["summary_stats"]
    return [
        "", "-" * WIDTH, "SUMMARY STATISTICS:",
        f"Average Accuracy: {stats['average_accuracy']:.2f}%  95% interval "
        f"{_average_interval(stats)} (n={block['total_samples']}; {stats['ci_method']})",
        f"Std Deviation: {stats['std_dev']:.2f}%",
        f"Min Accuracy: {stats['min_accuracy']:.2f}% (at depth {stats['min_depth']:g}%)",
        f"Max Accuracy: {stats['max_accuracy']:.2f}% (at depth {stats['max_depth']:g}%)",
    ]  # fmt: skip


def _segments(block: Mapping[str, Any]) -> list[str]:
    """Accuracy by the needle's real place among the segments, where the records say it."""
    found, phases = block["segment_analysis"], block["phase_analysis"]
    rows = [
        (name, found[f"{key}_avg"], found[f"{key}_count"], found[f"{key}_ci"])
        for name, key in sentences.NEEDLE_PLACES.items()
    ]
    for name, key in sentences.ANSWER_PLACES.items():
        cell = (phases or {}).get(key) or {"num_samples": 0}
        rows.append((name, cell.get("accuracy"), cell["num_samples"], (cell.get("ci_low"), cell.get("ci_high"))))
    shown = [f"{name:<33}{value:6.2f}% (n={n}) [{ci[0]:.1f}, {ci[1]:.1f}]" for name, value, n, ci in rows if n]
    return ["", "-" * WIDTH, "SEGMENT ANALYSIS (by real token spans):", *shown] if shown else []


def _explained(block: Mapping[str, Any]) -> list[str]:
    """Kinds of wrong answers, and trends where there is something to see."""
    wrong = sentences.wrong_answers(block["errors"])
    trends = sentences.trends(block["trends"], ("depth", "compressions"))
    lines = ["", "-" * WIDTH, f"WRONG ANSWERS ({block['errors']['wrong']}):", *wrong] if wrong else []
    return [*lines, *(["", "-" * WIDTH, "TRENDS (logistic fit, 95% interval):", *trends] if trends else [])]


def _assessment(block: Mapping[str, Any]) -> list[str]:
    judged, fixed = block["performance"], block["verdict"]
    lines = ["", "-" * WIDTH, "PERFORMANCE ASSESSMENT:"]
    lines.append(f"{judged['status']} {judged['category']}: {judged['message']}")
    lines.append(f"  rule: {judged['rule']}")
    lines.append(f"Consistency: {judged['consistency']} (std dev: {block['summary_stats']['std_dev']:.2f}%)")
    lines.append(f"Verdict: {verdict_text(fixed)}")
    lines.append(f"  rule: {fixed['rule']}")
    expected = fixed["expectation"]
    if expected:
        met = {"yes": "met", "no": "not met", "unclear": "too few samples to tell"}[expected["met"]]
        lines.append(f"Expected at this length: above {expected['above']}%: {met}")
    return [*lines, *(f"Advice: {line}" for line in block["advice"])]


def verdict_text(fixed: Mapping[str, Any]) -> str:
    """The category, and what else the interval allows."""
    if fixed["certain"]:
        return f"{fixed['category']} (the whole interval lies in this category)"
    others = [name for name in fixed["possible"] if name != fixed["category"]]
    return f"{fixed['category']} (the interval also allows {', '.join(others)})"


def _all_lengths(summary: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["", "=" * WIDTH, "ALL CONTEXT LENGTHS (average over depths):"]
    width = max(len(_length(block)) for block in blocks)
    for block in blocks:
        stats = block["summary_stats"]
        bar = "█" * round(stats["average_accuracy"] / 100 * BAR)
        counts = f"(n={block['total_samples']}) {_average_interval(stats)}"
        lines.append(f"{_length(block):>{width}}: {bar:<{BAR}} {stats['average_accuracy']:6.2f}% {counts}")
    judged, verdict = summary["performance"], summary["verdict"]
    lines.append(f"{judged['status']} {judged['category']}: {judged['message']}")
    lines.append(f"Verdict at {verdict['context_length'] or 'unlabelled'} tokens, the worst: {verdict_text(verdict)}")
    if summary.get("long_context"):
        lines += [f"Long context: {summary['long_context']['category']}", f"  rule: {summary['long_context']['rule']}"]
    trend = sentences.trends(summary["trends"], ("length",))
    lines += ["", "-" * WIDTH, "EFFECTIVE CONTEXT LENGTH:", *sentences.effective(summary["effective_context_length"])]
    return [*lines, *(f"Trend over {line}" for line in trend)]


def _notes(summary: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = [*summary["notes"], *_shared_warnings(blocks)]
    if any(block["depths_rounded_to_5_percent"] for block in blocks):
        notes.append("depths were drawn freely; they are shown rounded to 5 %")
    main = summary["other_scores"].get(summary["scorer"])
    for name, value in summary["other_scores"].items():
        if value is not None and main is not None and abs(value - main) > 0.005:
            notes.append(f"scorer {name!r} gives {value:.2f}% over all samples, {summary['scorer']!r} {main:.2f}%")
    shared = timing_line(summary["timing"])
    notes += [shared] if shared else []
    return ["", "-" * WIDTH, "NOTES:", *(f"- {note}" for note in notes)] if notes else []


def _shared_warnings(blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each warning once, with the lengths it holds for unless it holds for all."""
    where: dict[str, list[str]] = {}
    for block in blocks:
        for warning in block["warnings"]:
            where.setdefault(warning, []).append(_length(block))
    return [text if len(found) == len(blocks) else f"{', '.join(found)}: {text}" for text, found in where.items()]


def _progress(summary: Mapping[str, Any]) -> str:
    done = summary["total_samples"] + summary["failed_samples"]
    planned = summary["samples_planned"]
    return f"INCOMPLETE: {done} of {planned} planned samples; the evaluation's own command continues it"


def _length(block: Mapping[str, Any]) -> str:
    return "unlabelled" if block["context_length"] is None else f"{block['context_length']} tokens"


def _depth(depth: float) -> str:
    return f"{depth:>3g}" if float(depth).is_integer() else f"{depth:>5.1f}"


def _interval(cell: Mapping[str, Any], low: str = "ci_low", high: str = "ci_high") -> str:
    return f"[{cell[low]:.1f}, {cell[high]:.1f}]"


def _average_interval(stats: Mapping[str, Any]) -> str:
    return _interval(stats, "average_ci_low", "average_ci_high")
