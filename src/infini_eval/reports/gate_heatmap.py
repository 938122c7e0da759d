"""The heat map of gates: the weight of the memory, 0 to 1, in each layer and head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infini_eval.api.report import report
from infini_eval.reports.plot_style import GREY, INK, MAP, new_figure, save, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from infini_eval.reports.analyze import AnalysedRun

_MAX_NUMBERED = 24


@report("gate_heatmap", when="page")
def write(run: AnalysedRun, folder: Path) -> list[Path]:
    """Write plots/gates.png and .csv from the gates that the run's manifest records; nothing without them."""
    values = recorded_gates(run.summary["run"]["model"])
    return write_gates(values, folder) if values else []


def recorded_gates(model: object) -> list[list[float]] | None:
    """`gates.values` of a manifest's model, [layers][heads]; None where there are none or they are not such a table."""
    gates = model.get("gates") if isinstance(model, Mapping) else None
    values = gates.get("values") if isinstance(gates, Mapping) else None
    if not isinstance(values, list) or not values or not all(isinstance(row, list) and row for row in values):
        return None
    numbers = all(isinstance(value, int | float) for row in values for value in row)
    return values if numbers and len({len(row) for row in values}) == 1 else None


def write_gates(gates: Sequence[Sequence[float]], folder: Path) -> list[Path]:
    """Write plots/gates.png and plots/gates.csv from gates [layers][heads] in 0..1; returns what was written."""
    rows = [(layer, head, gate) for layer, heads in enumerate(gates) for head, gate in enumerate(heads)]
    return save(folder, "gates", draw(gates), ("layer", "head", "gate"), rows)


@styled
def draw(gates: Sequence[Sequence[float]]) -> Figure:
    """Layers downwards, heads to the right; numbers in the cells where there is room for them."""
    import numpy as np

    grid = np.asarray(gates, dtype=float)
    layers, heads = grid.shape
    figure, axes = new_figure(max(4.6, min(12.0, 2.4 + 0.5 * heads)), max(2.4, min(10.0, 1.5 + 0.36 * layers)))
    image = axes.pcolormesh(grid, cmap=MAP, vmin=0, vmax=1, edgecolors="white", linewidth=1.2)
    axes.set_xticks(np.arange(heads) + 0.5, [str(head) for head in range(heads)])
    axes.set_yticks(np.arange(layers) + 0.5, [str(layer) for layer in range(layers)])
    axes.invert_yaxis()
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="head", ylabel="layer")
    axes.set_title("Gates: weight of the memory")
    if max(layers, heads) <= _MAX_NUMBERED:
        for (layer, head), gate in np.ndenumerate(grid):
            ink = "white" if gate < 0.55 else INK
            axes.text(head + 0.5, layer + 0.5, f"{gate:.2f}", ha="center", va="center", color=ink, fontsize=8.5)
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=14, ticks=[0, 0.5, 1])
    bar.outline.set_visible(False)
    bar.ax.set_yticklabels(["0 local only", "0.5", "1 memory only"])
    bar.ax.tick_params(length=0, labelcolor=GREY)
    return figure
