"""Infini-Attention of one layer, streamed: local attention of the segment, mixed with what the memory returns.

A plain Llama runs through the same code as one open segment without memory. The order is the reference's: read the
old memory, mix, then write. Everything here is per head, so tensor parallelism needs no communication inside.

Legend: B batch, T tokens, N query heads, G kv heads, R = N / G, H head width, K segments of a chunk; L segment length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from infini_eval.config import Memory, MemoryQuery
from infini_eval.models import memory as compressive
from infini_eval.models.kernels import cached_attention, causal_attention
from infini_eval.models.rope import RotaryTable
from infini_eval.models.state import LayerState, Step

Gates = tuple[torch.Tensor, torch.Tensor]
_Mixed = tuple[torch.Tensor, torch.Tensor | None]  # local attention, and what the memory returned


@dataclass(frozen=True)
class AttentionSettings:
    """What all layers share; `segment_length` is None for a plain Llama, whose memory is "off"."""

    segment_length: int | None
    memory: Memory
    memory_query: MemoryQuery
    softmax_scale: float
    implementation: str

    @property
    def keeps_memory(self) -> bool:
        return self.memory == "on"


class _Heads(NamedTuple):
    """A step's projections: rotated q and k, v, the query that reads the memory, and the key that writes it."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    q_read: torch.Tensor
    k_raw: torch.Tensor


def attend(
    q_BTNH: torch.Tensor,
    k_BTGH: torch.Tensor,
    v_BTGH: torch.Tensor,
    gates: Gates | None,
    rotary: RotaryTable,
    cos_sin: tuple[torch.Tensor, torch.Tensor],
    state: LayerState,
    step: Step,
    settings: AttentionSettings,
) -> torch.Tensor:
    """Attention of one step, [B, T, N, H]; updates `state`. q and k come without rotation.

    gates: [N, 1] weights of what the memory returns and of local attention, g and 1 - g; None without gates.
    """
    q_rotated, k_rotated = rotary.rotate(q_BTNH, cos_sin), rotary.rotate(k_BTGH, cos_sin)
    q_read = q_rotated if settings.memory_query == "rotary" else q_BTNH
    heads = _Heads(q_rotated, k_rotated, v_BTGH, q_read, k_BTGH)
    compute = _whole_segments if step.segments else _open_segment
    return _mix(*compute(heads, state, step, settings), gates)


def _mix(local_BTNH: torch.Tensor, retrieved_BTNH: torch.Tensor | None, gates: Gates | None) -> torch.Tensor:
    """O = g A + (1 - g) O_local; the gate scales the first segment too, although there is nothing to read yet."""
    if gates is None:
        return local_BTNH
    memory_N1, local_N1 = gates
    if retrieved_BTNH is None:
        return (local_N1 * local_BTNH).to(local_BTNH.dtype)
    return (memory_N1 * retrieved_BTNH + local_N1 * local_BTNH).to(local_BTNH.dtype)


def _whole_segments(heads: _Heads, state: LayerState, step: Step, settings: AttentionSettings) -> _Mixed:
    """K segments at once for local attention, one after the other for the memory."""
    batch, tokens, _, width = heads.q.shape
    length, kv_heads = settings.segment_length, heads.k.shape[2]
    assert length is not None
    q, k, v = (x.reshape(batch * step.segments, length, -1, width) for x in (heads.q, heads.k, heads.v))
    local = causal_attention(q, k, v, settings.softmax_scale, settings.implementation).reshape(heads.q.shape)
    if not settings.keeps_memory:
        return local, None
    q_BKGRLH = heads.q_read.view(batch, step.segments, length, kv_heads, -1, width).permute(0, 1, 3, 4, 2, 5)
    k_BKGLH, v_BKGLH = (
        x.view(batch, step.segments, length, kv_heads, width).transpose(2, 3) for x in (heads.k_raw, heads.v)
    )
    assert state.memory is not None and isinstance(step.has_memory, bool)
    retrieved = compressive.scan_segments(state.memory, q_BKGRLH, k_BKGLH, v_BKGLH, step.has_memory)
    return local, retrieved.permute(0, 1, 4, 2, 3, 5).reshape(batch, tokens, -1, width)


def _open_segment(heads: _Heads, state: LayerState, step: Step, settings: AttentionSettings) -> _Mixed:
    """T tokens of the open segment; rows whose segment is full afterwards are folded into the memory."""
    state.open_segment()
    assert state.keys is not None and state.values is not None
    _store(state.keys, heads.k, step)
    _store(state.values, heads.v, step)
    local = cached_attention(
        heads.q,
        state.keys[:, : step.span],
        state.values[:, : step.span],
        step,
        settings.softmax_scale,
        settings.implementation,
    )
    if not settings.keeps_memory:
        return local, None
    assert state.memory is not None and state.raw_keys is not None
    _store(state.raw_keys, heads.k_raw, step)
    retrieved = None
    if step.has_memory is not False:
        retrieved = _read_open(state.memory, heads.q_read, step, heads.k.shape[2])
    if step.closing is not None:
        _fold_rows(state, step)
    return local, retrieved


def _read_open(memory_BGHE: torch.Tensor, q_BTNH: torch.Tensor, step: Step, kv_heads: int) -> torch.Tensor:
    batch, tokens, _, width = q_BTNH.shape
    q_BGRTH = q_BTNH.view(batch, tokens, kv_heads, -1, width).permute(0, 2, 3, 1, 4)
    phi = compressive.feature_map(q_BGRTH.to(memory_BGHE.dtype)).flatten(2, 3)
    retrieved = compressive.read(memory_BGHE, phi, step.has_memory)
    return retrieved.view(batch, kv_heads, -1, tokens, width).permute(0, 3, 1, 2, 4).reshape(q_BTNH.shape)


def _store(buffer_BSGH: torch.Tensor, new_BTGH: torch.Tensor, step: Step) -> None:
    """Write the step's tokens at their places; what lies beyond a row's real tokens is overwritten before it is seen."""
    if step.offset is not None:
        buffer_BSGH[:, step.offset : step.offset + new_BTGH.shape[1]] = new_BTGH
        return
    rows = torch.arange(new_BTGH.shape[0], device=new_BTGH.device)[:, None]
    buffer_BSGH[rows, step.positions] = new_BTGH


def _fold_rows(state: LayerState, step: Step) -> None:
    assert state.memory is not None and state.raw_keys is not None and state.values is not None
    rows = step.closing
    assert rows is not None
    has_memory = step.has_memory if isinstance(step.has_memory, bool) else step.has_memory[rows]
    memory = state.memory[rows]
    compressive.fold(memory, state.raw_keys[rows].transpose(1, 2), state.values[rows].transpose(1, 2), has_memory)
    state.memory[rows] = memory
