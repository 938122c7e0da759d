"""report.html: one self-contained page for a colleague; no script, no network, foreign text escaped."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.api.report import report
from infini_eval.reports import (
    accuracy_by_compressions,
    accuracy_by_depth,
    accuracy_by_length,
    gate_heatmap,
    heatmap,
    sentences,
)
from infini_eval.reports.ascii_bars import verdict_text
from infini_eval.reports.html_page import tables
from infini_eval.reports.html_page.cards import cards
from infini_eval.reports.html_page.escape import text
from infini_eval.reports.html_page.style import CSS
from infini_eval.reports.model_facts import memory_words
from infini_eval.reports.plot_style import short_tokens, svg
from infini_eval.results.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from infini_eval.reports.analyze import AnalysedRun

NAME = "report.html"
DIAGNOSIS = "diagnosis.txt"
_LONGEST = 40_000  # characters of it
_PLOTS = {
    heatmap: "Accuracy for each depth and context length.",
    accuracy_by_length: "Average over depths; the two bars define the effective context length.",
    accuracy_by_depth: "Share of right answers at each depth; bands, with up to four lengths, are Wilson intervals.",
    accuracy_by_compressions: "The needle's token span says how many segment borders lie between it and the question.",
}
_GATES = (
    "How much each head's output is memory rather than local attention. Open gates alone do not show a useful memory."
)
_FULL = ' class="full"'
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_TONE = {"EXCELLENT": "good", "VERY_GOOD": "good", "GOOD": "good", "FAIR": "fair", "POOR": "poor"}


@report("html", when="page")
def write(run: AnalysedRun, folder: Path) -> list[Path]:
    """Write report.html into `folder`; returns what was written."""
    write_atomically(folder / NAME, page(run).encode("utf-8", "replace"))
    return [folder / NAME]


def page(run: AnalysedRun) -> str:
    """The whole page."""
    summary = run.summary
    title = f"{text(summary['model'])}: {text(_task(summary))}"
    sections = [
        _hero(summary),
        _tables(summary),
        _plots(summary),
        _why(summary),
        _diagnosis(run),
        _samples(run),
        _provenance(summary),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{CSS}</style></head><body><main>"
        f"<header><h1>{title}</h1><p>{_subtitle(summary)}</p></header>{''.join(sections)}</main></body></html>\n"
    )


def _task(summary: Mapping[str, Any]) -> str:
    return str((summary["run"].get("identity") or {}).get("task") or "passkey") + " retrieval"


def _subtitle(summary: Mapping[str, Any]) -> str:
    model = summary["run"].get("model") or {}
    facts = [f"{summary['total_samples']:,} samples"]
    facts += [f"segments of {summary['segment_length']} tokens"] if summary["segment_length"] else []
    facts += [f"memory {model['memory']}"] if model.get("memory") else []
    facts += [str(model["dtype"])] if model.get("dtype") else []
    facts += [f"device memory {used}"] if (used := memory_words(summary)) else []
    facts += [f"judged by {summary['scorer']}"] if summary["scorer"] else []
    return " · ".join(text(fact) for fact in facts)


def _hero(summary: Mapping[str, Any]) -> str:
    stats, fixed, rule = summary["summary_stats"], summary["verdict"], summary["performance"]
    ends = f"{stats['average_ci_low']:.1f} to {stats['average_ci_high']:.1f} %"
    several = len(summary["by_context_length"]) > 1
    at = f" at {short_tokens(fixed.get('context_length'))}, the worst length" if several else ""
    items = [
        ("", f"{stats['average_accuracy']:.1f} %", f"average over depths, 95 % interval {ends}; {stats['ci_method']}")
    ]
    items.append((_TONE[fixed["category"]], fixed["category"], f"{verdict_text(fixed)}{at}; {fixed['rule']}"))
    items.append((_TONE[rule["category"]], rule["category"], f"{rule['message']}; {rule['rule']}"))
    effective = summary["effective_context_length"]
    if several and effective:
        items.append(
            (
                "",
                _effective(effective["fixed"]),
                f"effective context: {sentences.effective_sentence(effective['fixed'])}",
            )
        )
    cards = "".join(
        f'<div class="{tone}"><strong>{text(big)}</strong><small>{text(small)}</small></div>'
        for tone, big, small in items
    )
    alarms = [line for line in (_incomplete(summary), _failed(summary)) if line]
    alarm = "".join(f"<li>{text(line)}</li>" for line in alarms)
    return f'<section><div class="hero">{cards}</div>{f"<ul>{alarm}</ul>" if alarm else ""}</section>'


def _effective(found: Mapping[str, Any]) -> str:
    return f"{short_tokens(found['estimate'])} tokens" if found["estimate"] else "below " + short_tokens(found["below"])


def _incomplete(summary: Mapping[str, Any]) -> str | None:
    if summary["complete"] is not False:
        return None
    done = summary["total_samples"] + summary["failed_samples"]
    return f"This run is incomplete: {done} of {summary['samples_planned']} planned samples."


def _failed(summary: Mapping[str, Any]) -> str | None:
    if not summary["failed_samples"]:
        return None
    reasons = "; ".join(f"{reason['count']} x {reason['error']}" for reason in summary["failures"])
    return f"{summary['failed_samples']} samples failed and are not counted ({reasons})."


def _tables(summary: Mapping[str, Any]) -> str:
    blocks = summary["by_context_length"]
    inner = f"<h2>Results</h2>{tables.lengths(blocks)}"
    for number, block in enumerate(blocks):
        name = f"By depth at {short_tokens(block['context_length'])} tokens"
        opened = " open" if number == 0 and len(blocks) == 1 else ""
        inner += f"<details{opened}><summary>{text(name)}</summary>{tables.depths(block)}</details>"
    return f"<section>{inner}</section>"


def _plots(summary: Mapping[str, Any]) -> str:
    figures = ""
    for module, caption in _PLOTS.items():
        figures += _figure(module.draw(summary), caption, wide=module is heatmap)
    gates = gate_heatmap.recorded_gates(summary["run"]["model"])
    if gates:
        figures += _figure(gate_heatmap.draw(gates), _GATES)
    return f'<section><h2>Plots</h2><div class="plots">{figures}</div></section>'


def _figure(figure: Figure | None, caption: str, *, wide: bool = False) -> str:
    if figure is None:
        return ""
    data = base64.b64encode(svg(figure)).decode()
    image = f'<img alt="{text(caption)}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure{_FULL * wide}>{image}<figcaption>{text(caption)}</figcaption></figure>"


def _why(summary: Mapping[str, Any]) -> str:
    trends = sentences.trends(summary["trends"], ("depth", "length", "compressions"))
    effective = sentences.effective(summary["effective_context_length"]) if summary["effective_context_length"] else []
    notes = [*summary["notes"]]
    for block in summary["by_context_length"]:
        notes += [line for line in (*block["warnings"], *block["advice"]) if line not in notes]
    parts = [
        ("Where needle and answer lie", tables.places(summary)),
        (_wrong_title(summary["errors"]), tables.wrong(summary["errors"])),
        ("Trends", _list(trends)),
        ("Effective context length", _list(effective)),
        ("Notes and advice", _list(notes)),
    ]
    inner = "".join(f"<h3>{text(name)}</h3>{body}" for name, body in parts if body)
    return f"<section><h2>Why</h2>{inner}</section>"


def _diagnosis(run: AnalysedRun) -> str:
    """What `--diagnose` left in the run folder."""
    path = run.folder / DIAGNOSIS
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", errors="replace") as file:
        said = file.read(_LONGEST)
    note = '<p class="note">Measured on a few prompts in one process; docs/diagnosis.md says how.</p>'
    return f'<section><h2>Memory diagnosis</h2>{note}<pre class="wide">{text(said, _LONGEST)}</pre></section>'


def _wrong_title(errors: Mapping[str, Any]) -> str:
    part = "" if errors["looked_at"] == errors["wrong"] else f", an even selection of {errors['looked_at']} looked at"
    return f"Wrong answers ({errors['wrong']}{part})"


def _list(lines: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>" if lines else ""


def _samples(run: AnalysedRun) -> str:
    wrong, right = cards(run)
    inner = f"<h3>Wrong</h3>{wrong}" if wrong else ""
    inner += f"<h3>Right</h3>{right}" if right else ""
    note = '<p class="note">Spread evenly over the run; the answer is marked.</p>'
    return f"<section><h2>Samples</h2>{note}{inner}</section>"


def _provenance(summary: Mapping[str, Any]) -> str:
    settings = tables.settings(summary["run"]) or "<p>No manifest: nothing is known about the settings.</p>"
    files = ", ".join(summary["run"]["files"][:10])
    return (
        f'<section><h2>Settings and provenance</h2><p class="note">Run folder {text(summary["run"]["folder"])}; '
        f"read from {text(files)}.</p>{settings}</section>"
    )
