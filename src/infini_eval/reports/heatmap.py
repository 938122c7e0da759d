"""The heat map of accuracy over depth and context length."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.api.report import report
from infini_eval.reports.plot_style import GREY, INK, LIGHT, MAP, new_figure, save, short_tokens, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from infini_eval.reports.analyze import AnalysedRun

HEADER = ("context_length", "depth_percent", "accuracy", "num_samples", "correct", "ci_low", "ci_high")
_MAX_NUMBERED = 24  # more depths than this leave no room for the numbers


@report("heatmap", when="page")
def write(run: AnalysedRun, folder: Path) -> list[Path]:
    """Write plots/heatmap.png and plots/heatmap.csv; returns what was written."""
    figure = draw(run.summary)
    return save(folder, "heatmap", figure, HEADER, rows(run.summary)) if figure else []


def rows(summary: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """One row a cell, in the order of HEADER."""
    return [
        (block["context_length"], *(cell[key] for key in HEADER[1:]))
        for block in summary["by_context_length"]
        for cell in block["results_by_depth"]
    ]


@styled
def draw(summary: Mapping[str, Any]) -> Figure | None:
    """Lengths downwards, depths to the right, the accuracy in each cell; None for a single length."""
    import numpy as np

    blocks = summary["by_context_length"]
    if len(blocks) < 2:
        return None
    depths = sorted({cell["depth_percent"] for block in blocks for cell in block["results_by_depth"]})
    grid = np.full((len(blocks), len(depths)), np.nan)
    for row, block in enumerate(blocks):
        for cell in block["results_by_depth"]:
            grid[row, depths.index(cell["depth_percent"])] = cell["accuracy"]
    figure, axes = new_figure(max(6.0, min(12.0, 2.0 + 0.42 * len(depths))), 1.7 + 0.42 * len(blocks))
    axes.set_facecolor(LIGHT)
    image = axes.pcolormesh(np.ma.masked_invalid(grid), cmap=MAP, vmin=0, vmax=100, edgecolors="white", linewidth=1.2)
    axes.set_xticks(np.arange(len(depths)) + 0.5, [f"{depth:g}" for depth in depths])
    axes.set_yticks(np.arange(len(blocks)) + 0.5, [short_tokens(block["context_length"]) for block in blocks])
    axes.invert_yaxis()
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="depth of the needle, % (0 start, 100 right before the question)", ylabel="context, tokens")
    axes.set_title("Accuracy by depth and context length")
    if len(depths) <= _MAX_NUMBERED:
        _numbers(axes, grid)
    bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=14, ticks=[0, 50, 100], format="%g %%")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelcolor=GREY)
    return figure


def _numbers(axes: Any, grid: Any) -> None:
    """The accuracy in each cell, dark on light and light on dark."""
    for row, values in enumerate(grid):
        for column, value in enumerate(values):
            if value == value:
                ink = "white" if value < 55 else INK
                axes.text(column + 0.5, row + 0.5, f"{value:.0f}", ha="center", va="center", color=ink, fontsize=8.5)
