"""The baseline: what the tools in use do for every new token, the whole context again and the logits of all positions.

Written for speed where it can be (fused projections, SDPA), in the order of the reference: in each layer, segment after
segment, local attention, read, write; then the head over all positions, cast to fp32.

Legend: B batch, T tokens, N query heads, G kv heads, H head width, V vocabulary, L segment length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from infini_eval.models.llama import LayerWeights, Llama


def greedy_by_recompute(llama: Llama, prompt_T: torch.Tensor, new_tokens: int) -> list[int]:
    """Greedy continuation of int64 [T] with a full forward for each token."""
    ids = prompt_T[None]
    for _ in range(new_tokens):
        best = whole_sequence_logits(llama, ids)[:, -1:].argmax(-1)
        ids = torch.cat((ids, best), dim=1)
    return ids[0, len(prompt_T) :].tolist()


def whole_sequence_logits(llama: Llama, ids_BT: torch.Tensor) -> torch.Tensor:
    """Logits [B, T, V] in fp32."""
    assert llama.embedding is not None and llama.final_norm is not None and llama.head is not None
    x = F.embedding(ids_BT, llama.embedding)
    for layer in llama.layers:
        x = x + F.linear(_attention(llama, layer, _norm(llama, x, layer.input_norm)), layer.o)
        gated, up = F.linear(_norm(llama, x, layer.post_norm), layer.gate_up).chunk(2, dim=-1)
        x = x + F.linear(F.silu(gated) * up, layer.down)
    return F.linear(_norm(llama, x, llama.final_norm), llama.head).float()


def _norm(llama: Llama, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, llama.config.rms_norm_eps)


def _attention(llama: Llama, layer: LayerWeights, x_BTD: torch.Tensor) -> torch.Tensor:
    heads, kv_heads, width = llama.heads, llama.kv_heads, llama.config.head_dim
    length = llama.settings.segment_length or x_BTD.shape[1]
    llama.rotary.ensure(length)
    state = None
    outputs = []
    for segment in x_BTD.split(length, dim=1):
        fused = F.linear(segment, layer.qkv).unflatten(-1, (-1, width))
        q, k, v = fused.split([heads, kv_heads, kv_heads], dim=2)
        out, state = _segment(llama, layer, q, k, v, state)
        outputs.append(out.transpose(1, 2).flatten(2))
    return torch.cat(outputs, dim=1)


def _segment(llama: Llama, layer: LayerWeights, q, k, v, state):
    """One segment: [B, T, N or G, H] -> [B, N, T, H] and the new (M, z)."""
    cos_sin = llama.rotary.at(torch.arange(q.shape[1], device=q.device))
    repeats = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(repeats, dim=2), v.repeat_interleave(repeats, dim=2)
    q_rotated, k_rotated = llama.rotary.rotate(q, cos_sin), llama.rotary.rotate(k, cos_sin)
    q_read = q_rotated if llama.settings.memory_query == "rotary" else q
    q_rotated, k_rotated, q_read, k, v = (x.transpose(1, 2) for x in (q_rotated, k_rotated, q_read, k, v))
    local = F.scaled_dot_product_attention(q_rotated, k_rotated, v, is_causal=True, scale=llama.settings.softmax_scale)
    if layer.gates is None:
        return local, None
    memory_gate, local_gate = (gate[:, None] for gate in layer.gates)
    mixed = local_gate * local
    phi_q, phi_k = (F.elu(x.to(llama.memory_dtype)) + 1 for x in (q_read, k))
    target, z = v.to(llama.memory_dtype), phi_k.sum(dim=2)[..., None]
    matrix = None
    if state is not None:
        matrix, normaliser = state
        mixed = mixed + memory_gate * (phi_q @ matrix) / (phi_q @ normaliser)
        target = target - (phi_k @ matrix) / (phi_k @ normaliser)
        z = z + normaliser
    written = phi_k.transpose(2, 3) @ target
    return mixed.to(local.dtype), (written if matrix is None else matrix + written, z)
