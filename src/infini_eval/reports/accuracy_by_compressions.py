"""The plot of accuracy over the compressions that the needle survived, with the fitted curve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.api.report import report
from infini_eval.reports.plot_style import COLOURS, GREY, new_figure, percent_axis, save, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from infini_eval.reports.analyze import AnalysedRun

HEADER = ("from", "to", "accuracy", "num_samples", "correct", "ci_low", "ci_high")
_MAX_LEVEL = 8  # more labels than this would touch each other


@report("accuracy_by_compressions", when="page")
def write(run: AnalysedRun, folder: Path) -> list[Path]:
    """Write plots/accuracy_by_compressions.png and .csv; nothing where the records do not say compressions."""
    figure = draw(run.summary)
    cells = run.summary["segment_analysis"]["by_compressions"]
    rows = [[cell[key] for key in HEADER] for cell in cells]
    return save(folder, "accuracy_by_compressions", figure, HEADER, rows) if figure else []


@styled
def draw(summary: Mapping[str, Any]) -> Figure | None:
    """Points with intervals and n over 1 + compressions (logarithmic); None where fewer than two are known."""
    cells = summary["segment_analysis"]["by_compressions"]
    if len(cells) < 2:
        return None
    figure, axes = new_figure()
    at = [1 + (cell["from"] * cell["to"]) ** 0.5 for cell in cells]
    trend = summary["trends"]["compressions"]
    if trend["curve"]:
        x = [1 + point["x"] for point in trend["curve"]]
        low, middle, high = ([point[key] for point in trend["curve"]] for key in ("ci_low", "accuracy", "ci_high"))
        axes.fill_between(x, low, high, color=COLOURS[1], alpha=0.18, linewidth=0)
        axes.plot(x, middle, color=COLOURS[1], label="logistic fit, 95 % interval")
    errors = [
        [cell["accuracy"] - cell["ci_low"] for cell in cells],
        [cell["ci_high"] - cell["accuracy"] for cell in cells],
    ]
    values = [cell["accuracy"] for cell in cells]
    axes.errorbar(at, values, yerr=errors, fmt="o", color=COLOURS[0], capsize=2.5, elinewidth=1.2, label="measured")
    axes.set_xscale("log", base=2)
    crowded = len(cells) > _MAX_LEVEL
    turned: Any = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes.set_xticks(at, [_label(cell) for cell in cells], **turned)
    axes.minorticks_off()
    for x_at, cell in zip(at, cells, strict=True):
        axes.annotate(
            _count(cell["num_samples"]), (x_at, 0.015), xycoords=("data", "axes fraction"),
            ha="center", fontsize=7.5, color=GREY,
        )  # fmt: skip
    axes.annotate("n", (-0.015, 0.015), xycoords="axes fraction", ha="right", fontsize=7.5, color=GREY)
    percent_axis(axes)
    axes.set_ylim(-9, 103)
    axes.set_xlabel("compressions: segment borders between needle and question")
    axes.set_title("Accuracy by compressions survived")
    axes.legend(loc="upper right", bbox_to_anchor=(1.0, 1.14), ncols=2, fontsize=8.5)
    return figure


def _label(cell: Mapping[str, Any]) -> str:
    return f"{cell['from']}" if cell["from"] == cell["to"] else f"{cell['from']}-{cell['to']}"


def _count(n: int) -> str:
    return f"{n}" if n < 1000 else f"{n / 1000:.3g}k"
