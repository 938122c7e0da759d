"""One style for every plot: colours that colour-blind readers can tell apart, quiet axes, PNG and CSV side by side."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

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
    "lines.linewidth": 1.8, "lines.markersize": 4.5, "svg.fonttype": "path", "svg.hashsalt": "infini_eval",
}  # fmt: skip


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
    return _rendered(figure, "png", dpi=160)


def svg(figure: Figure) -> bytes:
    return _rendered(figure, "svg", metadata={"Date": None})


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


def _rendered(figure: Figure, kind: str, **options: Any) -> bytes:
    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(out, format=kind, **options)
    return out.getvalue()
