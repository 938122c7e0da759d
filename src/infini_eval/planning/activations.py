"""Bytes that one prefill step needs beside weights and state, as each engine really computes a layer."""

from __future__ import annotations

from infini_eval.planning.activations_native import native_phases
from infini_eval.planning.activations_transformers import (
    eager_softmax_bytes,
    expert_bytes,
    transformers_phases,
    transformers_steps,
)
from infini_eval.planning.architecture import Architecture
from infini_eval.planning.step_shape import AttentionKernel, Phase, StepShape

__all__ = [
    "AttentionKernel",
    "StepShape",
    "eager_softmax_bytes",
    "expert_bytes",
    "heaviest_phase",
    "logit_bytes",
    "steps_of",
]


def steps_of(architecture: Architecture, step: StepShape) -> list[StepShape]:
    """The steps of a prefill among which the heaviest is."""
    return [step] if architecture.engine == "native" else transformers_steps(step)


def heaviest_phase(architecture: Architecture, step: StepShape) -> Phase:
    """The tensors of the phase of a layer that needs most in one step."""
    phases = (native_phases if architecture.engine == "native" else transformers_phases)(architecture, step)
    return max(phases, key=sum)


def logit_bytes(architecture: Architecture, positions: int = 1, rows: int = 1, tp: int = 1) -> int:
    """fp32 logits of `positions` positions of each row; this package asks only for the last one."""
    return round(rows * positions * architecture.vocab_size * 4 / tp)
