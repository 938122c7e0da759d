"""The plot of accuracy over depth, one line a context length, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.api.report import report
from infini_eval.reports.heatmap import HEADER, rows
from infini_eval.reports.plot_style import new_figure, percent_axis, ramp, save, short_tokens, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from infini_eval.reports.analyze import AnalysedRun

_MAX_BANDS = 4


@report("accuracy_by_depth", when="page")
def write(run: AnalysedRun, folder: Path) -> list[Path]:
    """Write plots/accuracy_by_depth.png and .csv; returns what was written."""
    return save(folder, "accuracy_by_depth", draw(run.summary), HEADER, rows(run.summary))


@styled
def draw(summary: Mapping[str, Any]) -> Figure:
    """Intervals are bands for up to four lengths, else they are in the table and the CSV only."""
    blocks = summary["by_context_length"]
    figure, axes = new_figure()
    for colour, block in zip(ramp(len(blocks)), blocks, strict=True):
        cells = block["results_by_depth"]
        depth = [cell["depth_percent"] for cell in cells]
        label = f"{short_tokens(block['context_length'])} tokens (n={block['total_samples']})"
        axes.plot(depth, [cell["accuracy"] for cell in cells], marker="o", color=colour, label=label, clip_on=False)
        if len(blocks) <= _MAX_BANDS:
            low, high = ([cell[key] for cell in cells] for key in ("ci_low", "ci_high"))
            axes.fill_between(depth, low, high, color=colour, alpha=0.13, linewidth=0)
    percent_axis(axes)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("depth of the needle, % (0 start, 100 right before the question)")
    axes.set_title("Accuracy by depth" + (", with 95 % intervals" if len(blocks) <= _MAX_BANDS else ""))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5)
    return figure
