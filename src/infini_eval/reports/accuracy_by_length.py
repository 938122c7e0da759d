"""The plot of average accuracy over context length, with the bars that define the effective context length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.api.report import report
from infini_eval.reports.plot_style import COLOURS, GREY, new_figure, percent_axis, save, short_tokens, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from infini_eval.reports.analyze import AnalysedRun

HEADER = (
    "context_length", "average_accuracy", "ci_low", "ci_high", "num_samples", "failed", "average_failed_as_wrong",
    "bound_low", "bound_high",
)  # fmt: skip


@report("accuracy_by_length", when="page")
def write(run: AnalysedRun, folder: Path) -> list[Path]:
    """Write plots/accuracy_by_length.png and .csv; nothing for a single length."""
    figure = draw(run.summary)
    return save(folder, "accuracy_by_length", figure, HEADER, rows(run.summary)) if figure else []


def rows(summary: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """One row a labelled length, in the order of HEADER."""
    found = []
    for block in summary["by_context_length"]:
        stats = block["summary_stats"]
        values = (stats["average_accuracy"], stats["average_ci_low"], stats["average_ci_high"])
        bound = (stats[name] for name in HEADER[-3:])
        if block["context_length"]:
            found.append((block["context_length"], *values, block["total_samples"], block["failed"], *bound))
    return found


@styled
def draw(summary: Mapping[str, Any]) -> Figure | None:
    """Points with intervals over the logarithm of the length, and the bars; None below two lengths.

    Where samples failed, a hollow point is the average with them as wrong, and its line the interval that verdicts use.
    """
    cells = rows(summary)
    if len(cells) < 2:
        return None
    figure, axes = new_figure()
    length = [cell[0] for cell in cells]
    _bars(axes, summary["effective_context_length"], length[0])
    answered = [cell[:4] for cell in cells if cell[1] is not None]
    _points(axes, answered, "average over depths", fmt="o-", color=COLOURS[0])
    failed = [(cell[0], *cell[-3:]) for cell in cells if cell[5]]
    if failed:
        _points(axes, failed, "failed samples counted as wrong", fmt="o", color=COLOURS[1], markerfacecolor="white")
    axes.set_xscale("log", base=2)
    axes.set_xticks(length, [short_tokens(n) for n in length])
    axes.minorticks_off()
    percent_axis(axes)
    axes.set_xlabel("context, tokens")
    axes.set_title("Average accuracy by context length, with 95 % intervals")
    axes.legend(loc="lower left", fontsize=8.5)
    return figure


def _bars(axes: Axes, effective: Mapping[str, Any], shortest: int) -> None:
    """The fixed bar with its source, and the relative one where there is one."""
    names = {"fixed": f"fixed bar ({effective['source']})", "relative": f"0.85 x the score at {short_tokens(shortest)}"}
    for (name, words), style in zip(names.items(), ("--", ":"), strict=True):
        if effective[name] is not None:
            bar = effective[name]["threshold"]
            axes.axhline(bar, color=GREY, linestyle=style, linewidth=1.1, label=f"{bar:.1f} %: {words}")


def _points(axes: Axes, cells: Sequence[tuple[Any, ...]], label: str, **style: Any) -> None:
    """(length, value, low, high) each, as a point with its interval."""
    errors = [[value - low for _, value, low, _ in cells], [high - value for _, value, _, high in cells]]
    at, values = [cell[0] for cell in cells], [cell[1] for cell in cells]
    axes.errorbar(at, values, yerr=errors, capsize=3, elinewidth=1.2, label=label, **style)
