"""The tables of report.html, each from a part of the summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from infini_eval.reports.html_page.escape import text
from infini_eval.reports.plot_style import short_tokens
from infini_eval.reports.sentences import ANSWER_PLACES, NEEDLE_PLACES
from infini_eval.reports.statistics.error_kinds import KINDS

Cell = Mapping[str, Any]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already; nothing where there are no rows."""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    if not body:
        return ""
    head = "".join(f"<th>{text(name)}</th>" for name in header)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} %"


def interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f'<span class="ci">{low:.1f} to {high:.1f}</span>'


def bar(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A horizontal bar with its interval as a line, in the width of its column."""
    if value is None:
        return ""
    mark = ""
    if low is not None and high is not None:
        mark = f'<i style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
    return f'<span class="bar"><b style="width:{value:.1f}%"></b>{mark}</span>'


def _unbroken(shown: str) -> str:
    return f'<span class="unbroken">{shown}</span>'


def failed(block: Cell) -> str:
    """ "105 failed: 50.0 % with them wrong", of a block; nothing where none failed."""
    if not block["failed"]:
        return ""
    return f"{block['failed']} failed: {percent(block['summary_stats']['average_failed_as_wrong'])} with them wrong"


def lengths(blocks: Sequence[Cell], has_segments: bool = True) -> str:
    """One row a context length; without a column of segments for a model that has none."""
    rows = []
    for block in blocks:
        stats, ends = block["summary_stats"], ("average_ci_low", "average_ci_high")
        low, high = (stats[end] for end in ends)
        average = percent(stats["average_accuracy"]) or "no sample was answered"
        row = [
            short_tokens(block["context_length"]), text(block["expected_segments"] or "unknown"),
            bar(stats["average_accuracy"], low, high), _unbroken(average), interval(low, high),
            _unbroken(f"{block['total_samples']}"), failed(block), percent(stats["std_dev"]), text(block["headline"]["words"]),
        ]  # fmt: skip
        rows.append(row)
    head = ["context", "segments", "", "average", "95 % interval", "n", "failed", "std over depths", "verdict"]
    left_out = {"segments"} if not has_segments else set()
    left_out |= set() if any(block["failed"] for block in blocks) else {"failed"}
    kept = [place for place, name in enumerate(head) if name not in left_out]
    return table([head[place] for place in kept], [[row[place] for place in kept] for row in rows])


def depths(block: Cell) -> str:
    """One row a depth of one context length, with the kinds of its wrong answers."""
    wrong = {cell["depth_percent"]: cell["kinds"] for cell in block["errors"]["by_depth"]}
    rows = []
    for cell in block["results_by_depth"]:
        depth = cell["depth_percent"]
        kinds = sorted(wrong.get(depth, {}).items(), key=lambda item: -item[1])
        said = ", ".join(f"{count} {KINDS[kind].split(' (')[0]}" for kind, count in kinds[:3])
        shown = bar(cell["accuracy"], cell["ci_low"], cell["ci_high"])
        rows.append([f"{depth:g}&nbsp;%", shown, *_numbers(cell), f'<span class="ci said">{text(said)}</span>'])
    return table(("depth", "", "accuracy", "95 % interval", "right / n", "wrong answers, most frequent kinds"), rows)


def places(block: Cell) -> str:
    """Accuracy by the place of needle and answer among the segments."""
    found, phases = block["segment_analysis"], block["phase_analysis"] or {}
    rows = []
    for name, key in NEEDLE_PLACES.items():
        low, high = found[f"{key}_ci"]
        value, n = found[f"{key}_avg"], found[f"{key}_count"]
        if n:
            rows.append([name, bar(value, low, high), percent(value), interval(low, high), str(n)])
    for name, key in ANSWER_PLACES.items():
        cell = phases.get(key)
        if cell and cell["num_samples"]:
            ends = (cell["ci_low"], cell["ci_high"])
            rows.append(
                [
                    name,
                    bar(cell["accuracy"], *ends),
                    percent(cell["accuracy"]),
                    interval(*ends),
                    str(cell["num_samples"]),
                ]
            )
    return table(("place", "", "accuracy", "95 % interval", "n"), rows)


def wrong(errors: Cell) -> str:
    """Kinds of wrong answers with their share."""
    rows = [
        [
            text(KINDS[kind]),
            bar(100 * count / errors["looked_at"]),
            str(count),
            percent(100 * count / errors["looked_at"]),
        ]
        for kind, count in sorted(errors["kinds"].items(), key=lambda item: -item[1])
    ]
    return table(("kind", "", "count", "share"), rows)


def settings(run: Cell) -> str:
    """Everything the manifest says, flat."""
    rows = []
    for part in ("model", "identity", "environment"):
        found = _flat(run.get(part) or {})
        rows += [[text(f"{part}.{key}"), text(value, 300)] for key, value in found if key != "gates.values"]
    return table(("setting", "value"), rows)


def _flat(data: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in data.items() if isinstance(data, Mapping) else ():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _numbers(cell: Cell) -> list[str]:
    counts = f"{cell['correct']:g} / {cell['num_samples']}"
    if cell["failed"]:
        counts += f", {cell['failed']} failed: {percent(cell['accuracy_failed_as_wrong'])} with them wrong"
    return [percent(cell["accuracy"]) or "no answer", interval(cell["ci_low"], cell["ci_high"]), counts]
