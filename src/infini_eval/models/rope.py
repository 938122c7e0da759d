"""Rotary position embeddings from a table made once: cos and sin in fp32, then cast to the model's dtype.

Only pairs (x_0, x_{H/2}), … are rotated here. The rows of q and k of a checkpoint with interleaved pairs are put into
that order when they are read: rotation, dot products and the memory do not care how a head's width is ordered, and
contiguous halves are rotated several times faster than every other element.
"""

from __future__ import annotations

import torch


class RotaryTable:
    """cos and sin for positions 0..size-1, grown on demand; positions restart in every segment of an Infini model."""

    def __init__(self, head_dim: int, theta: float, dtype: torch.dtype, device: torch.device) -> None:
        self._frequency = theta ** (-torch.arange(0, head_dim, 2, device=device).float() / head_dim)
        self._dtype = dtype
        self._cos = self._sin = torch.empty(0, dtype=dtype, device=device)

    def ensure(self, size: int) -> None:
        """Make the table hold at least `size` positions."""
        if self._cos.shape[0] >= size:
            return
        angle = torch.arange(size, device=self._frequency.device).float()[:, None] * self._frequency
        self._cos = torch.cat((angle.cos(), angle.cos()), dim=-1).to(self._dtype)
        self._sin = angle.sin().to(self._dtype)

    def at(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Look up cos [..., T, 1, H] and sin [..., T, 1, H/2] for int64 positions [T] or [B, T]: they broadcast over heads."""
        return self._cos[positions].unsqueeze(-2), self._sin[positions].unsqueeze(-2)

    def rotate(self, x_BTNH: torch.Tensor, cos_sin: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Rotate pairs (x_0, x_{H/2}), (x_1, x_{H/2+1}), … into a new tensor."""
        cos, sin = cos_sin
        first, second = x_BTNH.chunk(2, dim=-1)
        rotated = x_BTNH * cos
        rotated_first, rotated_second = rotated.chunk(2, dim=-1)
        rotated_first.addcmul_(second, sin, value=-1)
        rotated_second.addcmul_(first, sin)
        return rotated


def interleaved_to_halves(weight_OD: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Put the rows of each head's projection, [heads * H, D], from x_0, x_1, x_2, … into the order x_0, x_2, …, x_1, x_3, …"""
    pairs: torch.Tensor = weight_OD.unflatten(0, (-1, head_dim // 2, 2))
    return pairs.transpose(1, 2).flatten(0, 2)
