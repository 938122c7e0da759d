"""Rotary position embeddings from a table made once: cos and sin in fp32, then cast to the model's dtype."""

from __future__ import annotations

import torch


class RotaryTable:
    """cos and sin for positions 0..size-1, grown on demand; positions restart in every segment of an Infini model."""

    def __init__(
        self, head_dim: int, theta: float, interleaved: bool, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._frequency = theta ** (-torch.arange(0, head_dim, 2, device=device).float() / head_dim)
        self._interleaved = interleaved
        self._dtype = dtype
        self._cos = self._sin = torch.empty(0, head_dim // 2, dtype=dtype, device=device)

    def ensure(self, size: int) -> None:
        """Make the table hold at least `size` positions."""
        if self._cos.shape[0] >= size:
            return
        angle = torch.arange(size, device=self._frequency.device).float()[:, None] * self._frequency
        self._cos, self._sin = angle.cos().to(self._dtype), angle.sin().to(self._dtype)

    def at(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin for int64 positions [T] or [B, T], as [..., T, 1, H/2]: they broadcast over heads."""
        return self._cos[positions].unsqueeze(-2), self._sin[positions].unsqueeze(-2)

    def rotate(self, x_BTNH: torch.Tensor, cos_sin: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Rotate pairs (x_0, x_1), … when interleaved (GPT-J), else (x_0, x_{H/2}), … (GPT-NeoX)."""
        cos, sin = cos_sin
        if self._interleaved:
            first, second = x_BTNH[..., 0::2], x_BTNH[..., 1::2]
            return torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1).flatten(-2)
        first, second = x_BTNH.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)
