"""The whole forward in plain fp32 torch, one equation a line: the meaning that everything fast must reproduce.

Equations and their order are those of the reference's training path (Infini-attention, Munkhdalai et al. 2024, as
nanotron's fork computes it; Llama and dense Qwen2 as nanotron's main branch does). For the whole sequence at once,
without caches; slow on purpose.

Legend: B batch, T tokens, D model width, N query heads, G kv heads, H head width, V vocabulary; L is the segment length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from infini_eval.config import FeatureMap, Memory, MemoryQuery, ModelConfig

Weights = dict[str, torch.Tensor]
MemoryState = tuple[torch.Tensor, torch.Tensor]  # M [B, N, H, H] and z [B, N, H]


def naive_logits(
    weights: Weights,
    config: ModelConfig,
    input_ids_BT: torch.Tensor,
    *,
    memory: Memory,
    memory_query: MemoryQuery,
    features: FeatureMap = "reference",
) -> torch.Tensor:
    """Compute logits [B, T, V] in fp32 for int64 `input_ids_BT`; `weights` by their global names, in any dtype."""
    weights = {name: tensor.float() for name, tensor in weights.items()}
    embedding = weights["model.token_position_embeddings.pp_block.token_embedding.weight"]
    x_BTD = embedding[input_ids_BT]
    for index in range(config.num_hidden_layers):
        layer = {
            name.split("pp_block.")[1]: tensor
            for name, tensor in weights.items()
            if name.startswith(f"model.decoder.{index}.")
        }
        normed = rms_norm(x_BTD, layer["input_layernorm.weight"], config.rms_norm_eps)
        x_BTD = x_BTD + attention(normed, layer, config, memory, memory_query, index, features)
        normed = rms_norm(x_BTD, layer["post_attention_layernorm.weight"], config.rms_norm_eps)
        x_BTD = x_BTD + mlp(normed, layer)
    x_BTD = rms_norm(x_BTD, weights["model.final_layer_norm.pp_block.weight"], config.rms_norm_eps)
    return x_BTD @ weights.get("model.lm_head.pp_block.weight", embedding).T


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Divide by the root mean square of the last dim (Zhang and Sennrich 2019)."""
    return weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


def mlp(x_BTD: torch.Tensor, layer: Weights) -> torch.Tensor:
    """Compute the SwiGLU feed-forward layer (Shazeer 2020)."""
    gate, up = (x_BTD @ layer["mlp.gate_up_proj.weight"].T).chunk(2, dim=-1)
    return (F.silu(gate) * up) @ layer["mlp.down_proj.weight"].T


def attention(
    x_BTD: torch.Tensor,
    layer: Weights,
    config: ModelConfig,
    memory: Memory,
    memory_query: MemoryQuery,
    index: int = 0,
    features: FeatureMap = "reference",
) -> torch.Tensor:
    """Attend over segments anchored at token 0, or over the whole sequence where there are none.

    `index` is the layer's number, which matters in a Qwen2 only: its layers are not alike.
    """
    if not config.has_segments:
        out_BNTH = whole_sequence(x_BTD, layer, config, index)
        return out_BNTH.transpose(1, 2).flatten(2) @ layer["attn.o_proj.weight"].T
    assert config.segment_length is not None
    state = None
    outputs = []
    for segment_BLD in x_BTD.split(config.segment_length, dim=1):
        out_BNLH, state = one_segment(segment_BLD, state, layer, config, memory, memory_query, features)
        outputs.append(out_BNLH.transpose(1, 2).flatten(2) @ layer["attn.o_proj.weight"].T)
    return torch.cat(outputs, dim=1)


def whole_sequence(x_BTD: torch.Tensor, layer: Weights, config: ModelConfig, index: int) -> torch.Tensor:
    """Compute the heads [B, N, T, H] of a layer without segments; every n-th of a Qwen2 has no rotary and no window."""
    q_BNTH, k_BNTH, v_BNTH = project(x_BTD, layer, config)
    if config.no_rope_layer is not None and (index + 1) % config.no_rope_layer == 0:
        return causal_softmax(q_BNTH, k_BNTH, config.softmax_scale) @ v_BNTH
    q_BNTH, k_BNTH = rope(q_BNTH, config), rope(k_BNTH, config)
    return causal_softmax(q_BNTH, k_BNTH, config.softmax_scale, config.sliding_window) @ v_BNTH


def one_segment(
    x_BLD: torch.Tensor,
    state: MemoryState | None,
    layer: Weights,
    config: ModelConfig,
    memory: Memory,
    memory_query: MemoryQuery,
    features: FeatureMap = "reference",
) -> tuple[torch.Tensor, MemoryState | None]:
    """Compute one segment's heads [B, N, L, H] and the memory after it: read the old memory, mix, then write."""
    q_BNLH, k_BNLH, v_BNLH = project(x_BLD, layer, config)
    q_rotated = rope(q_BNLH, config)
    k_rotated = rope(k_BNLH, config)
    local_BNLH = causal_softmax(q_rotated, k_rotated, config.softmax_scale) @ v_BNLH
    if memory == "off":
        return local_BNLH, None
    g_N11 = gate(layer["attn.balance_factors"], config.gate_activation)[:, None, None]
    if memory == "ablate" or state is None:
        retrieved = torch.zeros_like(local_BNLH)
    else:
        sigma_q = feature_map(q_rotated if memory_query == "rotary" else q_BNLH, features)
        retrieved = _read(sigma_q, *state)
    mixed = g_N11 * retrieved + (1 - g_N11) * local_BNLH
    return mixed, _write(feature_map(k_BNLH, features), v_BNLH, state)


def _read(sigma_BNLH: torch.Tensor, memory_BNHH: torch.Tensor, z_BNH: torch.Tensor) -> torch.Tensor:
    return (sigma_BNLH @ memory_BNHH) / (sigma_BNLH @ z_BNH[..., None])


def _write(sigma_k_BNLH: torch.Tensor, v_BNLH: torch.Tensor, state: MemoryState | None) -> MemoryState:
    """First segment: plain sums; later ones: the delta rule, with the old M and z inside."""
    new_z = sigma_k_BNLH.sum(dim=2)
    if state is None:
        return sigma_k_BNLH.transpose(2, 3) @ v_BNLH, new_z
    memory_BNHH, z_BNH = state
    delta = v_BNLH - _read(sigma_k_BNLH, memory_BNHH, z_BNH)
    return memory_BNHH + sigma_k_BNLH.transpose(2, 3) @ delta, z_BNH + new_z


def project(
    x_BLD: torch.Tensor, layer: Weights, config: ModelConfig
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Project to q, k, v as [B, N, L, H]; kv heads repeated so that query head h meets kv head h // (N / G)."""
    heads, kv_heads, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    fused = x_BLD @ layer["attn.qkv_proj.weight"].T
    if config.attention_bias:
        fused = fused + layer["attn.qkv_proj.bias"]
    q, k, v = fused.split([heads * width, kv_heads * width, kv_heads * width], dim=-1)
    q, k, v = (part.unflatten(-1, (-1, width)).transpose(1, 2) for part in (q, k, v))
    repeats = heads // kv_heads
    return q, k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)


def causal_softmax(q: torch.Tensor, k: torch.Tensor, scale: float, window: int | None = None) -> torch.Tensor:
    """Compute attention weights [..., L, L] of each query over the keys up to its own: all, or the last `window` of them."""
    length = q.shape[2]
    hidden = torch.ones(length, length, dtype=torch.bool).triu(1).to(q.device)
    if window is not None:
        hidden = hidden | torch.ones(length, length, dtype=torch.bool).tril(-window).to(q.device)
    return (q @ k.transpose(2, 3) * scale).masked_fill(hidden, float("-inf")).softmax(dim=-1)


def rope(x_BNLH: torch.Tensor, config: ModelConfig) -> torch.Tensor:
    """Apply the rotary embedding at positions 0..L-1 (they restart in every segment); RoFormer, Su et al. 2021."""
    width = x_BNLH.shape[-1]
    frequency = config.rope_theta ** (-torch.arange(0, width, 2, device=x_BNLH.device).float() / width)
    position = torch.arange(x_BNLH.shape[2], device=x_BNLH.device).float() / config.rope_interpolation
    angle = position[:, None] * frequency
    cos, sin = angle.cos(), angle.sin()
    if config.rope_interleaved:  # pairs (x_0, x_1), (x_2, x_3), …
        first, second = x_BNLH[..., 0::2], x_BNLH[..., 1::2]
        return torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1).flatten(-2)
    first, second = x_BNLH.chunk(2, dim=-1)  # pairs (x_0, x_{H/2}), …
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def feature_map(x: torch.Tensor, kind: FeatureMap = "reference") -> torch.Tensor:
    """Compute sigma(u) = elu(u) + 1, the positive feature map of the linear-attention memory (Katharopoulos et al. 2020).

    For negative u the reference's elu(u) + 1 = (exp(u) - 1) + 1 loses the digits of exp(u), all of them from -17 on in
    fp32; "stable" takes exp(u) itself, which is rounded once, and is 0 only where the dtype has no smaller number.
    """
    if kind == "stable":
        return torch.where(x > 0, x + 1, x.clamp(max=0).exp())
    return F.elu(x) + 1


def gate(balance_factors: torch.Tensor, activation: str | None) -> torch.Tensor:
    """Compute the weight of the memory in the mix; `orig_tanh` may be negative, `hard_sigmoid` may be exactly 0 or 1."""
    if activation == "hard_sigmoid":
        return (0.2 * balance_factors + 0.5).clamp(0, 1)
    if activation == "orig_sigmoid":
        return balance_factors.sigmoid()
    if activation == "orig_tanh":
        return balance_factors.tanh()
    if activation == "tanh_abs":
        return balance_factors.tanh().abs()
    raise ValueError(f"unknown gate activation {activation!r}")
