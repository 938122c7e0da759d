"""The plot of a comparison: accuracy by depth of each run, and the paired difference below."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.reports.plot_style import COLOURS, GREY, percent_axis, save, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADER = ("compared_with_A", "depth_percent", "n", "a", "b", "difference", "low", "high", "p")


def write(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write plots/compare.png and plots/compare.csv; returns what was written."""
    rows = [
        (comparison["b"], *(row[key] for key in HEADER[1:]))
        for comparison in found["comparisons"]
        for row in comparison["by_depth"]
    ]
    return save(folder, "compare", draw(found), HEADER, rows)


@styled
def draw(found: Mapping[str, Any]) -> Figure:
    """Accuracy above, B - A with 95 % intervals below, both over depth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 5.6), layout="constrained", facecolor="white")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1.2, 1])
    names = {run["letter"]: f"{run['letter']}: {Path(run['folder']).name}" for run in found["runs"]}
    for number, comparison in enumerate(found["comparisons"]):
        rows = comparison["by_depth"]
        depth = [row["depth_percent"] for row in rows]
        colour = COLOURS[(number + 1) % len(COLOURS)]
        if number == 0:
            above.plot(depth, [row["a"] for row in rows], marker="o", color=COLOURS[0], label=names["A"])
        above.plot(depth, [row["b"] for row in rows], marker="o", color=colour, label=names[comparison["b"]])
        difference = [row["difference"] for row in rows]
        below.plot(depth, difference, marker="o", color=colour, label=f"{comparison['b']} - A")
        low, high = ([row[key] for row in rows] for key in ("low", "high"))
        below.fill_between(depth, low, high, color=colour, alpha=0.15, linewidth=0)
    percent_axis(above)
    above.set_title("Accuracy by depth")
    above.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5)
    below.axhline(0, color=GREY, linewidth=1)
    below.set_ylabel("difference, points")
    below.set_xlabel("depth of the needle, % (0 start, 100 right before the question)")
    below.set_title("Paired difference, with 95 % intervals")
    below.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5)
    return figure
