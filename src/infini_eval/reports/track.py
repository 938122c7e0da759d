"""Accuracy over the checkpoints of one training run: a table, JSON and a plot from many run folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infini_eval.errors import DataError, InfiniEvalError
from infini_eval.reports import track_plot
from infini_eval.reports.analyze import AnalysedRun, analyze_run
from infini_eval.reports.gate_heatmap import recorded_gates
from infini_eval.reports.numbers import number
from infini_eval.reports.plot_style import save, short_tokens
from infini_eval.reports.summary import to_text
from infini_eval.reports.track_plot import by_series
from infini_eval.results.files import write_atomically
from infini_eval.results.reader import find_runs

HEADER = (
    "series", "step", "context_length", "accuracy", "ci_low", "ci_high", "num_samples", "gate_mean", "gate_min",
    "gate_max", "gates_by_layer", "folder", "failed", "accuracy_failed_as_wrong",
)  # fmt: skip


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
        skipped += [f"{folder}: {line}" for line in _unanswered(run)]
        if step_of(run.records.manifest) is None:
            skipped.append(f"{folder}: its manifest names no checkpoint with a step")
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
    return [folder / "track.json", folder / "track.txt", *save(folder, "track", track_plot.draw(found), HEADER, rows)]


def render(found: Mapping[str, Any]) -> str:
    """The table as text, one block a series and context length."""
    lines = ["=" * 70, "ACCURACY OVER TRAINING", "=" * 70]
    gates = any(row["gate_mean"] is not None for row in found["rows"])
    for series, length, rows in by_series(found["rows"]):
        lines += ["", f"{series}, {short_tokens(length)} tokens"]
        lines.append(
            f"{'step':>10}  {'average':>8}  {'95% interval':<15} {'n':>6}"
            + ("  gates: mean (smallest to largest)" if gates else "")
        )
        for row in rows:
            interval = f"[{row['ci_low']:.1f}, {row['ci_high']:.1f}]"
            gate = _gate_text(row)
            lines.append(f"{row['step']:>10}  {row['accuracy']:>7.2f}%  {interval:<15} {row['num_samples']:>6}{gate}")
            if row["failed"]:
                lines.append(
                    f"{'':>10}  {row['failed']} failed: {row['accuracy_failed_as_wrong']:.2f}% with them wrong"
                )
    if not gates:
        lines += ["", "No gates are recorded with these runs."]
    return "\n".join([*lines, *(f"skipped {text}" for text in found["skipped"])])


def _gate_text(row: Mapping[str, Any]) -> str:
    if row["gate_mean"] is None:
        return ""
    reach = "" if row["gate_min"] is None else f" ({row['gate_min']:.3f} to {row['gate_max']:.3f})"
    return f"  {row['gate_mean']:.4f}{reach}"


def _unanswered(run: AnalysedRun) -> list[str]:
    """The lengths that have no point on the curve."""
    return [
        f"no sample of {short_tokens(block['context_length'])} tokens was answered ({block['failed']} failed)"
        for block in run.summary["by_context_length"]
        if not block["total_samples"]
    ]


def _rows(run: AnalysedRun) -> list[dict[str, Any]]:
    """One row a context length; none where the step is unknown."""
    at = step_of(run.records.manifest)
    if at is None:
        return []
    model = (run.records.manifest or {}).get("model") or {}
    gates = _gate_columns(model)
    series = Path(at[0]).name + (f", memory {model['memory']}" if model.get("memory") else "")
    return [
        {
            "series": series, "step": at[1], "context_length": block["context_length"],
            "accuracy": block["summary_stats"]["average_accuracy"], "ci_low": block["summary_stats"]["average_ci_low"],
            "ci_high": block["summary_stats"]["average_ci_high"], "num_samples": block["total_samples"],
            "failed": block["failed"], "accuracy_failed_as_wrong": block["summary_stats"]["average_failed_as_wrong"],
            **gates, "folder": str(run.folder),
        }
        for block in run.summary["by_context_length"]
        if block["total_samples"]
    ]  # fmt: skip


def _gate_columns(model: Mapping[str, Any]) -> dict[str, Any]:
    """Mean, smallest and largest gate and each layer's mean; None where the manifest does not record them."""
    values = recorded_gates(model)
    if values is None:
        gates = model.get("gates")
        mean = gates.get("mean") if isinstance(gates, Mapping) else None
        return {"gate_mean": mean, "gate_min": None, "gate_max": None, "gates_by_layer": None}
    layers = [number(sum(row) / len(row)) for row in values]
    flat = [value for row in values for value in row]
    return {
        "gate_mean": number(sum(flat) / len(flat)), "gate_min": number(min(flat)), "gate_max": number(max(flat)),
        "gates_by_layer": layers,
    }  # fmt: skip
