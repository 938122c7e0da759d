"""report.html: one self-contained page for a colleague; no script, no network, foreign text escaped."""

from __future__ import annotations

import base64
import html as html_escapes
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.api.report import report
from infini_eval.reports.model import Cell, DepthRun, EffectiveBar, Errors, LengthSummary, Provenance, Summary
from infini_eval.reports.model_facts import PASSKEY, has_segments, memory_words, task_of
from infini_eval.reports.plots import (
    draw_by_compressions,
    draw_by_depth,
    draw_by_length,
    draw_gates,
    draw_heatmap,
    recorded_gates,
    short_tokens,
    svg,
)
from infini_eval.reports.statistics.failures import KINDS, error_kind
from infini_eval.reports.statistics.verdicts import UNDECIDED
from infini_eval.reports.text import (
    FAILED,
    answered_only,
    disagreement_lines,
    effective_lines,
    effective_sentence,
    older_rule,
    places,
    trend_lines,
)
from infini_eval.results.files import write_atomically

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

LIMIT = 600
_MAX_SCANNED = 20_000


def escaped(value: object, limit: int = LIMIT) -> str:
    """Any value as safe HTML text of at most `limit` characters (plus a note of how many were left out)."""
    whole = "" if value is None else str(value)
    shown = "".join(_visible(c) for c in whole[:limit])
    more = f" … ({len(whole) - limit:,} more characters)" if len(whole) > limit else ""
    return html_escapes.escape(shown + more, quote=True)


def marked(value: str | None, word: str | None, limit: int = LIMIT) -> str:
    """Safe HTML of `value` around the first place of `word`, every occurrence of which is marked."""
    whole = (value or "")[:_MAX_SCANNED]
    if not word or word not in whole:
        return escaped(whole, limit)
    start = max(0, whole.index(word) - limit // 2)
    piece = whole[start : start + limit]
    parts = (escaped(part, limit) for part in piece.split(word))
    before, after = "… " * (start > 0), " …" * (start + limit < len(whole))
    return before + f"<mark>{escaped(word)}</mark>".join(parts) + after


def _visible(c: str) -> str:
    if c.isprintable() or c in "\n\t":
        return c
    return f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already; nothing where there are no rows."""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    if not body:
        return ""
    head = "".join(f"<th>{escaped(name)}</th>" for name in header)
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


def failed_words(block: LengthSummary) -> str:
    """ "105 failed: 50.0 % with them wrong", of a block; nothing where none failed."""
    if not block.failed:
        return ""
    return f"{block.failed} failed: {percent(block.summary_stats.average_failed_as_wrong)} with them wrong"


def length_table(blocks: Sequence[LengthSummary], has_segments: bool = True) -> str:
    """One row a context length; without a column of segments for a model that has none."""
    rows = []
    for block in blocks:
        stats = block.summary_stats
        low, high = stats.average_ci_low, stats.average_ci_high
        average = percent(stats.average_accuracy) or "no sample was answered"
        row = [
            short_tokens(block.context_length), escaped(block.expected_segments or "unknown"),
            bar(stats.average_accuracy, low, high), _unbroken(average), interval(low, high),
            _unbroken(f"{block.total_samples}"), failed_words(block), percent(stats.std_dev), escaped(block.headline.words),
        ]  # fmt: skip
        rows.append(row)
    head = ["context", "segments", "", "average", "95 % interval", "n", "failed", "std over depths", "verdict"]
    left_out = {"segments"} if not has_segments else set()
    left_out |= set() if any(block.failed for block in blocks) else {"failed"}
    kept = [place for place, name in enumerate(head) if name not in left_out]
    return table([head[place] for place in kept], [[row[place] for place in kept] for row in rows])


def depth_table(block: LengthSummary) -> str:
    """One row a depth of one context length, with the kinds of its wrong answers."""
    wrong = {cell.depth_percent: cell.kinds for cell in block.errors.by_depth}
    rows = []
    for cell in block.results_by_depth:
        depth = cell.depth_percent
        kinds = sorted(wrong.get(depth, {}).items(), key=lambda item: -item[1])
        said = ", ".join(f"{count} {KINDS[kind].split(' (')[0]}" for kind, count in kinds[:3])
        shown = bar(cell.accuracy, cell.ci_low, cell.ci_high)
        rows.append([f"{depth:g}&nbsp;%", shown, *_numbers(cell), f'<span class="ci said">{escaped(said)}</span>'])
    return table(("depth", "", "accuracy", "95 % interval", "right / n", "wrong answers, most frequent kinds"), rows)


def place_table(block: LengthSummary) -> str:
    """Accuracy by the place of needle and answer among the segments."""
    rows = []
    for name, share in places(block):
        ends = (share.ci_low, share.ci_high)
        cells = [bar(share.accuracy, *ends), percent(share.accuracy), interval(*ends)]
        rows.append([name, *cells, str(share.num_samples)])
    return table(("place", "", "accuracy", "95 % interval", "n"), rows)


def wrong_table(errors: Errors) -> str:
    """Kinds of wrong answers with their share."""
    rows = []
    for kind, count in sorted(errors.kinds.items(), key=lambda item: -item[1]):
        share = 100 * count / errors.looked_at
        rows.append([escaped(KINDS[kind]), bar(share), str(count), percent(share)])
    return table(("kind", "", "count", "share"), rows)


def settings_table(run: Provenance) -> str:
    """Everything the manifest says, flat."""
    rows = []
    for part in ("model", "identity", "environment"):
        flat = _flat(getattr(run, part) or {})
        rows += [[escaped(f"{part}.{key}"), escaped(value, 300)] for key, value in flat if key != "gates.values"]
    return table(("setting", "value"), rows)


def _flat(data: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in data.items() if isinstance(data, Mapping) else ():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _numbers(cell: Cell) -> list[str]:
    counts = f"{cell.correct:g} / {cell.num_samples}"
    if cell.failed:
        counts += f", {cell.failed} failed: {percent(cell.accuracy_failed_as_wrong)} with them wrong"
    return [percent(cell.accuracy) or "no answer", interval(cell.ci_low, cell.ci_high), counts]


WRONG, RIGHT = 12, 4
_TEXTS = ("answer", "generation_text", "excerpt", "number_from")


def sample_cards(run: DepthRun) -> tuple[str, str]:
    """Wrong and right samples, spread evenly over the run, as two pieces of HTML."""
    import numpy as np

    scored = run.scored
    wrong = np.flatnonzero(scored.correct < 1)
    right = np.flatnonzero(scored.correct >= 1)
    return _row_of_cards(run, _spread(wrong, WRONG), False), _row_of_cards(run, _spread(right, RIGHT), True)


def _spread(places: np.ndarray, count: int) -> np.ndarray:
    import numpy as np

    if len(places) <= count:
        return places
    spread: np.ndarray = places[np.linspace(0, len(places) - 1, count).astype(int)]
    return spread


def _row_of_cards(run: DepthRun, places: np.ndarray, right: bool) -> str:
    scored = run.scored
    columns = [run.records.texts(name, scored.row[places]) for name in _TEXTS]
    made = []
    for place, answer, generation, excerpt, source in zip(places, *columns, strict=True):
        length = scored.length[place]
        where = f"{scored.depth[place]:g} % deep in {short_tokens(None if length != length else float(length))} tokens"
        if scored.compressions[place] == scored.compressions[place]:
            where += f", {scored.compressions[place]:g} compressions"
        kind = "right" if right else _kind(answer, generation, excerpt, source)
        around = f'<p class="around">{marked(excerpt, (answer or "").strip())}</p>' if excerpt else ""
        made.append(
            f'<article class="{"right" if right else "wrong"}"><h4>{escaped(where)}</h4>'
            f"<dl><dt>asked for</dt><dd><code>{escaped(answer)}</code></dd>"
            f"<dt>answered</dt><dd><code>{escaped(generation, 300) or '(nothing)'}</code></dd>"
            f"<dt>kind</dt><dd>{escaped(kind)}</dd></dl>{around}</article>"
        )
    return f'<div class="cards">{"".join(made)}</div>' if made else ""


def _kind(answer: str | None, generation: str | None, excerpt: str | None, source: str | None) -> str:
    """The kind of a wrong answer, without its explanation in brackets."""
    return KINDS[error_kind(answer or "", generation or "", excerpt, source)[0]].split(" (")[0]


NAME = "report.html"
DIAGNOSIS = "diagnosis.txt"
_LONGEST = 40_000  # characters of it
_PLOTS = (
    (draw_heatmap, "Accuracy for each depth and context length."),
    (draw_by_length, "Average over depths; the bars define the effective context length of this task."),
    (draw_by_depth, "Share of right answers at each depth; bands, with up to four lengths, are Wilson intervals."),
    (draw_by_compressions, "The needle's token span says how many segment borders lie between it and the question."),
)
_GATES = (
    "How much each head's output is memory rather than local attention. Open gates alone do not show a useful memory."
)
_FULL = ' class="full"'
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_TONE = {"EXCELLENT": "good", "VERY_GOOD": "good", "GOOD": "good", "FAIR": "fair", "POOR": "poor", UNDECIDED: ""}


@report("html", when="page")
def html_report(run: DepthRun, folder: Path) -> list[Path]:
    """Write report.html into `folder`; returns what was written."""
    write_atomically(folder / NAME, page(run).encode("utf-8", "replace"))
    return [folder / NAME]


def page(run: DepthRun) -> str:
    """The whole page."""
    summary = run.summary
    sections = [
        _hero(summary),
        _tables(summary),
        _plots(summary),
        _why(summary),
        _diagnosis(run),
        _samples(run),
        _provenance(summary),
    ]
    return skeleton(f"{escaped(summary.model)}: {escaped(_task(summary))}", _subtitle(summary), sections)


def card(summary: Summary) -> str:
    """The page's verdict and tables as one piece for a notebook: self-contained, its style within its own element."""
    title = f"{escaped(summary.model)}: {escaped(_task(summary))}"
    style = f"<style>@scope (.infini-eval){{{CSS.replace(':root', ':scope').replace('body{', ':scope{')}}}</style>"
    return (
        f'<div class="infini-eval">{style}<h3>{title}</h3><p class="note">{_subtitle(summary)}</p>'
        f"{_hero(summary)}{_tables(summary)}</div>"
    )


def skeleton(title: str, subtitle: str, sections: Iterable[str]) -> str:
    """A page around its sections; everything is HTML already."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{CSS}</style></head><body><main>"
        f"<header><h1>{title}</h1><p>{subtitle}</p></header>{''.join(sections)}</main></body></html>\n"
    )


def _task(summary: Summary) -> str:
    task = task_of(summary)
    return f"{task} retrieval" if task == PASSKEY else task


def _subtitle(summary: Summary) -> str:
    model = summary.run.model or {}
    facts = [f"{summary.total_samples:,} samples"]
    facts += [f"{summary.failed:,} more failed"] if summary.failed else []
    facts += [f"segments of {summary.segment_length} tokens"] if summary.segment_length else []
    facts += [f"memory {model['memory']}"] if model.get("memory") else []
    facts += [str(model["dtype"])] if model.get("dtype") else []
    facts += [f"device memory {used}"] if (used := memory_words(summary.run)) else []
    facts += [f"judged by {summary.scorer}"] if summary.scorer else []
    return " · ".join(escaped(fact) for fact in facts)


def _hero(summary: Summary) -> str:
    said, several = summary.headline, len(summary.by_context_length) > 1
    at = f"at {short_tokens(summary.worst.headline)}, the worst length; " if summary.worst else ""
    why = f"{said.why}; " if said.why else ""
    items = [("", *_average(summary))]
    items.append((_TONE[said.category], said.words, f"{at}{why}{summary.verdict.rule}"))
    effective = summary.effective_context_length
    if several and effective and effective.fixed:
        words = f"{effective.name}: {effective_sentence(effective.fixed)}; bar of "
        words += f"{effective.fixed.threshold:.1f} % ({effective.source})"
        items.append(("", _effective(effective.fixed), words))
    cards = "".join(
        f'<div class="{tone}"><strong>{escaped(big)}</strong><small>{escaped(small)}</small></div>'
        for tone, big, small in items
    )
    alarms = [line for line in (_incomplete(summary), _failed(summary)) if line]
    alarm = "".join(f"<li>{escaped(line)}</li>" for line in alarms)
    small = f'<p class="note">{escaped(_small_print(summary))}</p>' if task_of(summary) == PASSKEY else ""
    return f'<section><div class="hero">{cards}</div>{f"<ul>{alarm}</ul>" if alarm else ""}{small}</section>'


def _average(summary: Summary) -> tuple[str, str]:
    """The average in large, and its interval, bound and method in small."""
    stats = summary.summary_stats
    ends = f"95 % interval {stats.average_ci_low:.1f} to {stats.average_ci_high:.1f} %"
    if summary.failed:
        ends += f"; {failed_words(summary)}, {stats.bound_low:.1f} to {stats.bound_high:.1f} % whatever they are"
    return f"{stats.average_accuracy:.1f} %", f"average over depths, {ends}; {stats.ci_method}"


def _small_print(summary: Summary) -> str:
    """What the older rule says, which is not the verdict of this page."""
    said = older_rule(summary)
    falls = (
        "; its bar falls as the context grows, the one of the verdict above does not" if has_segments(summary) else ""
    )
    return f"Small print: {said}{falls}."


def _effective(bar: EffectiveBar) -> str:
    """What is sure in large: a length that only the averages name is not."""
    if bar.at_least:
        return f"at least {short_tokens(bar.at_least)}"
    return f"below {short_tokens(bar.below)}" if bar.below else UNDECIDED


def _incomplete(summary: Summary) -> str | None:
    if summary.complete is not False:
        return None
    done = summary.total_samples + summary.failed_samples
    return f"This run is incomplete: {done} of {summary.samples_planned} planned samples."


def _failed(summary: Summary) -> str | None:
    if not summary.failed_samples:
        return None
    reasons = "; ".join(f"{reason.count} x {reason.error}" for reason in summary.failures)
    return f"{summary.failed_samples} samples failed ({reasons}): {FAILED}."


def _tables(summary: Summary) -> str:
    blocks = summary.by_context_length
    inner = f"<h2>Results</h2>{length_table(blocks, has_segments(summary))}"
    for number, block in enumerate(blocks):
        name = f"By depth at {short_tokens(block.context_length)} tokens"
        opened = " open" if number == 0 and len(blocks) == 1 else ""
        inner += f"<details{opened}><summary>{escaped(name)}</summary>{depth_table(block)}</details>"
    return f"<section>{inner}</section>"


def _plots(summary: Summary) -> str:
    figures = "".join(_figure(draw(summary), caption, wide=draw is draw_heatmap) for draw, caption in _PLOTS)
    gates = recorded_gates(summary.run.model)
    if gates:
        figures += _figure(draw_gates(gates), _GATES)
    return f'<section><h2>Plots</h2><div class="plots">{figures}</div></section>'


def _figure(figure: Figure | None, caption: str, *, wide: bool = False) -> str:
    if figure is None:
        return ""
    data = base64.b64encode(svg(figure)).decode()
    image = f'<img alt="{escaped(caption)}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure{_FULL * wide}>{image}<figcaption>{escaped(caption)}</figcaption></figure>"


def _why(summary: Summary) -> str:
    trends = trend_lines(summary.trends, ("depth", "length", "compressions"))
    effective = summary.effective_context_length
    notes = [*summary.notes]
    for block in summary.by_context_length:
        notes += [line for line in (*block.warnings, *block.advice) if line not in notes]
    notes += disagreement_lines(summary)
    parts = [
        (f"Where needle and answer lie{answered_only(summary)}", place_table(summary)),
        (_wrong_title(summary.errors), wrong_table(summary.errors)),
        (f"Trends{answered_only(summary)}", _list(trends)),
        (effective.name.capitalize() if effective else "", _list(effective_lines(effective) if effective else [])),
        ("Notes and advice", _list(notes)),
    ]
    inner = "".join(f"<h3>{escaped(name)}</h3>{body}" for name, body in parts if body)
    return f"<section><h2>Why</h2>{inner}</section>"


def _diagnosis(run: DepthRun) -> str:
    """What `--diagnose` left in the run folder."""
    path = run.folder / DIAGNOSIS
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", errors="replace") as file:
        said = file.read(_LONGEST)
    note = '<p class="note">Measured on a few prompts in one process; docs/diagnosis.md says how.</p>'
    return f'<section><h2>Memory diagnosis</h2>{note}<pre class="wide">{escaped(said, _LONGEST)}</pre></section>'


def _wrong_title(errors: Errors) -> str:
    part = "" if errors.looked_at == errors.wrong else f", an even selection of {errors.looked_at} looked at"
    return f"Wrong answers ({errors.wrong}{part})"


def _list(lines: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{escaped(line)}</li>" for line in lines) + "</ul>" if lines else ""


def _samples(run: DepthRun) -> str:
    wrong, right = sample_cards(run)
    inner = f"<h3>Wrong</h3>{wrong}" if wrong else ""
    inner += f"<h3>Right</h3>{right}" if right else ""
    note = '<p class="note">Spread evenly over the run; the answer is marked.</p>'
    return f"<section><h2>Samples</h2>{note}{inner}</section>"


def _provenance(summary: Summary) -> str:
    settings = settings_table(summary.run) or "<p>No manifest: nothing is known about the settings.</p>"
    files = ", ".join(summary.run.files[:10])
    return (
        f'<section><h2>Settings and provenance</h2><p class="note">Run folder {escaped(summary.run.folder)}; '
        f"read from {escaped(files)}.</p>{settings}</section>"
    )


CSS = """
:root{--ink:#1d2129;--soft:#5c6470;--line:#e3e6ea;--paper:#fff;--wash:#f5f6f8;--blue:#0072B2;--orange:#D55E00;
--good:#00795a;--fair:#8a5a00;--poor:#b03a00}
*{box-sizing:border-box}
body{margin:0;background:var(--wash);color:var(--ink);font:15px/1.5 system-ui,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 24px 60px}
header p,.note{color:var(--soft)}
h1{font-size:26px;margin:0 0 4px;line-height:1.25;overflow-wrap:anywhere}
h2{font-size:19px;margin:0 0 12px}
h3{font-size:16px;margin:20px 0 8px}
h4{font-size:13px;margin:0 0 6px;color:var(--soft);font-weight:600}
section{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:20px 22px;margin-top:18px}
.hero{display:grid;grid-template-columns:repeat(auto-fit,minmax(210px,1fr));gap:18px 26px}
.hero div{border-left:4px solid var(--line);padding-left:12px}
.hero .good{border-color:var(--good)}.hero .fair{border-color:var(--fair)}.hero .poor{border-color:var(--poor)}
.hero strong{display:block;font-size:22px;line-height:1.25}
.hero .good strong{color:var(--good)}.hero .fair strong{color:var(--fair)}.hero .poor strong{color:var(--poor)}
.hero small{color:var(--soft);font-size:13px}
.wide{overflow-x:auto}
.unbroken{white-space:nowrap}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th{text-align:left;white-space:nowrap;color:var(--soft);font-weight:600;font-size:12.5px;
border-bottom:1px solid var(--line);padding:6px 10px 6px 0}
td{border-bottom:1px solid var(--line);padding:5px 10px 5px 0;vertical-align:middle;overflow-wrap:anywhere}
tr:last-child td{border-bottom:0}
.ci{color:var(--soft);white-space:nowrap}
.said{white-space:normal;font-size:12.5px}
.bar{display:block;position:relative;width:190px;height:12px;background:var(--wash);border-radius:3px}
.bar b{position:absolute;inset:0 auto 0 0;background:var(--blue);opacity:.8;border-radius:3px}
.bar i{position:absolute;top:5px;height:2px;background:var(--ink)}
figure{margin:0}
figcaption{color:var(--soft);font-size:13px;margin-top:4px}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(430px,1fr));gap:22px 26px}
.plots .full{grid-column:1/-1}
figure img{max-width:100%;height:auto;display:block}
ul{margin:8px 0 0;padding-left:20px}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(310px,1fr));gap:12px}
article{border:1px solid var(--line);border-left:4px solid var(--orange);border-radius:8px;
padding:12px 14px;min-width:0}
article.right{border-left-color:var(--good)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 10px;margin:0;font-size:13.5px}
dt{color:var(--soft)}
dd{margin:0;min-width:0;overflow-wrap:anywhere}
code{font:13px/1.45 ui-monospace,"DejaVu Sans Mono",monospace;white-space:pre-wrap;overflow-wrap:anywhere}
pre{font:12.5px/1.45 ui-monospace,"DejaVu Sans Mono",monospace;margin:0}
.around{font-size:13px;color:var(--soft);background:var(--wash);border-radius:6px;padding:8px 10px;margin:8px 0 0;
white-space:pre-wrap;overflow-wrap:anywhere;max-height:11em;overflow:auto}
mark{background:#ffe8a3;color:var(--ink);padding:0 2px;border-radius:2px}
details>summary{cursor:pointer;font-weight:600;padding:4px 0}
@media print{body{background:#fff}section{break-inside:avoid}}
"""
