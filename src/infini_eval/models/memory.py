"""The compressive memory: M and z of each kv head as one tensor, read and written by whole segments.

z is kept as an extra column of M, so that one matmul gives numerator and denominator of a read, and one gives both
sums of a write: memory_BGHE with E = H + 1. Equations: Infini-attention (Munkhdalai et al. 2024), delta rule.

Legend: B batch, G kv heads, R query heads of a kv head, H head width, K segments of a chunk, S = R * L + L rows that
read the memory at once (queries, then keys); L is the segment length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from infini_eval.config import FeatureMap
from infini_eval.models.naive import feature_map

HasMemory = bool | torch.Tensor  # for all rows alike, or [B] bool


def new_memory(batch: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Make an empty memory_BGHE."""
    return torch.zeros(batch, kv_heads, head_dim, head_dim + 1, dtype=dtype, device=device)


def read(memory_BGHE: torch.Tensor, phi_BGTH: torch.Tensor, has_memory: HasMemory) -> torch.Tensor:
    """Read phi M / (phi . z) as [B, G, T, H]; zero for rows without a memory.

    There is no epsilon: a denominator of zero gives NaN, which the engine reports. A row that has no memory yet is no
    such case: its M is zero, and its denominator is set to one.
    """
    both = phi_BGTH @ memory_BGHE
    denominator = both[..., -1:]
    if has_memory is False:
        return torch.zeros_like(both[..., :-1])
    if isinstance(has_memory, torch.Tensor):
        denominator = torch.where(has_memory[:, None, None, None], denominator, 1.0)
    return both[..., :-1] / denominator


def scan_segments(
    memory_BGHE: torch.Tensor,
    q_KBGRLH: torch.Tensor,
    k_KBGLH: torch.Tensor,
    v_KBGLH: torch.Tensor,
    has_memory: bool,
    gate_GR11: torch.Tensor,
    mixed_KBGRLH: torch.Tensor,
    features: FeatureMap = "reference",
) -> None:
    """Read and write K whole segments in order; adds gate * what their queries read to `mixed`, in place.

    A segment's queries and keys read the same old memory, so they share one matmul. `k` is not rotated.
    """
    phi_KBGSH = _joined_features(q_KBGRLH, k_KBGLH, memory_BGHE.dtype, features)
    target_KBGLE = _with_ones(v_KBGLH, memory_BGHE.dtype)
    queries_shape = q_KBGRLH.shape[3:5]
    queries = queries_shape.numel()
    for index, (phi, target, mixed) in enumerate(zip(phi_KBGSH, target_KBGLE, mixed_KBGRLH, strict=True)):
        if has_memory or index > 0:
            both = phi @ memory_BGHE
            numerator, denominator = both[..., :-1], both[..., -1:]
            read_q = numerator[:, :, :queries].unflatten(2, queries_shape)
            mixed.addcmul_(read_q, gate_GR11 / denominator[:, :, :queries].unflatten(2, queries_shape))
            target[..., :-1].addcdiv_(numerator[:, :, queries:], denominator[:, :, queries:], value=-1)
        _write(memory_BGHE, phi[:, :, queries:], target)


def fold_segments(
    memory_BGHE: torch.Tensor,
    k_KBGLH: torch.Tensor,
    v_KBGLH: torch.Tensor,
    has_memory: bool,
    features: FeatureMap = "reference",
) -> None:
    """Write K whole segments in order, in place, where no query reads: `scan_segments` without queries."""
    phi_KBGLH = torch.empty(k_KBGLH.shape, dtype=memory_BGHE.dtype, device=k_KBGLH.device).copy_(k_KBGLH)
    _to_features(phi_KBGLH, features)
    target_KBGLE = _with_ones(v_KBGLH, memory_BGHE.dtype)
    for index, (phi, target) in enumerate(zip(phi_KBGLH, target_KBGLE, strict=True)):
        if has_memory or index > 0:
            both = phi @ memory_BGHE
            target[..., :-1].addcdiv_(both[..., :-1], both[..., -1:], value=-1)
        _write(memory_BGHE, phi, target)


def fold(
    memory_BGHE: torch.Tensor,
    k_BGLH: torch.Tensor,
    v_BGLH: torch.Tensor,
    has_memory: HasMemory,
    features: FeatureMap = "reference",
) -> None:
    """Write one finished segment into the memory, in place."""
    phi_k = feature_map(k_BGLH.to(memory_BGHE.dtype), features)
    target = _with_ones(v_BGLH, memory_BGHE.dtype)
    if has_memory is not False:
        target[..., :-1] -= read(memory_BGHE, phi_k, has_memory)
    _write(memory_BGHE, phi_k, target)


def _write(memory_BGHE: torch.Tensor, phi_k_BGLH: torch.Tensor, target_BGLE: torch.Tensor) -> None:
    """M += phi_k^T (v - what the keys read), z += sum of phi_k, in place; the target's last column is one."""
    memory = memory_BGHE.flatten(0, 1)
    memory.baddbmm_(phi_k_BGLH.flatten(0, 1).transpose(1, 2), target_BGLE.flatten(0, 1))


def _joined_features(
    q_KBGRLH: torch.Tensor, k_KBGLH: torch.Tensor, dtype: torch.dtype, features: FeatureMap
) -> torch.Tensor:
    """sigma(q) and sigma(k) of each segment behind one another, contiguous in each segment."""
    queries_shape = q_KBGRLH.shape[3:5]
    queries, length = queries_shape.numel(), k_KBGLH.shape[3]
    phi = torch.empty((*k_KBGLH.shape[:3], queries + length, k_KBGLH.shape[4]), dtype=dtype, device=k_KBGLH.device)
    phi[..., :queries, :].unflatten(3, queries_shape).copy_(q_KBGRLH)
    phi[..., queries:, :] = k_KBGLH
    return _to_features(phi, features)


def _to_features(x_KBGSH: torch.Tensor, features: FeatureMap) -> torch.Tensor:
    """`feature_map` in place; the stable one segment by segment, so that what it sets aside is no larger."""
    if features == "reference":
        return F.elu(x_KBGSH, inplace=True).add_(1)
    for x in x_KBGSH:
        above = x.clamp(min=0)
        x.clamp_(max=0).exp_().add_(above)  # below 0 exp(u) + 0, above 0 1 + u: both exact
    return x_KBGSH


def _with_ones(v: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Values [..., H] with a column of ones, [..., E], which sums the keys' features into z."""
    extended = torch.ones((*v.shape[:-1], v.shape[-1] + 1), dtype=dtype, device=v.device)
    extended[..., :-1] = v
    return extended
