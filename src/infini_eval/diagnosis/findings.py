"""What a checkpoint's gates say at a glance, in words: never trained, closed, saturated, stored in low precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelConfig
from infini_eval.errors import CheckpointError
from infini_eval.models.load import balance_factors, gates

UNMOVED = 1e-3  # a balance factor this close to zero is where `balance_init_type: zeros` put it
CLOSED = 0.02  # a gate below this gives the memory no say
WIDE_OPEN = 0.98  # a gate above this gives local attention none
NOT_FINITE = "are NaN or infinite"  # how the reader's error says so


@dataclass(frozen=True)
class Finding:
    """One observation: how grave it is, and what it means."""

    level: Literal["ok", "note", "problem"]
    text: str


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint is; `gates` is [layers][heads], empty for a plain Llama or Qwen2."""

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
    damaged, dead = _weight_findings(checkpoint)
    findings = [Finding("note", note) for note in checkpoint.notes] + damaged + dead
    values: list[list[float]] = []
    if config.has_segments and not damaged:
        values = gates(checkpoint).tolist()
        findings += _gate_findings(checkpoint, balance_factors(checkpoint), gates(checkpoint))
    elif not config.has_segments:
        findings.append(Finding("note", _without_memory(config)))
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


def _without_memory(config: ModelConfig) -> str:
    """A model without segments in one sentence, with what its layers have that a Llama's have not."""
    parts = [f"a plain {config.family}: ordinary causal attention, no compressive memory, no gates"]
    layers = range(config.num_hidden_layers)
    windows = sum(config.window_of(layer) is not None for layer in layers)
    if config.attention_bias:
        parts.append("biases of q, k and v")
    if config.no_rope_layer is not None:
        without = sum(not config.has_rotary(layer) for layer in layers)
        parts.append(f"no rotary embedding in {without} of {len(layers)} layers (no_rope_layer {config.no_rope_layer})")
    if windows:
        parts.append(f"a sliding window of {config.sliding_window:,} tokens in {windows} of {len(layers)} layers")
    if config.rope_interpolation != 1:
        parts.append(f"positions divided by {config.rope_interpolation:g}")
    return "; ".join(parts)


def _weight_findings(checkpoint: Checkpoint) -> tuple[list[Finding], list[Finding]]:
    """Weights that cannot be read (NaN among them), and weights that are all zeros; every parameter is read once."""
    damaged, dead = [], []
    for name in checkpoint.specs:
        try:
            weight = checkpoint.read(name)
        except CheckpointError as error:
            damaged.append(Finding("problem", error.problem))
            continue
        if not name.endswith("balance_factors"):
            dead += _dead_weights(checkpoint.config, name, weight)
    return damaged, dead


def _dead_weights(config: ModelConfig, name: str, weight: torch.Tensor) -> list[Finding]:
    """A parameter that is all zeros, or a head's queries, keys, values or slice of o_proj."""
    short, found = name.removeprefix("model.").replace(".pp_block", ""), []
    if name.endswith("bias"):
        return []  # zeros are where biases start
    if not weight.any():
        return [Finding("problem", f"{short} is all zeros: nothing gets through it")]
    if name.endswith("qkv_proj.weight"):
        heads = {"queries": config.num_attention_heads, "keys": config.num_key_value_heads}
        heads["values"] = heads["keys"]
        parts = weight.split([count * config.head_dim for count in heads.values()])
        for (kind, count), part in zip(heads.items(), parts, strict=True):
            found += _dead_heads(part.reshape(count, -1), f"{kind} in {short}")
    elif name.endswith("o_proj.weight"):
        by_head = weight.unflatten(1, (config.num_attention_heads, -1)).transpose(0, 1).flatten(1)
        found += _dead_heads(by_head, f"outputs in {short}")
    return found


def _dead_heads(weight_NX: torch.Tensor, what: str) -> list[Finding]:
    dead = [str(head) for head, row in enumerate(weight_NX) if not row.any()]
    return [Finding("problem", f"{what} of head{'s' * (len(dead) > 1)} {', '.join(dead)} are zero")] if dead else []


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
    for layer, row in enumerate((gates_LN > WIDE_OPEN).tolist()):
        if all(row):
            findings.append(Finding("note", f"layer {layer} has no local attention: every gate is above {WIDE_OPEN}"))
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
