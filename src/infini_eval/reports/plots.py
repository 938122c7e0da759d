"""Every plot of a report, in one style that colour-blind readers can tell apart; PNG and CSV side by side."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from infini_eval.api.report import report
from infini_eval.reports.model import (
    Comparisons,
    CompressionCell,
    DepthRun,
    EffectiveContext,
    Summary,
    Track,
    TrackRow,
)
from infini_eval.reports.model_facts import facts_of, one_line
from infini_eval.results.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Drawn = TypeVar("Drawn")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's palette
MAP = "cividis"
INK, GREY, LIGHT = "#222222", "#666666", "#DDDDDD"
FOLDER = "plots"
_RC: Any = {
    "font.family": "DejaVu Sans", "font.size": 9.5, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": GREY,
    "axes.titlesize": 11.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 12,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": LIGHT, "grid.linewidth": 0.7, "xtick.color": GREY, "ytick.color": GREY, "legend.frameon": False,
    "lines.linewidth": 1.8, "lines.markersize": 4.5, }  # fmt: skip


def styled(draw: Callable[..., Drawn]) -> Callable[..., Drawn]:
    """A drawing function that works in this style, whatever the process's own matplotlib settings are."""

    @functools.wraps(draw)
    def within(*args: Any, **options: Any) -> Drawn:
        import matplotlib

        with matplotlib.rc_context(_RC):
            return draw(*args, **options)

    return within


def new_figure(width: float = 7.2, height: float = 3.8) -> tuple[Figure, Axes]:
    """A figure in inches, to be drawn on within `styled`; pyplot and its global state are never touched."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    return figure, figure.add_subplot()


def stacked(rows: int, width: float = 8.2, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    """A figure of plots one above the other that share their x axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 0.6 + height * rows), layout="constrained", facecolor="white")
    return figure, list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])


def percent_axis(axes: Axes, label: str = "accuracy") -> None:
    """The y axis from 0 to 100 %, with room for marks at the ends."""
    axes.set_ylim(-3, 103)
    axes.set_yticks(range(0, 101, 20), [f"{tick} %" for tick in range(0, 101, 20)])
    axes.set_ylabel(label)


def ramp(count: int) -> list[str]:
    """Colours for an ordered series: the palette for up to three, else steps of the map without its palest end."""
    if count <= 3:
        return list(COLOURS[:count])
    import matplotlib

    colours = matplotlib.colormaps[MAP]
    return [matplotlib.colors.to_hex(colours(0.05 + 0.8 * step / (count - 1))) for step in range(count)]


def short_tokens(tokens: float | None) -> str:
    """1024 as "1k", 1,048,576 as "1m", others as they are."""
    if tokens is None:
        return "unlabelled"
    for size, suffix in ((1024**2, "m"), (1024, "k")):
        if tokens >= size and tokens % size == 0:
            return f"{tokens // size:g}{suffix}"
    return f"{tokens:g}"


def png(figure: Figure) -> bytes:
    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(out, format="png", dpi=160)
    return out.getvalue()


def save(folder: Path, name: str, figure: Figure, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[Path]:
    """Write plots/<name>.png and plots/<name>.csv with the numbers that it shows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    paths = [folder / FOLDER / f"{name}.png", folder / FOLDER / f"{name}.csv"]
    for path, data in zip(paths, (png(figure), text.getvalue().encode()), strict=True):
        write_atomically(path, data)
    return paths


def titled(axes: Axes, words: str, summary: Summary) -> None:
    """What is drawn, and of which run: pictures of several runs lie beside each other."""
    axes.set_title(words, pad=24)
    axes.annotate(
        _run_name(summary), (0, 1), xytext=(0, 8), xycoords="axes fraction", textcoords="offset points", fontsize=9, color=GREY,
        parse_math=False,
    )  # fmt: skip


def _run_name(summary: Summary) -> str:
    facts = facts_of(summary)
    return ", ".join([facts.name, facts.task, *([f"memory {one_line(str(facts.memory), 40)}"] if facts.memory else [])])


CELL_HEADER = (
    "context_length", "depth_percent", "accuracy", "num_samples", "correct", "ci_low", "ci_high", "failed",
    "accuracy_failed_as_wrong",
)  # fmt: skip
_MAX_NUMBERED = 24  # more depths than this leave no room for the numbers


@report("heatmap", when="page")
def heatmap(run: DepthRun, folder: Path) -> list[Path]:
    """Write plots/heatmap.png and plots/heatmap.csv; returns what was written."""
    figure = draw_heatmap(run.summary)
    return save(folder, "heatmap", figure, CELL_HEADER, cell_rows(run.summary)) if figure else []


def cell_rows(summary: Summary) -> list[tuple[Any, ...]]:
    """One row a cell, in the order of CELL_HEADER."""
    return [
        (block.context_length, *(getattr(cell, name) for name in CELL_HEADER[1:]))
        for block in summary.by_context_length
        for cell in block.results_by_depth
    ]


@styled
def draw_heatmap(summary: Summary) -> Figure | None:
    """Lengths downwards, depths to the right, the accuracy in each cell; None for a single length.

    A star marks cells some of whose samples failed; cells without any answer hold a star alone.
    """
    import numpy as np

    blocks = summary.by_context_length
    if len(blocks) < 2:
        return None
    depths = sorted({cell.depth_percent for block in blocks for cell in block.results_by_depth})
    grid = np.full((len(blocks), len(depths)), np.nan)
    failed = np.zeros(grid.shape, bool)
    for row, block in enumerate(blocks):
        for cell in block.results_by_depth:
            place = row, depths.index(cell.depth_percent)
            grid[place] = np.nan if cell.accuracy is None else cell.accuracy
            failed[place] = cell.failed > 0
    figure, axes = new_figure(max(6.0, min(12.0, 2.0 + 0.42 * len(depths))), 1.7 + 0.42 * len(blocks))
    axes.set_facecolor(LIGHT)
    image = axes.pcolormesh(np.ma.masked_invalid(grid), cmap=MAP, vmin=0, vmax=100, edgecolors="white", linewidth=1.2)
    axes.set_xticks(np.arange(len(depths)) + 0.5, [f"{depth:g}" for depth in depths])
    axes.set_yticks(np.arange(len(blocks)) + 0.5, [short_tokens(block.context_length) for block in blocks])
    axes.invert_yaxis()
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="depth of the needle, % (0 start, 100 right before the question)", ylabel="context, tokens")
    titled(axes, "Accuracy by depth and context length", summary)
    if failed.any():
        axes.set_xlabel(f"{axes.get_xlabel()}\n* some samples failed and are not counted")
    if len(depths) <= _MAX_NUMBERED:
        _numbers(axes, grid, failed)
    bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=14, ticks=[0, 50, 100], format="%g %%")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelcolor=GREY)
    return figure


def _numbers(axes: Any, grid: Any, failed: Any) -> None:
    """The accuracy in each cell, dark on light and light on dark."""
    for row, values in enumerate(grid):
        for column, value in enumerate(values):
            shown = ("" if value != value else f"{value:.0f}") + "*" * bool(failed[row, column])
            if shown:
                ink = "white" if value < 55 else INK
                axes.text(column + 0.5, row + 0.5, shown, ha="center", va="center", color=ink, fontsize=8.5)


_IN_A_ROW = 3  # small charts


@report("accuracy_by_depth", when="page")
def accuracy_by_depth(run: DepthRun, folder: Path) -> list[Path]:
    """Write plots/accuracy_by_depth.png and .csv; returns what was written."""
    return save(folder, "accuracy_by_depth", draw_by_depth(run.summary), CELL_HEADER, cell_rows(run.summary))


@styled
def draw_by_depth(summary: Summary) -> Figure:
    """Small multiples: one chart a length on the same axes, a point with its interval at each depth."""
    from matplotlib.figure import Figure

    blocks = summary.by_context_length
    columns = min(len(blocks), _IN_A_ROW)
    rows = -(-len(blocks) // columns)
    size = (7.2, 3.8) if len(blocks) == 1 else (2.9 * columns + 0.6, 2.5 * rows + 0.7)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    charts = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    for axes, block in zip(charts, blocks, strict=False):
        cells = [cell for cell in block.results_by_depth if cell.accuracy is not None]
        points = [(cell.depth_percent, cell.accuracy, cell.ci_low, cell.ci_high) for cell in cells]
        _points(axes, points, "", fmt="o-", color=COLOURS[0], capsize=0, markersize=3.5, clip_on=False)
        failed = f", {block.failed} failed" if block.failed else ""
        axes.set_title(f"{short_tokens(block.context_length)} tokens (n={block.total_samples}{failed})", fontsize=9.5)
        percent_axis(axes, "")
        axes.set_xlim(-3, 103)
    for axes in charts[len(blocks) :]:
        axes.remove()
    title = f"Accuracy by depth, with 95 % intervals\n{_run_name(summary)}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, parse_math=False)
    figure.supxlabel("depth of the needle, % (0 start, 100 right before the question)", fontsize=9.5)
    return figure


LENGTH_HEADER = (
    "context_length", "average_accuracy", "ci_low", "ci_high", "num_samples", "failed", "average_failed_as_wrong",
    "bound_low", "bound_high",
)  # fmt: skip


@report("accuracy_by_length", when="page")
def accuracy_by_length(run: DepthRun, folder: Path) -> list[Path]:
    """Write plots/accuracy_by_length.png and .csv; nothing for a single length."""
    figure = draw_by_length(run.summary)
    return save(folder, "accuracy_by_length", figure, LENGTH_HEADER, length_rows(run.summary)) if figure else []


def length_rows(summary: Summary) -> list[tuple[Any, ...]]:
    """One row a labelled length, in the order of LENGTH_HEADER."""
    rows = []
    for block in summary.by_context_length:
        stats = block.summary_stats
        average = (stats.average_accuracy, stats.average_ci_low, stats.average_ci_high)
        bound = (stats.average_failed_as_wrong, stats.bound_low, stats.bound_high)
        if block.context_length:
            rows.append((block.context_length, *average, block.total_samples, block.failed, *bound))
    return rows


@styled
def draw_by_length(summary: Summary) -> Figure | None:
    """Points with intervals over the logarithm of the length, and the bars; None below two lengths.

    Where samples failed, a hollow point is the average with them as wrong, and its line the interval that verdicts use.
    """
    cells = length_rows(summary)
    if len(cells) < 2:
        return None
    figure, axes = new_figure()
    length = [cell[0] for cell in cells]
    if summary.effective_context_length:
        _bars(axes, summary.effective_context_length, length[0])
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
    titled(axes, "Average accuracy by context length, with 95 % intervals", summary)
    axes.legend(loc="lower left", fontsize=8.5)
    return figure


def _bars(axes: Axes, effective: EffectiveContext, shortest: int) -> None:
    """The fixed bar with its source, and the relative one where there is one."""
    fixed, relative = f"fixed bar ({effective.source})", f"0.85 x the score at {short_tokens(shortest)}"
    for bar, words, style in ((effective.fixed, fixed, "--"), (effective.relative, relative, ":")):
        if bar is not None:
            label = f"{bar.threshold:.1f} %: {words}"
            axes.axhline(bar.threshold, color=GREY, linestyle=style, linewidth=1.1, label=label)


def _points(axes: Axes, cells: Sequence[tuple[Any, ...]], label: str, **style: Any) -> None:
    """(length, value, low, high) each, as a point with its interval."""
    errors = [[value - low for _, value, low, _ in cells], [high - value for _, value, _, high in cells]]
    at, values = [cell[0] for cell in cells], [cell[1] for cell in cells]
    axes.errorbar(at, values, yerr=errors, label=label, **({"capsize": 3, "elinewidth": 1.2} | style))


COMPRESSIONS_HEADER = ("from", "to", "accuracy", "num_samples", "correct", "ci_low", "ci_high")
_MAX_LEVEL = 8  # more labels than this would touch each other


@report("accuracy_by_compressions", when="page")
def accuracy_by_compressions(run: DepthRun, folder: Path) -> list[Path]:
    """Write plots/accuracy_by_compressions.png and .csv; nothing where the records do not say compressions."""
    figure = draw_by_compressions(run.summary)
    cells = run.summary.segment_analysis.by_compressions
    rows = [[cell.to_json()[key] for key in COMPRESSIONS_HEADER] for cell in cells]
    return save(folder, "accuracy_by_compressions", figure, COMPRESSIONS_HEADER, rows) if figure else []


@styled
def draw_by_compressions(summary: Summary) -> Figure | None:
    """Points with intervals and n over 1 + compressions (logarithmic); None where fewer than two are known."""
    cells = summary.segment_analysis.by_compressions
    if len(cells) < 2:
        return None
    figure, axes = new_figure()
    at = [1 + (cell.first * cell.last) ** 0.5 for cell in cells]
    trend = summary.trends.compressions
    if trend.curve:
        x = [1 + point.x for point in trend.curve]
        low, high = [point.ci_low for point in trend.curve], [point.ci_high for point in trend.curve]
        axes.fill_between(x, low, high, color=COLOURS[1], alpha=0.18, linewidth=0)
        axes.plot(x, [point.accuracy for point in trend.curve], color=COLOURS[1], label="logistic fit, 95 % interval")
    points = [(x, cell.accuracy, cell.ci_low, cell.ci_high) for x, cell in zip(at, cells, strict=True)]
    _points(axes, points, "measured", capsize=2.5, elinewidth=1.2, fmt="o", color=COLOURS[0])
    axes.set_xscale("log", base=2)
    crowded = len(cells) > _MAX_LEVEL
    turned: Any = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes.set_xticks(at, [_label(cell) for cell in cells], **turned)
    axes.minorticks_off()
    for x_at, cell in zip(at, cells, strict=True):
        axes.annotate(
            _count(cell.num_samples), (x_at, 0.015), xycoords=("data", "axes fraction"),
            ha="center", fontsize=7.5, color=GREY,
        )  # fmt: skip
    axes.annotate("n", (-0.015, 0.015), xycoords="axes fraction", ha="right", fontsize=7.5, color=GREY)
    percent_axis(axes)
    axes.set_ylim(-9, 103)
    axes.set_xlabel("compressions: segment borders between needle and question")
    titled(axes, "Accuracy by compressions survived", summary)
    axes.legend(loc="upper right", bbox_to_anchor=(1.0, 1.2), ncols=2, fontsize=8.5)
    return figure


def _label(cell: CompressionCell) -> str:
    return f"{cell.first}" if cell.first == cell.last else f"{cell.first}-{cell.last}"


def _count(n: int) -> str:
    return f"{n}" if n < 1000 else f"{n / 1000:.3g}k"


@report("gate_heatmap", when="page")
def gate_heatmap(run: DepthRun, folder: Path) -> list[Path]:
    """Write plots/gates.png and .csv from the gates that the run's manifest records; nothing without them."""
    values = recorded_gates(run.summary.run.model)
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
    return save(folder, "gates", draw_gates(gates), ("layer", "head", "gate"), rows)


@styled
def draw_gates(gates: Sequence[Sequence[float]]) -> Figure:
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


COMPARISON_HEADER = ("compared_with_A", "depth_percent", "n", "a", "b", "difference", "low", "high", "p")


def write_comparison_plot(comparisons: Comparisons, folder: Path) -> list[Path]:
    """Write plots/compare.png and plots/compare.csv; returns what was written."""
    rows = [
        (comparison.b, *(getattr(row, name) for name in COMPARISON_HEADER[1:]))
        for comparison in comparisons.comparisons
        for row in comparison.by_depth
    ]
    return save(folder, "compare", draw_comparison(comparisons), COMPARISON_HEADER, rows)


@styled
def draw_comparison(comparisons: Comparisons) -> Figure:
    """Accuracy above, B - A with 95 % intervals below, both over depth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 5.6), layout="constrained", facecolor="white")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1.2, 1])
    names = {run.letter: f"{run.letter}: {Path(run.folder).name}" for run in comparisons.runs}
    for place, comparison in enumerate(comparisons.comparisons):
        rows = comparison.by_depth
        depth = [row.depth_percent for row in rows]
        colour = COLOURS[(place + 1) % len(COLOURS)]
        if place == 0:
            above.plot(depth, [row.a for row in rows], marker="o", color=COLOURS[0], label=names["A"])
        above.plot(depth, [row.b for row in rows], marker="o", color=colour, label=names[comparison.b])
        difference = [row.difference for row in rows]
        below.plot(depth, difference, marker="o", color=colour, label=f"{comparison.b} - A")
        low, high = [row.low for row in rows], [row.high for row in rows]
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


_MAX_NAMED = 12
_STYLES = ("-", "--", ":", "-.")


@styled
def draw_track(track: Track) -> Figure:
    """Average accuracy with intervals over steps, a line a series and length; below it the gates of each layer."""
    gates = _gates_over_steps(track.rows)
    figure, axes = stacked(2 if gates else 1)
    series = track.by_series()
    names = {name for name, _, _ in series}
    for colour, (name, length, rows) in zip(ramp(len(series)), series, strict=True):
        step = [row.step for row in rows]
        label = f"{short_tokens(length)} tokens" + (f", {name}" if len(names) > 1 else "")
        axes[0].plot(step, [row.accuracy for row in rows], marker="o", color=colour, label=label)
        low, high = [row.ci_low for row in rows], [row.ci_high for row in rows]
        axes[0].fill_between(step, low, high, color=colour, alpha=0.13, linewidth=0)
    percent_axis(axes[0], "average accuracy")
    axes[0].set_title("Accuracy over training, with 95 % intervals")
    if gates:
        _draw_gates_over_steps(axes[1], gates)
    axes[-1].set_xlabel("training step of the checkpoint")
    for each in axes:
        each.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5)
    return figure


def _draw_gates_over_steps(axes: Axes, gates: Mapping[str, Mapping[int, Sequence[float]]]) -> None:
    """The mean gate of each layer; with many layers only the first and last are named."""
    for place, (_, by_step) in enumerate(gates.items()):
        layers = max(map(len, by_step.values()))
        for layer, colour in enumerate(ramp(layers)):
            named = place == 0 and (layers <= _MAX_NAMED or layer in (0, layers - 1))
            points = [(step, means[layer]) for step, means in sorted(by_step.items()) if layer < len(means)]
            axes.plot(
                *zip(*points, strict=True), marker="o", color=colour, linestyle=_STYLES[place % len(_STYLES)],
                label=f"layer {layer}" if named else None,
            )  # fmt: skip
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("mean gate")
    axes.set_title("Gates over training: weight of the memory (0 local only, 1 memory only)")


def _gates_over_steps(rows: Sequence[TrackRow]) -> dict[str, dict[int, Sequence[float]]]:
    """Mean gate of each layer by folder of checkpoints and step; evaluations of one checkpoint agree in them."""
    gates: dict[str, dict[int, Sequence[float]]] = {}
    for row in rows:
        if row.gates_by_layer:
            gates.setdefault(row.series.split(", memory ")[0], {})[row.step] = row.gates_by_layer
    return gates


def write_sweep_plot(entries: Sequence[dict[str, Any]], path: Path) -> Path:
    """Plot the entries of a comparison (label, context_tokens, success, answer_seconds) to a PNG; returns its path."""
    write_atomically(path, png(draw_sweep([entry for entry in entries if entry.get("success") is not None])))
    return path


@styled
def draw_sweep(answered: Sequence[dict[str, Any]]) -> Figure:
    """Needle found above, seconds below, over the context's length; a point is one sample, which has no interval."""
    figure, (found, seconds) = stacked(2)
    for number, label in enumerate(dict.fromkeys(entry["label"] for entry in answered)):
        own = [entry for entry in answered if entry["label"] == label]
        lengths = [entry["context_tokens"] for entry in own]
        # Models often lie on one line: smaller marks on larger ones keep all of them visible.
        style: dict[str, Any] = {"marker": "os^Dv"[number % 5], "markersize": max(4, 13 - 3 * number), "alpha": 0.85}
        style["color"] = COLOURS[number % len(COLOURS)]
        found.plot(lengths, [100 * entry["success"] for entry in own], label=label.replace("$", r"\$"), **style)
        seconds.plot(lengths, [entry["answer_seconds"] for entry in own], **style)
    percent_axis(found, "needle found")
    found.set_ylim(-8, 108)
    found.set_title("Needle found by context length")
    seconds.set(
        ylabel="seconds", xlabel="context, tokens (one sample a point, for which there is no interval)", xscale="log"
    )
    ticks = sorted({entry["context_tokens"] for entry in answered})
    seconds.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    seconds.minorticks_off()
    seconds.set_title("Time to answer")
    if answered:
        found.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5)
    return figure
