"""Bytes that one prefill step needs beside weights and state, as each engine really computes a layer."""

from __future__ import annotations

from infini_eval.planning.activations_native import native_phases
from infini_eval.planning.activations_transformers import eager_softmax_bytes, expert_bytes, transformers_phases
from infini_eval.planning.architecture import Architecture
from infini_eval.planning.step_shape import AttentionKernel, Phase, StepShape

__all__ = [
    "AttentionKernel",
    "StepShape",
    "activation_bytes",
    "eager_softmax_bytes",
    "expert_bytes",
    "heaviest_phase",
    "logit_bytes",
]


def heaviest_phase(architecture: Architecture, step: StepShape) -> Phase:
    """The tensors of the phase that needs most, over a prefill's steps and, in each, over a layer's phases."""
    phases = (native_phases if architecture.engine == "native" else transformers_phases)(architecture, step)
    return max(phases, key=sum)


def activation_bytes(architecture: Architecture, step: StepShape) -> int:
    """The sum of the heaviest phase."""
    return round(sum(heaviest_phase(architecture, step)))


def logit_bytes(architecture: Architecture, positions: int = 1, rows: int = 1, tp: int = 1) -> int:
    """fp32 logits of `positions` positions of each row; this package asks only for the last one."""
    return round(rows * positions * architecture.vocab_size * 4 / tp)
