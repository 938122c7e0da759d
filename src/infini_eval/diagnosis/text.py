"""Inspections and diagnoses as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infini_eval.diagnosis.findings import Inspection

SHADES = " ░▒▓█"
MARKS = {"ok": "✓", "note": "·", "problem": "✗"}
MOST_HEADS = 12


def inspection_text(found: Inspection) -> str:
    """Facts, the gates as a heat map of layers by heads, and the findings."""
    saved = found.saved
    lines = [
        f"checkpoint   {found.folder}",
        f"model        {found.kind}, {found.parameters:,} parameters",
        f"saved with   dp={saved['dp']} tp={saved['tp']} pp={saved['pp']}",
        f"weights      {found.stored_dtype} (config: {found.config_dtype})",
    ]
    if found.segment_length:
        lines.append(f"segments     {found.segment_length} tokens, gate {found.gate_activation}")
    if found.gates:
        lines += ["", "gates (0 local attention only, 1 memory only)", *gate_map(found.gates)]
    lines += ["", "findings", *(f"{MARKS[finding.level]} {finding.text}" for finding in found.findings)]
    return "\n".join(lines)


def gate_map(gates: Sequence[Sequence[float]], widest: int = 16) -> list[str]:
    """One row a layer: a shaded cell a head, and the numbers while they fit."""
    rows = []
    for layer, row in enumerate(gates):
        shades = "".join(SHADES[min(4, int(abs(value) * 5))] * 2 for value in row)
        numbers = (
            " ".join(f"{value:5.2f}" for value in row) if len(row) <= widest else f"{min(row):.2f} to {max(row):.2f}"
        )
        rows.append(f"layer {layer:>3} |{shades}| {numbers}")
    return rows


def diagnosis_text(report: Mapping[str, Any]) -> str:
    """The verdict and the measurements behind it."""
    lines = [
        f"checkpoint   {report['checkpoint']}",
        f"samples      {report['samples']} with the needle in an earlier segment, {report['correct']} answered correctly",
        f"VERDICT      {report['verdict']['label']}: {report['verdict']['reason']}",
        "",
        "the memory points at the answer by (logits above other answers; 95 % t-interval)",
        *(f"  {label:<46} {_interval(report['evidence_all'][name])}" for name, label in EVIDENCE.items()),
        "",
        "by segments folded since the needle was written (without the gates)",
        *_over_time(report["over_time"]),
        "",
        "heads by what the answer's log-probability loses without their reading",
        " layer head   gate  share of mix  probe logits  answer loses",
        *(_head(row) for row in report["heads"][:MOST_HEADS]),
        "",
        "memory at the question, by layer: mean |M|, mean |z|, smallest denominator of a read",
        *(_health(row) for row in report["health"]),
        "",
        f"memory kept in bfloat16 instead of float32, relative error after {report['bfloat16_memory']['tokens']:,} tokens",
        *(
            f"  layer {layer:>3}  M {row['memory']:.2%}  z {row['z']:.2%}"
            for layer, row in enumerate(report["bfloat16_memory"]["relative_error_by_layer"])
        ),
    ]
    return "\n".join(lines)


EVIDENCE = {
    "written": "right after the needle was written",
    "held": "in the memory that the question reads",
    "read": "through the gates, at the question",
    "lost_without_memory": "log-probability the answer loses without memory",
}


def _interval(value: Mapping[str, Any]) -> str:
    if value["low"] is None:
        return f"{value['mean']:+.2f} (n={value['n']})"
    return f"{value['mean']:+.2f} [{value['low']:+.2f}, {value['high']:+.2f}] (n={value['n']})"


def _over_time(rows: Sequence[Mapping[str, Any]], width: int = 40) -> list[str]:
    top = max((row["logits"] for row in rows), default=0.0)
    bars = ["█" * round(width * max(0.0, row["logits"]) / top) if top > 0 else "" for row in rows]
    return [
        f"  +{row['segments_after']:<5} {bar} {row['logits']:+.2f} (n={row['n']})"
        for row, bar in zip(rows, bars, strict=True)
    ]


def _health(row: Mapping[str, Any]) -> str:
    norms = f"{_mean(row['memory_norm']):10.3g} {_mean(row['z_norm']):10.3g}"
    return f"  layer {row['layer']:>3}  {norms} {row['smallest_denominator']:10.3g}"


def _head(row: Mapping[str, Any]) -> str:
    low, high = row["answer_loses_low"], row["answer_loses_high"]
    reach = "" if low is None else f" [{low:+.2f}, {high:+.2f}]"
    return (
        f"  {row['layer']:>4} {row['head']:>4}  {row['gate']:5.2f}  {row['share_of_mix']:12.1%}  {row['probe_logits']:12.2f}"
        f"  {row['answer_loses']:+.2f}{reach}"
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
