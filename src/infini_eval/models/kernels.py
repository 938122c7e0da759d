"""Softmax attention over a segment: torch's scaled_dot_product_attention, or flash-attn's own kernels when asked for.

Legend: B batch, T queries, S keys, R places of a ring, N query heads, G kv heads, H head width.
"""

from __future__ import annotations

import importlib.util

import torch
import torch.nn.functional as F
from torch.nn.attention.bias import CausalBias, causal_lower_right

from infini_eval.errors import BackendError
from infini_eval.models.state import Step, WindowStep

# Queries that look together over the keys of earlier steps, where there has to be a mask: as many as have so many entries.
MASK_ENTRIES = 1 << 24
LEAST_BLOCK = 16


def causal_attention(
    q_BTNH: torch.Tensor, k_BTGH: torch.Tensor, v_BTGH: torch.Tensor, scale: float, implementation: str
) -> torch.Tensor:
    """Attend so that each query sees the keys up to its own position; [B, T, N, H]."""
    if implementation == "flash_attn":
        from flash_attn import flash_attn_func

        out_BTNH: torch.Tensor = flash_attn_func(q_BTNH, k_BTGH, v_BTGH, softmax_scale=scale, causal=True)
        return out_BTNH
    return _sdpa(q_BTNH, k_BTGH, v_BTGH, scale, None, causal=True)


def cached_attention(
    q_BTNH: torch.Tensor, k_BSGH: torch.Tensor, v_BSGH: torch.Tensor, step: Step, scale: float, implementation: str
) -> torch.Tensor:
    """Attend so that queries see what `step` says of the open segment's keys (their own are already among them); [B, T, N, H]."""
    if step.causal:
        return causal_attention(q_BTNH, k_BSGH, v_BSGH, scale, implementation)
    if implementation == "flash_attn":
        from flash_attn import flash_attn_with_kvcache

        out_BTNH: torch.Tensor = flash_attn_with_kvcache(
            q_BTNH, k_BSGH, v_BSGH, cache_seqlens=step.lengths, softmax_scale=scale, causal=True
        )
        return out_BTNH
    if q_BTNH.shape[1] > 1:
        return _attend_after(q_BTNH, k_BSGH, v_BSGH, step, scale)
    return _sdpa(q_BTNH, k_BSGH, v_BSGH, scale, step.mask, causal=False)


def _attend_after(
    q_BTNH: torch.Tensor, k_BSGH: torch.Tensor, v_BSGH: torch.Tensor, step: Step, scale: float
) -> torch.Tensor:
    """Several queries after keys of earlier steps, up to each one's position; no mask of T x S is ever made.

    On a GPU in half precision torch has a kernel for it, where all rows stand alike.
    """
    if not q_BTNH.is_cuda:
        return _attend_mirrored(q_BTNH, k_BSGH, v_BSGH, step, scale)
    if step.offset is not None and q_BTNH.dtype != torch.float32:
        return _sdpa(q_BTNH, k_BSGH, v_BSGH, scale, causal_lower_right(q_BTNH.shape[1], step.span), causal=False)
    return _attend_by_blocks(q_BTNH, k_BSGH, v_BSGH, step, scale)


def _attend_mirrored(
    q_BTNH: torch.Tensor, k_BSGH: torch.Tensor, v_BSGH: torch.Tensor, step: Step, scale: float
) -> torch.Tensor:
    """With the last query first, what query i sees of key j depends on i + j alone: the mask is a view of T + S numbers.

    For kernels that take a mask by its strides, as the CPU's does.
    """
    tokens, last_B1 = q_BTNH.shape[1], step.positions[..., -1:].view(-1, 1)
    places = torch.arange(tokens + step.span - 1, device=q_BTNH.device)
    line = torch.zeros(len(last_B1), len(places), dtype=q_BTNH.dtype, device=q_BTNH.device)
    line.masked_fill_(places > last_B1, float("-inf"))
    mask_B1TS = line.as_strided((len(line), 1, tokens, step.span), (line.shape[1], 0, 1, 1))
    return _sdpa(q_BTNH.flip(1), k_BSGH, v_BSGH, scale, mask_B1TS, causal=False).flip(1)


def _attend_by_blocks(
    q_BTNH: torch.Tensor, k_BSGH: torch.Tensor, v_BSGH: torch.Tensor, step: Step, scale: float
) -> torch.Tensor:
    """So many queries at a time that their mask is small; a block reads no key beyond its last query's."""
    tokens, rows = q_BTNH.shape[1], 1 if step.positions.dim() == 1 else len(step.positions)
    block = max(LEAST_BLOCK, MASK_ENTRIES // (rows * step.span))
    places_S, out_BTNH = torch.arange(step.span, device=q_BTNH.device), torch.empty_like(q_BTNH)
    for begin in range(0, tokens, block):
        end = min(begin + block, tokens)
        seen = step.span - tokens + end  # by the block's last query, in the row that has the most keys
        visible = places_S[:seen] <= step.positions[..., begin:end, None]
        mask = visible.view(-1, 1, end - begin, seen)
        keys, values = k_BSGH[:, :seen], v_BSGH[:, :seen]
        out_BTNH[:, begin:end] = _sdpa(q_BTNH[:, begin:end], keys, values, scale, mask, causal=False)
    return out_BTNH


def window_attention(
    q_BTNH: torch.Tensor,
    k_BRGH: torch.Tensor,
    v_BRGH: torch.Tensor,
    step: WindowStep,
    scale: float,
    implementation: str,
) -> torch.Tensor:
    """Attend so that queries see what `step` says of the keys in a ring; [B, T, N, H].

    Torch's kernel takes whatever needs a mask: flash-attn knows no rings.
    """
    if step.start is not None:
        return _attend_in_blocks(q_BTNH, k_BRGH, v_BRGH, step, scale)
    keys, values = k_BRGH[:, : step.span], v_BRGH[:, : step.span]
    if step.mask is None:
        return causal_attention(q_BTNH, keys, values, scale, implementation)
    return _sdpa(q_BTNH, keys, values, scale, step.mask, causal=False)


def _attend_in_blocks(
    q_BTNH: torch.Tensor, k_BRGH: torch.Tensor, v_BRGH: torch.Tensor, step: WindowStep, scale: float
) -> torch.Tensor:
    """Queries from `step.start` on, so many at a time as the mask has rows, over the keys from a window before them."""
    assert step.start is not None and step.mask is not None
    window, block, parts = step.window, step.mask.shape[0], []
    for begin in range(0, q_BTNH.shape[1], block):
        queries = q_BTNH[:, begin : begin + block]
        count, reach = queries.shape[1], step.start + begin - window.size + 1  # the first position in sight
        first, stop = max(0, reach), step.start + begin + count
        mask = step.mask[:count, first - reach : stop - reach]
        keys, values = window.in_order(k_BRGH, first, stop), window.in_order(v_BRGH, first, stop)
        parts.append(_sdpa(queries, keys, values, scale, mask, causal=False))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def check_implementation(implementation: str, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a kernel that cannot work here before anything is loaded, instead of in the middle of a run.

    Raises:
        BackendError: flash-attn is not installed, or not for this device or dtype.
    """
    if implementation != "flash_attn":
        return
    if importlib.util.find_spec("flash_attn") is None:
        raise BackendError(
            "--attn-implementation flash_attn needs the package flash-attn, which is not installed",
            valid="sdpa (torch's own kernels, flash among them)",
            next_step="pip install 'infini-eval[flash]' --no-build-isolation",
        )
    if device.type != "cuda" or dtype == torch.float32:
        raise BackendError(
            f"flash-attn runs on CUDA in bfloat16 or float16, not on {device.type} in {str(dtype).removeprefix('torch.')}",
            valid="--attn-implementation sdpa, or --device cuda --dtype bfloat16",
        )


def _sdpa(
    q_BTNH: torch.Tensor,
    k_BSGH: torch.Tensor,
    v_BSGH: torch.Tensor,
    scale: float,
    mask: torch.Tensor | CausalBias | None,
    *,
    causal: bool,
) -> torch.Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q_BTNH, k_BSGH, v_BSGH))
    grouped = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=grouped)
    return out.transpose(1, 2)
