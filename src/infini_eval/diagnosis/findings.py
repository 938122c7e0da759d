"""What a checkpoint's gates say at a glance, in words: never trained, closed, saturated, stored in low precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.errors import CheckpointError
from infini_eval.models.load import balance_factors, gates

UNMOVED = 1e-3  # a balance factor this close to zero is where `balance_init_type: zeros` put it
CLOSED = 0.02  # a gate below this gives the memory no say


@dataclass(frozen=True)
class Finding:
    """One observation: how grave it is, and what it means."""

    level: Literal["ok", "note", "problem"]
    text: str


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint is; `gates` is [layers][heads], empty for a plain Llama."""

    folder: str
    kind: str
    parameters: int
    saved: dict[str, int]
    config_dtype: str
    stored_dtype: str
    segment_length: int | None
    gate_activation: str | None
    gates: list[list[float]]
    findings: list[Finding]


def inspect(checkpoint: Checkpoint) -> Inspection:
    """Read a checkpoint's facts and gates (and every weight once, so that NaN is found)."""
    config = checkpoint.config
    findings = [Finding("note", note) for note in checkpoint.notes] + _bad_weights(checkpoint)
    values: list[list[float]] = []
    damaged = any(finding.level == "problem" for finding in findings)
    if config.has_segments and not damaged:
        values = gates(checkpoint).tolist()
        findings += _gate_findings(checkpoint, balance_factors(checkpoint), gates(checkpoint))
    elif not config.has_segments:
        findings.append(Finding("note", "a plain Llama: ordinary causal attention, no compressive memory, no gates"))
    return Inspection(
        folder=str(checkpoint.folder),
        kind=config.kind,
        parameters=config.parameter_count,
        saved={"dp": config.saved_dp, "tp": checkpoint.saved_tp, "pp": checkpoint.saved_pp},
        config_dtype=config.dtype,
        stored_dtype=str(checkpoint.stored_dtype).removeprefix("torch."),
        segment_length=config.segment_length,
        gate_activation=config.gate_activation,
        gates=values,
        findings=findings,
    )


def _bad_weights(checkpoint: Checkpoint) -> list[Finding]:
    found = []
    for name in checkpoint.specs:
        try:
            checkpoint.read(name)
        except CheckpointError as error:
            found.append(Finding("problem", error.problem))
    return found


def _gate_findings(checkpoint: Checkpoint, factors_LN: torch.Tensor, gates_LN: torch.Tensor) -> list[Finding]:
    config, findings = checkpoint.config, []
    if config.memory == "off":
        findings.append(Finding("problem", "turn_on_memory is false: memory and gates are not used at all"))
    unmoved = factors_LN.float().abs() < UNMOVED
    if unmoved.all():
        text = f"all gates are where they started ({gates_LN.mean():.3f}): they were never trained (check balance_factor_lr)"
        findings.append(Finding("problem", text))
    elif unmoved.any():
        findings.append(Finding("note", f"gates that never left their initial value: {_heads(unmoved)}"))
    closed = gates_LN < CLOSED
    for layer, row in enumerate(closed.tolist()):
        if all(row):
            text = f"layer {layer} does not use its memory: every gate is below {CLOSED}"
            findings.append(Finding("problem" if closed.all() else "note", text))
    if config.gate_activation == "hard_sigmoid":
        stuck = (gates_LN == 0) | (gates_LN == 1)
        if stuck.any():
            text = f"gates at exactly 0 or 1, where hard_sigmoid has no gradient: {_heads(stuck)}"
            findings.append(Finding("note", text))
    if (gates_LN < 0).any():
        findings.append(
            Finding("note", f"negative gates (orig_tanh subtracts what memory returns): {_heads(gates_LN < 0)}")
        )
    if factors_LN.dtype != torch.float32:
        dtype = str(factors_LN.dtype).removeprefix("torch.")
        findings.append(
            Finding("note", f"gates are stored in {dtype}: updates smaller than their rounding were lost in training")
        )
    if not any(finding.level == "problem" for finding in findings):
        findings.append(Finding("ok", f"gates were trained and span {gates_LN.min():.3f} to {gates_LN.max():.3f}"))
    return findings


def _heads(flags_LN: torch.Tensor, most: int = 8) -> str:
    """ "layer 0 heads 1, 3; layer 2 head 0", at most `most` layers."""
    parts: list[str] = []
    for layer, row in enumerate(flags_LN.tolist()):
        heads: Sequence[int] = [head for head, flag in enumerate(row) if flag]
        if heads:
            parts.append(f"layer {layer} head{'s' * (len(heads) > 1)} {', '.join(map(str, heads))}")
    return "; ".join(parts[:most]) + (f"; and {len(parts) - most} more layers" if len(parts) > most else "")
