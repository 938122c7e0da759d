"""The page around the browser of results: Jinja2 templates, the content-security-policy, and report.html in one file.

The application (web/*.js, web/app.css) is the same in report.html, in a folder for a web server and behind `infini-eval view`.
It reads JSON files by name: those that stand in the page itself, else from beside the page. Foreign text is in that JSON,
or escaped by the template; the application puts it into the page as text only.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval._version import __version__
from infini_eval.api.report import report
from infini_eval.reports.model import AnalysedRun, LengthSummary, QuestionSummary, Summary, to_json
from infini_eval.reports.model_facts import has_segments
from infini_eval.reports.payload import RunFiles, RunRow, run_row
from infini_eval.reports.plots import short_tokens
from infini_eval.reports.statistics.failures import KINDS
from infini_eval.reports.story import Story, failed_words
from infini_eval.results.files import write_atomically

if TYPE_CHECKING:
    from jinja2 import Environment

NAME = "report.html"
WEB = Path(__file__).parent / "web"
TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "dom.js", "store.js", "charts.js", "views.js", "app.js")
STYLE = "app.css"
LISTED, LONGEST = 600, 1500  # samples in one file, and characters of an answer; `infini-eval view` shows all
SHOWN = 600  # characters of foreign text in the part without scripts
# The library writes one style element of fixed content into each chart; this is its hash.
CHART_STYLE = "sha256-jSYQUrW7J0b3jPqhZP9C2Xh1PyJKHKXd4s0fpGGKrww="


@report("html", when="page")
def html_report(run: AnalysedRun, folder: Path) -> list[Path]:
    """Write report.html into `folder`; returns what was written."""
    write_atomically(folder / NAME, page(run).encode())
    return [folder / NAME]


def page(run: AnalysedRun) -> str:
    """One run as one file that opens from disk: the application with an even selection of at most LISTED samples."""
    row = run_row(run, "run", run.folder.resolve().name or str(run.folder))
    return one_file([row], RunFiles(run, row, LISTED, LONGEST).all(), _told(run.summary))


def card(summary: Summary | QuestionSummary) -> str:
    """The page's verdict and tables as one piece for a notebook: self-contained, its style within its own element."""
    return _render("card.html.j2", **_told(summary))


def _told(summary: Summary | QuestionSummary) -> dict[str, Any]:
    """What the templates show of a run."""
    if isinstance(summary, Summary):
        return {"story": Story.of(summary), "blocks": summary.by_context_length, "summary": summary}
    return {"story": Story.of_questions(summary), "blocks": (), "summary": summary}


def one_file(
    rows: Sequence[RunRow], files: Mapping[str, Any], shown: Mapping[str, Any], open: str | None = None
) -> str:
    """The application and these files in one page; `shown` is what the template shows where no script runs.

    open: the address that the page shows first; by default the list of runs, or the only run.
    """
    scripts = [(WEB / name).read_text(encoding="utf-8") for name in SCRIPTS]
    style = (WEB / STYLE).read_text(encoding="utf-8")
    inline = " ".join(f"'{_sha256(text)}'" for text in scripts)
    policy = _policy(script=inline, style=f"'{_sha256(style)}' '{CHART_STYLE}'")
    content = {"index.json": to_json(index(rows, open=open)), **files}
    return _render(
        "page.html.j2", policy=policy, scripts=scripts, style=style, files=embedded(content), rows=rows, **shown
    )


def served_page(rows: Sequence[RunRow], content: Mapping[str, Any]) -> str:
    """The application that reads its files from beside it; `content` is what stands in the page, index.json first of all."""
    policy = served_policy()
    return _render("page.html.j2", policy=policy, sources=SCRIPTS, sheet=STYLE, files=embedded(content), rows=rows)


def served_policy() -> str:
    """The content-security-policy of a page whose files lie beside it."""
    return _policy(script="'self'", style=f"'self' '{CHART_STYLE}'", connect="'self'")


def index(rows: Sequence[RunRow], **more: Any) -> dict[str, Any]:
    """The content of index.json: the list of runs, and what a site of many runs adds."""
    return {"version": __version__, "runs": list(rows), "track": None, "pairs": None, "open": None, **more}


def embedded(content: Any) -> str:
    """JSON that no HTML parser mistakes for markup: ASCII, without < > and &."""
    text = json.dumps(to_json(content), allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _policy(*, script: str, style: str, connect: str = "'none'") -> str:
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src {connect}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _sha256(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _render(template: str, **values: Any) -> str:
    return _templates().get_template(template).render(version=__version__, **values)


@functools.cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    made.filters |= {"visible": visible, "tokens": short_tokens, "failed_words": failed_words, "kinds": _kinds}
    made.globals |= {"has_segments": has_segments}
    return made


def visible(value: object, limit: int = SHOWN) -> str:
    """Any value as text of at most `limit` characters, with what cannot be seen written out; the template escapes it."""
    whole = "" if value is None else str(value)
    more = f" … ({len(whole) - limit:,} more characters)" if len(whole) > limit else ""
    return "".join(c if c.isprintable() or c in "\n\t" else _written(c) for c in whole[:limit]) + more


def _written(c: str) -> str:
    return f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}"


def _kinds(block: LengthSummary, depth: float) -> str:
    """The most frequent kinds of wrong answers at one depth, in words."""
    wrong = {cell.depth_percent: cell.kinds for cell in block.errors.by_depth}
    found = sorted(wrong.get(depth, {}).items(), key=lambda item: -item[1])
    return ", ".join(f"{count} {KINDS[kind].split(' (')[0]}" for kind, count in found[:3])


def web_files() -> Iterable[str]:
    """The application's own files, licences of its libraries among them."""
    return (*SCRIPTS, STYLE, *(f"vendor/{path.name}" for path in sorted((WEB / "vendor").glob("*.LICENSE"))))
