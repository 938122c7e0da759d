"""Samples as cards for report.html: what was asked for, what came, and the text around the needle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infini_eval.reports.html_page.escape import marked, text
from infini_eval.reports.plot_style import short_tokens
from infini_eval.reports.statistics.error_kinds import KINDS, error_kind

if TYPE_CHECKING:
    import numpy as np

    from infini_eval.reports.analyze import AnalysedRun

WRONG, RIGHT = 12, 4
_TEXTS = ("answer", "generation_text", "excerpt", "number_from")


def cards(run: AnalysedRun) -> tuple[str, str]:
    """Wrong and right samples, spread evenly over the run, as two pieces of HTML."""
    import numpy as np

    scored = run.scored
    wrong = np.flatnonzero(scored.correct < 1)
    right = np.flatnonzero(scored.correct >= 1)
    return _cards(run, _spread(wrong, WRONG), False), _cards(run, _spread(right, RIGHT), True)


def _spread(places: np.ndarray, count: int) -> np.ndarray:
    import numpy as np

    if len(places) <= count:
        return places
    return places[np.linspace(0, len(places) - 1, count).astype(int)]


def _cards(run: AnalysedRun, places: np.ndarray, right: bool) -> str:
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
            f'<article class="{"right" if right else "wrong"}"><h4>{text(where)}</h4>'
            f"<dl><dt>asked for</dt><dd><code>{text(answer)}</code></dd>"
            f"<dt>answered</dt><dd><code>{text(generation, 300) or '(nothing)'}</code></dd>"
            f"<dt>kind</dt><dd>{text(kind)}</dd></dl>{around}</article>"
        )
    return f'<div class="cards">{"".join(made)}</div>' if made else ""


def _kind(answer: str | None, generation: str | None, excerpt: str | None, source: str | None) -> str:
    """The kind of a wrong answer, without its explanation in brackets."""
    return KINDS[error_kind(answer or "", generation or "", excerpt, source)[0]].split(" (")[0]
