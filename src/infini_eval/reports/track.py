"""Accuracy over the checkpoints of one training run: a table, JSON and a plot from many run folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infini_eval.errors import DataError, InfiniEvalError
from infini_eval.reports.analyze import analyze_run
from infini_eval.reports.model import DepthRun, Number, Track, TrackRow, rounded, to_text
from infini_eval.reports.plots import draw_track, recorded_gates, save, short_tokens
from infini_eval.results.files import write_atomically
from infini_eval.results.reader import find_runs

HEADER = (
    "series", "step", "context_length", "accuracy", "ci_low", "ci_high", "num_samples", "gate_mean", "gate_min",
    "gate_max", "gates_by_layer", "folder", "failed", "accuracy_failed_as_wrong",
)  # fmt: skip


def track_runs(root: str | Path) -> Track:
    """Every run below `root` whose checkpoint's step is known, as rows in order of series, length and step.

    A series is one training run (the folder that holds its checkpoints) with one memory setting. DataError where no
    run says its step. Runs that cannot be read are named in `skipped`.
    """
    rows: list[TrackRow] = []
    skipped: list[str] = []
    for folder in find_runs(Path(root)):
        try:
            run = analyze_run(folder)
        except InfiniEvalError as error:
            skipped.append(f"{folder}: {error.problem}")
            continue
        rows += rows_of(run)
        skipped += [f"{folder}: {line}" for line in _unanswered(run)]
        if step_of(run.records.manifest) is None:
            skipped.append(f"{folder}: its manifest names no checkpoint with a step")
    if not rows:
        raise DataError(f"no run below {root} says the step of its checkpoint:\n    " + "\n    ".join(skipped[:10]))
    rows.sort(key=lambda row: (row.series, row.context_length or 0, row.step, row.folder))
    return Track(tuple(rows), tuple(skipped))


def step_of(manifest: Mapping[str, Any] | None) -> tuple[str, int] | None:
    """(folder of the checkpoints, training step) from the checkpoint's path; the step is its name's last number."""
    environment, identity = ((manifest or {}).get(part) or {} for part in ("environment", "identity"))
    checkpoint = identity.get("checkpoint")
    path = environment.get("ckpt_path") or identity.get("ckpt_path")
    if path is None and isinstance(checkpoint, Mapping):
        path = checkpoint.get("path")
    numbers = re.findall(r"\d+", Path(str(path)).name) if path else []
    return (str(Path(str(path)).parent), int(numbers[-1])) if numbers else None


def write(track: Track, folder: Path) -> list[Path]:
    """Write track.json, track.txt and plots/track.png with its CSV; returns what was written."""
    write_atomically(folder / "track.json", to_text(track).encode())
    write_atomically(folder / "track.txt", (render(track) + "\n").encode("utf-8", "replace"))
    rows = [[_cell(getattr(row, name)) for name in HEADER] for row in track.rows]
    return [folder / "track.json", folder / "track.txt", *save(folder, "track", draw_track(track), HEADER, rows)]


def render(track: Track) -> str:
    """The table as text, one block a series and context length."""
    lines = ["=" * 70, "ACCURACY OVER TRAINING", "=" * 70]
    gates = any(row.gate_mean is not None for row in track.rows)
    for series, length, rows in track.by_series():
        lines += ["", f"{series}, {short_tokens(length)} tokens"]
        lines.append(
            f"{'step':>10}  {'average':>8}  {'95% interval':<15} {'n':>6}"
            + ("  gates: mean (smallest to largest)" if gates else "")
        )
        for row in rows:
            interval = f"[{row.ci_low:.1f}, {row.ci_high:.1f}]"
            gate = _gate_text(row)
            lines.append(f"{row.step:>10}  {row.accuracy:>7.2f}%  {interval:<15} {row.num_samples:>6}{gate}")
            if row.failed:
                lines.append(f"{'':>10}  {row.failed} failed: {row.accuracy_failed_as_wrong:.2f}% with them wrong")
    if not gates:
        lines += ["", "No gates are recorded with these runs."]
    return "\n".join([*lines, *(f"skipped {run}" for run in track.skipped)])


def _gate_text(row: TrackRow) -> str:
    if row.gate_mean is None:
        return ""
    reach = "" if row.gate_min is None else f" ({row.gate_min:.3f} to {row.gate_max:.3f})"
    return f"  {row.gate_mean:.4f}{reach}"


def _cell(value: Any) -> Any:
    """A value as the CSV shows it."""
    return list(value) if isinstance(value, tuple) else value


def _unanswered(run: DepthRun) -> list[str]:
    """The lengths that have no point on the curve."""
    return [
        f"no sample of {short_tokens(block.context_length)} tokens was answered ({block.failed} failed)"
        for block in run.summary.by_context_length
        if not block.total_samples
    ]


def rows_of(run: DepthRun) -> list[TrackRow]:
    """One row a context length of a run; none where the step of its checkpoint is unknown."""
    at = step_of(run.records.manifest)
    if at is None:
        return []
    model = (run.records.manifest or {}).get("model") or {}
    series = Path(at[0]).name + (f", memory {model['memory']}" if model.get("memory") else "")
    rows = []
    for block in run.summary.by_context_length:
        stats = block.summary_stats
        ends = stats.average_ci_low, stats.average_ci_high
        if stats.average_accuracy is None or ends[0] is None or ends[1] is None:
            continue  # no sample was answered
        rows.append(
            TrackRow(
                series, at[1], block.context_length, stats.average_accuracy, ends[0], ends[1], block.total_samples,
                block.failed, stats.average_failed_as_wrong, *_gates(model), str(run.folder),
            )
        )  # fmt: skip
    return rows


def _gates(model: Mapping[str, Any]) -> tuple[Any, Number | None, Number | None, tuple[Number, ...] | None]:
    """Mean, smallest and largest gate and each layer's mean; None where the manifest does not record them."""
    gates = recorded_gates(model)
    if gates is None:
        recorded = model.get("gates")
        return recorded.get("mean") if isinstance(recorded, Mapping) else None, None, None, None
    flat = [gate for heads in gates for gate in heads]
    layers = tuple(rounded(sum(heads) / len(heads)) for heads in gates)
    return rounded(sum(flat) / len(flat)), rounded(min(flat)), rounded(max(flat)), layers
