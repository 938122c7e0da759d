"""report.html of a judged run: one self-contained page; foreign text escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.reports.html_page.escape import text
from infini_eval.reports.html_page.style import CSS
from infini_eval.reports.html_page.tables import bar, interval, percent, table
from infini_eval.reports.question_text import agreement_line, one_line_of, verdict_text, warnings
from infini_eval.results.files import write_atomically

if TYPE_CHECKING:
    from infini_eval.reports.questions import AnalysedQuestions

NAME = "report.html"
SHOWN = 200
LONGEST = 4000
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
Part = Mapping[str, Any]


def write(run: AnalysedQuestions, folder: Path) -> list[Path]:
    """Write report.html into `folder`; returns what was written."""
    write_atomically(folder / NAME, page(run.summary).encode("utf-8", "replace"))
    return [folder / NAME]


def page(summary: Part) -> str:
    """The whole page."""
    title = f"{text(summary['model'])}: AA-LCR"
    about = f"{summary['questions']} questions · {summary['answers']} answers · prompt {summary['prompt'] or 'unknown'}"
    about += f" · data {summary['data_revision'] or 'unknown'}"
    body = _hero(summary) + "".join(_judge(judge) for judge in summary["judges"]) + _agreement(summary["agreement"])
    body += _wrong(summary["wrong"]) + _settings(summary["settings"])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{CSS}</style></head><body><main>"
        f"<header><h1>{title}</h1><p>{text(about)}</p></header>{body}</main></body></html>\n"
    )


def _hero(summary: Part) -> str:
    cards = ""
    for judge in summary["judges"]:
        big = "no verdict yet" if judge["accuracy"] is None else f"{judge['accuracy']:.1f} %"
        cards += f"<div><strong>{text(big)}</strong><small>{text(one_line_of(judge))}; {text(judge['ci_method'])}</small></div>"
    said = "".join(f"<li>{text(line[2:])}</li>" for line in warnings(summary))
    cards = cards or "<div><strong>not judged yet</strong></div>"
    return f'<section><div class="hero">{cards}</div>{f"<ul>{said}</ul>" if said else ""}</section>'


def _judge(judge: Part) -> str:
    counts = table(("state", "answers"), [[text(state), str(n)] for state, n in judge["counts"].items()])
    parts = [("By category", _groups(judge["by_category"])), ("By length in tokens", _groups(judge["by_length"]))]
    if len(judge["per_repeat"]) > 1:
        rows = [{**row, "name": f"repeat {row['repeat']}"} for row in judge["per_repeat"]]
        parts.append(("By repeat", _groups(rows)))
    parts.append(("Verdicts", counts))
    if judge["unparsed"]:
        names = [f"question {row['question_id']}, repeat {row['repeat']}" for row in judge["unparsed"][:SHOWN]]
        replies = [[text(name), text(row["raw"])] for name, row in zip(names, judge["unparsed"], strict=False)]
        parts.append(("Replies that are no verdict (not counted)", table(("answer", "reply"), replies)))
    inner = "".join(f"<h3>{text(name)}</h3>{part}" for name, part in parts)
    return f"<section><h2>Judge {text(judge['name'])}, protocol {text(judge['protocol'])}</h2>{inner}</section>"


def _groups(rows: Sequence[Part]) -> str:
    cells = []
    for row in rows:
        ends = (row["ci_low"], row["ci_high"])
        shown = [text(row["name"]), bar(row["accuracy"], *ends), percent(row["accuracy"]), interval(*ends)]
        cells.append([*shown, f"{row['correct'] or 0:g} / {row['n']}"])
    return table(("", "", "accuracy", "95 % interval", "right / n"), cells)


def _agreement(found: Sequence[Part]) -> str:
    lines = "".join(f"<li>{text(agreement_line(one))}</li>" for one in found)
    return f"<section><h2>Agreement of judges</h2><ul>{lines}</ul></section>" if lines else ""


def _wrong(rows: Sequence[Part]) -> str:
    """Question, official answer and the model's beside every judge's verdict."""
    made = []
    for row in rows[:SHOWN]:
        where = f"question {row['question_id']}, repeat {row['repeat']}, {row['category'] or 'no category'}"
        verdicts = "".join(
            f"<dt>{text(verdict['judge'])}</dt><dd><code>{text(verdict_text(verdict))}</code></dd>"
            for verdict in row["verdicts"]
        )
        sides = f"<dt>official</dt><dd>{text(row['official'], LONGEST)}</dd>"
        sides += f"<dt>answer</dt><dd><code>{text(row['answer'], LONGEST) or '(nothing)'}</code></dd>"
        asked = f"<p>{text(row['question'], LONGEST)}</p>"
        made.append(f'<article class="wrong"><h4>{text(where)}</h4>{asked}<dl>{sides}{verdicts}</dl></article>')
    if not made:
        return ""
    note = f"{len(rows)} answers" + (f", the first {SHOWN} shown" if len(rows) > SHOWN else "")
    title = "Not called correct by every judge"
    return f'<section><h2>{title}</h2><p class="note">{note}</p><div class="cards">{"".join(made)}</div></section>'


def _settings(settings: Part) -> str:
    rows = [[text(key), text(value)] for key, value in settings.items()]
    return f"<section><h2>Settings</h2>{table(('setting', 'value'), rows)}</section>" if rows else ""
