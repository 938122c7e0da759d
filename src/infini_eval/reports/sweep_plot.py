"""A sweep over context sizes as one picture: found or not, and seconds, for each model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_sweep_plot(entries: Sequence[dict[str, Any]], path: Path) -> Path:
    """Plot the entries of a comparison (label, context_tokens, success, answer_seconds) to a PNG; returns its path."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    answered = [entry for entry in entries if entry.get("success") is not None]
    figure, (found, seconds) = plt.subplots(2, 1, sharex=True, figsize=(8, 5), layout="constrained")
    for number, label in enumerate(dict.fromkeys(entry["label"] for entry in answered)):
        own = [entry for entry in answered if entry["label"] == label]
        lengths = [entry["context_tokens"] for entry in own]
        # Models often lie on one line: smaller marks on larger ones keep all of them visible.
        style: dict[str, Any] = {"marker": "os^Dv"[number % 5], "markersize": max(4, 13 - 3 * number), "alpha": 0.8}
        found.plot(lengths, [100 * entry["success"] for entry in own], label=label, **style)
        seconds.plot(lengths, [entry["answer_seconds"] for entry in own], **style)
    found.set(ylabel="needle found, %", ylim=(-8, 108), title="one sample a point: no interval can be given")
    seconds.set(ylabel="seconds", xlabel="context, tokens", xscale="log")
    ticks = sorted({entry["context_tokens"] for entry in answered})
    seconds.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    seconds.minorticks_off()
    if answered:
        found.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
