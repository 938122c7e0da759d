"""The plot of average accuracy over context length, with the bars that define the effective context length."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.api.report import report
from infini_eval.reports.plot_style import COLOURS, GREY, new_figure, percent_axis, save, short_tokens, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from infini_eval.reports.analyze import AnalysedRun

HEADER = ("context_length", "average_accuracy", "ci_low", "ci_high", "num_samples")


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
        if block["context_length"]:
            found.append((block["context_length"], *values, block["total_samples"]))
    return found


@styled
def draw(summary: Mapping[str, Any]) -> Figure | None:
    """Points with intervals over the logarithm of the length, and both bars; None below two lengths."""
    cells = rows(summary)
    if len(cells) < 2:
        return None
    length, value, low, high, _ = (list(column) for column in zip(*cells, strict=True))
    figure, axes = new_figure()
    for name, style in (("fixed", "--"), ("relative", ":")):
        bar = summary["effective_context_length"][name]["threshold"]
        label = f"{bar:.1f} %: " + (
            "fixed bar" if name == "fixed" else f"0.85 x the score at {short_tokens(length[0])}"
        )
        axes.axhline(bar, color=GREY, linestyle=style, linewidth=1.1, label=label)
    errors = [[v - x for v, x in zip(value, low, strict=True)], [x - v for v, x in zip(value, high, strict=True)]]
    axes.errorbar(
        length, value, yerr=errors, fmt="o-", color=COLOURS[0], capsize=3, elinewidth=1.2, label="average over depths"
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(length, [short_tokens(n) for n in length])
    axes.minorticks_off()
    percent_axis(axes)
    axes.set_xlabel("context, tokens")
    axes.set_title("Average accuracy by context length, with 95 % intervals")
    axes.legend(loc="lower left", fontsize=8.5)
    return figure
