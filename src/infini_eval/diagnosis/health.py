"""The memory's health in one segment: norms of M and z, the smallest denominator, and its share of the mix, by head.

Legend: N query heads, L segment length, H head width, D model width, P points along the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import MemoryQuery, ModelConfig, ModelSettings
from infini_eval.diagnosis.ablation import prefix_state
from infini_eval.engine.native_model import NativeModel
from infini_eval.models import naive
from infini_eval.models.naive import MemoryState, Weights

FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the segments that a question can have before it


@dataclass(frozen=True)
class SegmentHealth:
    """What the positions of one segment find in one layer's memory, each [N].

    share: mean over the positions of |g A| / (|g A| + |(1 - g) O_local|).
    """

    segment: int
    memory_norm: torch.Tensor
    z_norm: torch.Tensor
    smallest_denominator: torch.Tensor
    share: torch.Tensor


def points_along(question_segment: int) -> list[int]:
    """A few segments from the first one with a memory to the question's."""
    return sorted({1 + round(fraction * (question_segment - 1)) for fraction in FRACTIONS})


def segment_health(
    x_BLD: torch.Tensor,
    state: MemoryState | None,
    layer: Weights,
    config: ModelConfig,
    memory_query: MemoryQuery,
    segment: int,
) -> SegmentHealth:
    """Measure the reads of every position of one segment (normed input `x_BLD`, B = 1) from the memory before it."""
    assert state is not None, "the first segment has no memory"
    memory_NHH, z_NH = state[0][0], state[1][0]
    q, k, v = naive.project(x_BLD, layer, config)
    q_rotated = naive.rope(q, config)
    local_NLH = (naive.causal_softmax(q_rotated, naive.rope(k, config), config.softmax_scale) @ v)[0]
    features_NLH = naive.feature_map(q_rotated if memory_query == "rotary" else q)[0]
    denominator_NL = torch.einsum("nlh,nh->nl", features_NLH, z_NH)
    retrieved_NLH = features_NLH @ memory_NHH / denominator_NL[..., None]
    gate_N1 = naive.gate(layer["attn.balance_factors"], config.gate_activation)[:, None]
    share_NL = share_of_mix(gate_N1, retrieved_NLH, local_NLH)
    smallest = denominator_NL.min(dim=1).values
    return SegmentHealth(segment, memory_NHH.norm(dim=(1, 2)), z_NH.norm(dim=1), smallest, share_NL.mean(dim=1))


def share_of_mix(gate: torch.Tensor, retrieved: torch.Tensor, local: torch.Tensor) -> torch.Tensor:
    """|g A| / (|g A| + |(1 - g) O_local|) over the last dim."""
    memory, rest = (gate[..., None] * retrieved).norm(dim=-1), ((1 - gate)[..., None] * local).norm(dim=-1)
    share: torch.Tensor = memory / (memory + rest).clamp(min=1e-30)
    return share


def health_rows(by_sample: Sequence[Sequence[Sequence[SegmentHealth]]], points: int) -> list[dict[str, Any]]:
    """A row for each layer and point [samples][layers][points]: means over samples, by head; the smallest denominator."""
    rows = []
    for layer in range(len(by_sample[0])):
        for point in range(points):
            found = [sample[layer][point] for sample in by_sample]
            rows.append(
                {
                    "layer": layer,
                    "segment": sum(item.segment for item in found) / len(found),
                    "memory_norm": torch.stack([item.memory_norm for item in found]).mean(0).tolist(),
                    "z_norm": torch.stack([item.z_norm for item in found]).mean(0).tolist(),
                    "smallest_denominator": min(item.smallest_denominator.min().item() for item in found),
                    "share_of_mix": torch.stack([item.share for item in found]).mean(0).tolist(),
                }
            )
    return rows


def dtype_effect(checkpoint: Checkpoint, ids: np.ndarray, segments: Sequence[int]) -> list[dict[str, Any]]:
    """Relative error of M and z by layer when the memory is kept in bfloat16 instead of fp32 (weights bfloat16 in both)."""
    length = checkpoint.config.segment_length
    assert length is not None
    settings = [ModelSettings(dtype="bfloat16", memory_dtype=kept) for kept in ("float32", "model")]
    models = [NativeModel.load(checkpoint, setting) for setting in settings]
    rows = []
    for segment in segments:
        states = [prefix_state(model, ids[: segment * length]) for model in models]
        for layer, (exact, rough) in enumerate(zip(states[0].layers, states[1].layers, strict=True)):
            assert exact.memory is not None and rough.memory is not None
            truth = exact.memory.float()
            difference = rough.memory.float() - truth
            parts = {"memory": slice(None, -1), "z": slice(-1, None)}
            error = {name: _relative(difference[..., at], truth[..., at]) for name, at in parts.items()}
            rows.append({"layer": layer, "segment": segment, **error})
    return rows


def _relative(difference: torch.Tensor, truth: torch.Tensor) -> float:
    return float(difference.norm() / truth.norm())
