"""The compressive memory: M and z of each kv head as one tensor, read and written by whole segments.

z is kept as an extra column of M, so that one matmul gives numerator and denominator of a read, and one gives both
sums of a write: memory_BGHE with E = H + 1. Equations: Infini-attention (Munkhdalai et al. 2024), delta rule.

Legend: B batch, G kv heads, R query heads of a kv head, H head width, K segments of a chunk; L is the segment length.
"""

from __future__ import annotations

import torch

from infini_eval.models.naive import feature_map

HasMemory = bool | torch.Tensor  # for all rows alike, or [B] bool


def new_memory(batch: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """An empty memory_BGHE."""
    return torch.zeros(batch, kv_heads, head_dim, head_dim + 1, dtype=dtype, device=device)


def read(memory_BGHE: torch.Tensor, phi_BGTH: torch.Tensor, has_memory: HasMemory) -> torch.Tensor:
    """phi M / (phi . z) as [B, G, T, H]; zero for rows without a memory.

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


def write(
    memory_BGHE: torch.Tensor, phi_k_BGLH: torch.Tensor, v_BGLH: torch.Tensor, retrieved_BGLH: torch.Tensor | None
) -> None:
    """Add a segment in place: M += phi_k^T (v - retrieved), z += sum phi_k; `retrieved` is what the keys read (None: nothing)."""
    target = v_BGLH if retrieved_BGLH is None else v_BGLH - retrieved_BGLH
    ones = torch.ones_like(target[..., :1])
    memory_BGHE += phi_k_BGLH.transpose(-2, -1) @ torch.cat((target, ones), dim=-1)


def scan_segments(
    memory_BGHE: torch.Tensor, q_BKGRLH: torch.Tensor, k_BKGLH: torch.Tensor, v_BKGLH: torch.Tensor, has_memory: bool
) -> torch.Tensor:
    """Read and write K whole segments in order; returns what their queries read, [B, K, G, R, L, H] in memory's dtype.

    A segment's queries and keys read the same old memory, so they share one matmul. `k` is not rotated.
    """
    dtype = memory_BGHE.dtype
    shape = q_BKGRLH.shape
    phi_q = feature_map(q_BKGRLH.to(dtype)).flatten(3, 4)
    phi_k, v = feature_map(k_BKGLH.to(dtype)), v_BKGLH.to(dtype)
    phi = torch.cat((phi_q, phi_k), dim=3)
    queries = phi_q.shape[3]
    retrieved = torch.empty_like(phi_q)
    for index in range(shape[1]):
        if has_memory or index > 0:
            both = read(memory_BGHE, phi[:, index], True)
            retrieved[:, index] = both[:, :, :queries]
            write(memory_BGHE, phi_k[:, index], v[:, index], both[:, :, queries:])
        else:
            retrieved[:, index] = 0
            write(memory_BGHE, phi_k[:, index], v[:, index], None)
    return retrieved.view(shape)


def fold(memory_BGHE: torch.Tensor, k_BGLH: torch.Tensor, v_BGLH: torch.Tensor, has_memory: HasMemory) -> None:
    """Write one finished segment into the memory, in place."""
    phi_k = feature_map(k_BGLH.to(memory_BGHE.dtype))
    retrieved = None if has_memory is False else read(memory_BGHE, phi_k, has_memory)
    write(memory_BGHE, phi_k, v_BGLH.to(memory_BGHE.dtype), retrieved)
