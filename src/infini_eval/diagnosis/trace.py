"""Follows one prompt through the model in fp32 and keeps what the memory held, when, and what the question read.

Written on `models/naive`, equation by equation: a diagnosis must not share the fast path's shortcuts. Batch 1.

Legend: T tokens, D model width, N query heads, H head width, V vocabulary, L segment length, P points kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import MemoryQuery, ModelConfig
from infini_eval.models import naive
from infini_eval.models.naive import MemoryState, Weights

AFTER = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # segments after the needle's at which the memory is kept


@dataclass(frozen=True)
class LayerTrace:
    """One layer at the prompt's last position, the one that predicts the answer's first token.

    points: number of segments folded into each kept memory (the last one is what the question really reads).
    retrieved_PNH: what the question's query reads from each; written_NDV-like attributions use `out_weight_DNH`.
    local_NH: the local attention's output. memory_norm_PN, z_norm_PN, smallest_denominator_N: the memory's health.
    """

    points: tuple[int, ...]
    retrieved_PNH: torch.Tensor
    local_NH: torch.Tensor
    memory_norm_PN: torch.Tensor
    z_norm_PN: torch.Tensor
    denominator_PN: torch.Tensor
    out_weight_DNH: torch.Tensor
    gate_N: torch.Tensor


@dataclass(frozen=True)
class Trace:
    """All layers, the last position's final hidden state [D] before the final norm, and its logits [V]."""

    layers: list[LayerTrace]
    hidden_D: torch.Tensor
    logits_V: torch.Tensor
    final_norm_D: torch.Tensor
    head_VD: torch.Tensor
    eps: float

    def direct_logits(self, vectors_D: torch.Tensor) -> torch.Tensor:
        """What vectors [..., D] in the residual stream add to the logits [..., V], at the final norm's real scale."""
        scale = torch.rsqrt(self.hidden_D.pow(2).mean() + self.eps)
        return (vectors_D * scale * self.final_norm_D) @ self.head_VD.T


def load_weights(checkpoint: Checkpoint) -> Weights:
    """Every parameter in fp32 on the CPU."""
    return {name: checkpoint.read(name).float() for name in checkpoint.specs}


@torch.inference_mode()
def trace(
    weights: Weights, checkpoint: Checkpoint, ids_T: torch.Tensor, needle_segment: int, memory_query: MemoryQuery
) -> Trace:
    """Run int64 `ids_T` and keep, in every layer, the memory right after the needle's segment and some segments later."""
    config = checkpoint.config
    assert config.segment_length is not None
    embedding = weights["model.token_position_embeddings.pp_block.token_embedding.weight"]
    x_BTD = embedding[ids_T][None]
    layers = []
    for index in range(config.num_hidden_layers):
        prefix = f"model.decoder.{index}.pp_block."
        layer = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        normed = naive.rms_norm(x_BTD, layer["input_layernorm.weight"], config.rms_norm_eps)
        attended, kept = _attention(normed, layer, config, needle_segment, memory_query)
        layers.append(kept)
        x_BTD = x_BTD + attended
        x_BTD = x_BTD + naive.mlp(
            naive.rms_norm(x_BTD, layer["post_attention_layernorm.weight"], config.rms_norm_eps), layer
        )
    final_norm = weights["model.final_layer_norm.pp_block.weight"]
    head = weights.get("model.lm_head.pp_block.weight", embedding)
    hidden = x_BTD[0, -1]
    logits = naive.rms_norm(hidden, final_norm, config.rms_norm_eps) @ head.T
    return Trace(layers, hidden, logits, final_norm, head, config.rms_norm_eps)


def _attention(
    x_BTD: torch.Tensor, layer: Weights, config: ModelConfig, needle_segment: int, memory_query: MemoryQuery
) -> tuple[torch.Tensor, LayerTrace]:
    """Attention of all segments, and the LayerTrace of the last position."""
    assert config.segment_length is not None
    outputs: list[torch.Tensor] = []
    kept: list[tuple[int, MemoryState]] = []
    state: MemoryState | None = None
    before: MemoryState | None = None
    segments = x_BTD.split(config.segment_length, dim=1)
    wanted = {needle_segment + after for after in AFTER}
    for index, segment in enumerate(segments):
        before = state
        out_BNLH, state = naive.one_segment(segment, state, layer, config, "on", memory_query)
        outputs.append(out_BNLH.transpose(1, 2).flatten(2) @ layer["attn.o_proj.weight"].T)
        if index in wanted and index < len(segments) - 1 and state is not None:
            kept.append((index + 1, state))
    if before is not None and (not kept or kept[-1][0] != len(segments) - 1):
        kept.append((len(segments) - 1, before))
    return torch.cat(outputs, dim=1), _last_position(segments[-1], kept, layer, config, memory_query)


def _last_position(
    segment_BLD: torch.Tensor,
    kept: list[tuple[int, MemoryState]],
    layer: Weights,
    config: ModelConfig,
    memory_query: MemoryQuery,
) -> LayerTrace:
    q, k, v = naive.project(segment_BLD, layer, config)
    q_rotated, k_rotated = naive.rope(q, config), naive.rope(k, config)
    local = (naive.causal_softmax(q_rotated, k_rotated, config.softmax_scale) @ v)[0, :, -1]
    phi_NH = naive.feature_map(q_rotated if memory_query == "rotary" else q)[0, :, -1]
    memories = [(memory[0], z[0]) for _, (memory, z) in kept]
    heads, width = phi_NH.shape
    denominators = [(phi_NH * z).sum(-1) for _, z in memories]
    retrieved = [
        torch.einsum("nh,nhk->nk", phi_NH, memory) / denominator[:, None]
        for (memory, _), denominator in zip(memories, denominators, strict=True)
    ]
    empty = torch.zeros(0, heads)
    return LayerTrace(
        points=tuple(point for point, _ in kept),
        retrieved_PNH=torch.stack(retrieved) if retrieved else torch.zeros(0, heads, width),
        local_NH=local,
        memory_norm_PN=torch.stack([memory.norm(dim=(1, 2)) for memory, _ in memories]) if memories else empty,
        z_norm_PN=torch.stack([z.norm(dim=1) for _, z in memories]) if memories else empty,
        denominator_PN=torch.stack(denominators) if denominators else empty,
        out_weight_DNH=layer["attn.o_proj.weight"].unflatten(1, (heads, width)),
        gate_N=naive.gate(layer["attn.balance_factors"], config.gate_activation),
    )
