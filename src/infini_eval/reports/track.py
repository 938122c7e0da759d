"""Accuracy over the checkpoints of one training run: a table, JSON and a plot from many run folders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.errors import DataError, InfiniEvalError
from infini_eval.reports.analyze import AnalysedRun, analyze_run
from infini_eval.reports.plot_style import new_figure, percent_axis, ramp, save, short_tokens, styled
from infini_eval.reports.summary import to_text
from infini_eval.results.files import write_atomically
from infini_eval.results.folders import find_runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADER = ("series", "step", "context_length", "accuracy", "ci_low", "ci_high", "num_samples", "gate_mean", "folder")


def track_runs(root: str | Path) -> dict[str, Any]:
    """Every run below `root` whose checkpoint's step is known, as rows in order of series, length and step; JSON-ready.

    A series is one training run (the folder that holds its checkpoints) with one memory setting. DataError where no
    run says its step. Runs that cannot be read are named in `skipped`.
    """
    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    for folder in find_runs(Path(root)):
        try:
            run = analyze_run(folder)
        except InfiniEvalError as error:
            skipped.append(f"{folder}: {error.problem}")
            continue
        found = _rows(run)
        rows += found
        skipped += [] if found else [f"{folder}: its manifest names no checkpoint with a step"]
    if not rows:
        raise DataError(f"no run below {root} says the step of its checkpoint:\n    " + "\n    ".join(skipped[:10]))
    rows.sort(key=lambda row: (row["series"], row["context_length"] or 0, row["step"], row["folder"]))
    return {"schema_version": 1, "rows": rows, "skipped": skipped}


def step_of(manifest: Mapping[str, Any] | None) -> tuple[str, int] | None:
    """(folder of the checkpoints, training step) from the checkpoint's path; the step is its name's last number."""
    environment, identity = ((manifest or {}).get(part) or {} for part in ("environment", "identity"))
    checkpoint = identity.get("checkpoint")
    path = environment.get("ckpt_path") or identity.get("ckpt_path")
    if path is None and isinstance(checkpoint, Mapping):
        path = checkpoint.get("path")
    numbers = re.findall(r"\d+", Path(str(path)).name) if path else []
    return (str(Path(str(path)).parent), int(numbers[-1])) if numbers else None


def write(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write track.json, track.txt and plots/track.png with its CSV; returns what was written."""
    write_atomically(folder / "track.json", to_text(found).encode())
    write_atomically(folder / "track.txt", (render(found) + "\n").encode("utf-8", "replace"))
    rows = [[row[key] for key in HEADER] for row in found["rows"]]
    return [folder / "track.json", folder / "track.txt", *save(folder, "track", draw(found), HEADER, rows)]


def render(found: Mapping[str, Any]) -> str:
    """The table as text, one block a series and context length."""
    lines = ["=" * 70, "ACCURACY OVER TRAINING", "=" * 70]
    gates = any(row["gate_mean"] is not None for row in found["rows"])
    for series, length, rows in _series(found["rows"]):
        lines += ["", f"{series}, {short_tokens(length)} tokens"]
        lines.append(f"{'step':>10}  {'average':>8}  {'95% interval':<15} {'n':>6}" + ("  mean gate" if gates else ""))
        for row in rows:
            interval = f"[{row['ci_low']:.1f}, {row['ci_high']:.1f}]"
            gate = f"  {row['gate_mean']:.4f}" if row["gate_mean"] is not None else ""
            lines.append(f"{row['step']:>10}  {row['accuracy']:>7.2f}%  {interval:<15} {row['num_samples']:>6}{gate}")
    if not gates:
        lines += ["", "No gates are recorded with these runs."]
    return "\n".join([*lines, *(f"skipped {text}" for text in found["skipped"])])


@styled
def draw(found: Mapping[str, Any]) -> Figure:
    """Average accuracy with intervals over training steps, one line a series and context length."""
    figure, axes = new_figure()
    series = _series(found["rows"])
    names = {name for name, _, _ in series}
    for colour, (name, length, rows) in zip(ramp(len(series)), series, strict=True):
        step, value, low, high = ([row[key] for row in rows] for key in ("step", "accuracy", "ci_low", "ci_high"))
        label = f"{short_tokens(length)} tokens" + (f", {name}" if len(names) > 1 else "")
        axes.plot(step, value, marker="o", color=colour, label=label)
        axes.fill_between(step, low, high, color=colour, alpha=0.13, linewidth=0)
    percent_axis(axes, "average accuracy")
    axes.set_xlabel("training step of the checkpoint")
    axes.set_title("Accuracy over training, with 95 % intervals")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5)
    return figure


def _rows(run: AnalysedRun) -> list[dict[str, Any]]:
    """One row a context length; none where the step is unknown."""
    at = step_of(run.records.manifest)
    if at is None:
        return []
    model = (run.records.manifest or {}).get("model") or {}
    gates = model.get("gates")
    gate = gates.get("mean") if isinstance(gates, Mapping) else None
    series = Path(at[0]).name + (f", memory {model['memory']}" if model.get("memory") else "")
    return [
        {
            "series": series, "step": at[1], "context_length": block["context_length"],
            "accuracy": block["summary_stats"]["average_accuracy"], "ci_low": block["summary_stats"]["average_ci_low"],
            "ci_high": block["summary_stats"]["average_ci_high"], "num_samples": block["total_samples"],
            "gate_mean": gate, "folder": str(run.folder),
        }
        for block in run.summary["by_context_length"]
    ]  # fmt: skip


def _series(rows: Sequence[dict[str, Any]]) -> list[tuple[str, int | None, list[dict[str, Any]]]]:
    """Rows grouped by series and context length, in their order."""
    groups: dict[tuple[str, int | None], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["series"], row["context_length"]), []).append(row)
    return [(series, length, found) for (series, length), found in groups.items()]
