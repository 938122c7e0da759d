"""The plot of a training run: accuracy over the steps of its checkpoints, and the gates of each layer below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from infini_eval.reports.plot_style import percent_axis, ramp, short_tokens, stacked, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_NAMED = 12
_STYLES = ("-", "--", ":", "-.")


@styled
def draw(found: Mapping[str, Any]) -> Figure:
    """Average accuracy with intervals over steps, a line a series and length; below it the gates of each layer."""
    gates = _gates_over_steps(found["rows"])
    figure, axes = stacked(2 if gates else 1)
    series = by_series(found["rows"])
    names = {name for name, _, _ in series}
    for colour, (name, length, rows) in zip(ramp(len(series)), series, strict=True):
        step, value, low, high = ([row[key] for row in rows] for key in ("step", "accuracy", "ci_low", "ci_high"))
        label = f"{short_tokens(length)} tokens" + (f", {name}" if len(names) > 1 else "")
        axes[0].plot(step, value, marker="o", color=colour, label=label)
        axes[0].fill_between(step, low, high, color=colour, alpha=0.13, linewidth=0)
    percent_axis(axes[0], "average accuracy")
    axes[0].set_title("Accuracy over training, with 95 % intervals")
    if gates:
        _draw_gates(axes[1], gates)
    axes[-1].set_xlabel("training step of the checkpoint")
    for each in axes:
        each.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5)
    return figure


def _draw_gates(axes: Axes, gates: Mapping[str, Mapping[int, list[float]]]) -> None:
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


def _gates_over_steps(rows: Sequence[dict[str, Any]]) -> dict[str, dict[int, list[float]]]:
    """Mean gate of each layer by folder of checkpoints and step; evaluations of one checkpoint agree in them."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if row["gates_by_layer"]:
            found.setdefault(row["series"].split(", memory ")[0], {})[row["step"]] = row["gates_by_layer"]
    return found


def by_series(rows: Sequence[dict[str, Any]]) -> list[tuple[str, int | None, list[dict[str, Any]]]]:
    """Rows grouped by series and context length, in their order."""
    groups: dict[tuple[str, int | None], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["series"], row["context_length"]), []).append(row)
    return [(series, length, found) for (series, length), found in groups.items()]
