"""Infini-Attention of one layer, streamed: local attention of the segment, mixed with what the memory returns.

A model without segments runs through the same code as one open segment without memory. The order is the reference's:
read the old memory, mix, then write. Everything here is per head, so tensor parallelism needs no communication inside.

Legend: B batch, T tokens, N query heads, G kv heads, X = N + G, R = N / G, H head width, K segments of a chunk; L segment length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from infini_eval.config import FeatureMap, Memory, MemoryQuery
from infini_eval.models import memory as compressive
from infini_eval.models.kernels import cached_attention, causal_attention, window_attention
from infini_eval.models.naive import feature_map
from infini_eval.models.state import LayerState, Step

Rotation = tuple[torch.Tensor, torch.Tensor]  # cos and sin, as `RotaryTable.at` looks them up


class RotaryTable:
    """cos and sin for positions 0..size-1, grown on demand; positions restart in every segment of an Infini model.

    `interpolation` is what positions are divided by.
    """

    def __init__(
        self, head_dim: int, theta: float, dtype: torch.dtype, device: torch.device, interpolation: float = 1.0
    ) -> None:
        self._frequency = theta ** (-torch.arange(0, head_dim, 2, device=device).float() / head_dim)
        self._dtype, self._interpolation = dtype, interpolation
        self._cos = self._sin = torch.empty(0, dtype=dtype, device=device)

    def ensure(self, size: int) -> None:
        """Make the table hold at least `size` positions."""
        if self._cos.shape[0] >= size:
            return
        positions = torch.arange(size, device=self._frequency.device).float() / self._interpolation
        angle = positions[:, None] * self._frequency
        self._cos = torch.cat((angle.cos(), angle.cos()), dim=-1).to(self._dtype)
        self._sin = angle.sin().to(self._dtype)

    def at(self, positions: torch.Tensor) -> Rotation:
        """Look up cos [..., T, 1, H] and sin [..., T, 1, H/2] for int64 positions [T] or [B, T]: they broadcast over heads."""
        return self._cos[positions].unsqueeze(-2), self._sin[positions].unsqueeze(-2)

    def rotate(self, x_BTNH: torch.Tensor, rotation: Rotation | None) -> torch.Tensor:
        """Rotate pairs (x_0, x_{H/2}), (x_1, x_{H/2+1}), … into a new tensor; None leaves them as they are."""
        if rotation is None:
            return x_BTNH
        cos, sin = rotation
        first, second = x_BTNH.chunk(2, dim=-1)
        rotated = x_BTNH * cos
        rotated_first, rotated_second = rotated.chunk(2, dim=-1)
        rotated_first.addcmul_(second, sin, value=-1)
        rotated_second.addcmul_(first, sin)
        return rotated


def interleaved_to_halves(weight_OD: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Put the rows of each head's projection from x_0, x_1, x_2, … into the order x_0, x_2, …, x_1, x_3, …

    [heads * H, D], or [heads * H] of biases.
    """
    pairs: torch.Tensor = weight_OD.unflatten(0, (-1, head_dim // 2, 2))
    return pairs.transpose(1, 2).flatten(0, 2)


def halves_to_interleaved(weight_OD: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Undo `interleaved_to_halves`."""
    halves: torch.Tensor = weight_OD.unflatten(0, (-1, 2, head_dim // 2))
    return halves.transpose(1, 2).flatten(0, 2)


Gates = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class AttentionSettings:
    """What all layers share; `segment_length` is None for a plain Llama, whose memory is "off"."""

    segment_length: int | None
    memory: Memory
    memory_query: MemoryQuery
    softmax_scale: float
    implementation: str
    features: FeatureMap = "reference"

    @property
    def keeps_memory(self) -> bool:
        """Whether layers keep a memory; "ablate" has gates, but reads zero."""
        return self.memory == "on"


class _Heads(NamedTuple):
    """A step's projections: rotated q and k, v, the query that reads the memory, and the key that writes it."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    q_read: torch.Tensor
    k_raw: torch.Tensor


def attend(
    qk_BTXH: torch.Tensor,
    v_BTGH: torch.Tensor,
    gates: Gates | None,
    rotary: RotaryTable,
    rotation: Rotation | None,
    state: LayerState,
    step: Step,
    settings: AttentionSettings,
) -> torch.Tensor:
    """Compute the attention of one step, [B, T, N, H]; updates `state`. q and k come side by side, without rotation.

    rotation: of the step's positions; None in a layer that rotates nothing.
    gates: [N, 1] weights of what the memory returns and of local attention, g and 1 - g; None without gates.
    """
    kv_heads = v_BTGH.shape[2]
    sizes = [qk_BTXH.shape[2] - kv_heads, kv_heads]
    q_raw, k_raw = qk_BTXH.split(sizes, dim=2)
    q_rotated, k_rotated = rotary.rotate(qk_BTXH, rotation).split(sizes, dim=2)
    q_read = q_rotated if settings.memory_query == "rotary" else q_raw
    heads = _Heads(q_rotated, k_rotated, v_BTGH, q_read, k_raw)
    compute = _whole_segments if step.segments else _open_segment
    return compute(heads, gates, state, step, settings).to(v_BTGH.dtype)


def _weighed(local_BTNH: torch.Tensor, gates: Gates | None) -> torch.Tensor:
    """The local part of O = g A + (1 - g) O_local; the gate scales the first segment too, which has nothing to read."""
    return local_BTNH if gates is None else gates[1] * local_BTNH


def _whole_segments(
    heads: _Heads, gates: Gates | None, state: LayerState, step: Step, settings: AttentionSettings
) -> torch.Tensor:
    """K segments at once for local attention, one after the other for the memory, which adds its part in place."""
    batch, _, kv_heads, width = heads.k.shape
    length = settings.segment_length
    assert length is not None
    q, k, v = (x.reshape(batch * step.segments, length, -1, width) for x in (heads.q, heads.k, heads.v))
    local = causal_attention(q, k, v, settings.softmax_scale, settings.implementation).reshape(heads.q.shape)
    mixed = _weighed(local, gates)
    if not settings.keeps_memory:
        return mixed
    mixed = mixed.contiguous()

    def by_segment(x: torch.Tensor) -> torch.Tensor:
        """[B, T, N or G, H] as [K, B, G, R or 1, L, H], a view."""
        return x.view(batch, step.segments, length, kv_heads, -1, width).permute(1, 0, 3, 4, 2, 5)

    q_read, k_raw, v = by_segment(heads.q_read), by_segment(heads.k_raw).squeeze(3), by_segment(heads.v).squeeze(3)
    assert state.memory is not None and gates is not None and isinstance(step.has_memory, bool)
    gate_GR11 = gates[0].view(kv_heads, -1, 1, 1)
    gated, kind = by_segment(mixed), settings.features
    compressive.scan_segments(state.memory, q_read, k_raw, v, step.has_memory, gate_GR11, gated, kind)
    return mixed


def _open_segment(
    heads: _Heads, gates: Gates | None, state: LayerState, step: Step, settings: AttentionSettings
) -> torch.Tensor:
    """T tokens of the open segment; rows whose segment is full afterwards are flushed to the memory."""
    _store_open(heads.k, heads.k_raw, heads.v, state, step, settings)
    mixed = _attend_open(heads.q, heads.q_read, gates, state, step, settings)
    _close_full(state, step, settings)
    return mixed


def _store_open(
    k: torch.Tensor, k_raw: torch.Tensor, v: torch.Tensor, state: LayerState, step: Step, settings: AttentionSettings
) -> None:
    """Keep the keys (rotated, and as the memory is written with) and values of T tokens of the open segment."""
    state.open_segment()
    assert state.keys is not None and state.values is not None
    store = _store if state.window is None else _store_in_ring
    store(state.keys, k, step)
    store(state.values, v, step)
    if settings.keeps_memory:
        assert state.raw_keys is not None
        _store(state.raw_keys, k_raw, step)


def _attend_open(
    q: torch.Tensor,
    q_read: torch.Tensor,
    gates: Gates | None,
    state: LayerState,
    step: Step,
    settings: AttentionSettings,
) -> torch.Tensor:
    """What queries of the open segment see of its stored keys, mixed with what they read of the memory; [B, T, N, H]."""
    assert state.keys is not None and state.values is not None
    if state.window is not None:  # there is never a memory beside it
        assert step.window is not None
        return window_attention(
            q, state.keys, state.values, step.window, settings.softmax_scale, settings.implementation
        )
    keys, values = state.keys[:, : step.span], state.values[:, : step.span]
    local = cached_attention(q, keys, values, step, settings.softmax_scale, settings.implementation)
    mixed = _weighed(local, gates)
    if settings.keeps_memory and step.has_memory is not False:
        assert state.memory is not None and gates is not None
        mixed.addcmul_(gates[0], _read_open(state.memory, q_read, step, keys.shape[2], settings.features))
    return mixed


def _close_full(state: LayerState, step: Step, settings: AttentionSettings) -> None:
    """Flush the rows whose open segment is full after this step."""
    if settings.keeps_memory and step.closing is not None:
        rows = step.closing
        has_memory = step.has_memory if isinstance(step.has_memory, bool) else step.has_memory[rows]
        flush_to_memory(state, rows, has_memory, settings.features)


def absorb(
    k_BTGH: torch.Tensor,
    v_BTGH: torch.Tensor,
    rotary: RotaryTable,
    rotation: Rotation | None,
    state: LayerState,
    step: Step,
    settings: AttentionSettings,
) -> None:
    """Take a step's tokens into `state` without attending: for a layer whose output nobody reads. k comes without rotation."""
    if not step.segments:
        _store_open(rotary.rotate(k_BTGH, rotation), k_BTGH, v_BTGH, state, step, settings)
        _close_full(state, step, settings)
    elif settings.keeps_memory:
        assert state.memory is not None and isinstance(step.has_memory, bool)
        k_KBGLH, v_KBGLH = (x.unflatten(1, (step.segments, -1)).permute(1, 0, 3, 2, 4) for x in (k_BTGH, v_BTGH))
        compressive.fold_segments(state.memory, k_KBGLH, v_KBGLH, step.has_memory, settings.features)


def attend_at_ends(
    q_B1NH: torch.Tensor,
    k_BTGH: torch.Tensor,
    v_BTGH: torch.Tensor,
    gates: Gates | None,
    rotary: RotaryTable,
    rotation: Rotation | None,
    state: LayerState,
    step: Step,
    ends: Step,
    settings: AttentionSettings,
) -> torch.Tensor:
    """Compute the attention of one token of each row, [B, 1, N, H], after all of an open step's tokens were taken in.

    q and k come without rotation; `ends` is the step at those tokens (`Step.at`).
    """
    _store_open(rotary.rotate(k_BTGH, rotation), k_BTGH, v_BTGH, state, step, settings)
    q_rotated = rotary.rotate(q_B1NH, None if rotation is None else rotary.at(ends.positions))
    q_read = q_rotated if settings.memory_query == "rotary" else q_B1NH
    mixed = _attend_open(q_rotated, q_read, gates, state, ends, settings)
    _close_full(state, step, settings)
    return mixed.to(v_BTGH.dtype)


def _read_open(
    memory_BGHE: torch.Tensor, q_BTNH: torch.Tensor, step: Step, kv_heads: int, features: FeatureMap
) -> torch.Tensor:
    batch, tokens, _, width = q_BTNH.shape
    q_BGRTH = q_BTNH.view(batch, tokens, kv_heads, -1, width).permute(0, 2, 3, 1, 4)
    phi = feature_map(q_BGRTH.to(memory_BGHE.dtype), features).flatten(2, 3)
    retrieved = compressive.read(memory_BGHE, phi, step.has_memory)
    return retrieved.view(batch, kv_heads, -1, tokens, width).permute(0, 3, 1, 2, 4).reshape(q_BTNH.shape)


def _store(buffer_BSGH: torch.Tensor, new_BTGH: torch.Tensor, step: Step) -> None:
    """Write the step's tokens at their places; what lies beyond a row's real tokens is overwritten before it is seen."""
    if step.offset is not None:
        buffer_BSGH[:, step.offset : step.offset + new_BTGH.shape[1]] = new_BTGH
        return
    rows = torch.arange(new_BTGH.shape[0], device=new_BTGH.device)[:, None]
    buffer_BSGH[rows, step.positions] = new_BTGH


def _store_in_ring(buffer_BRGH: torch.Tensor, new_BTGH: torch.Tensor, step: Step) -> None:
    """The same in a layer with a window, where what has left the window is overwritten."""
    assert step.window is not None
    places = step.window.places
    rows = torch.arange(new_BTGH.shape[0], device=new_BTGH.device)[:, None]
    buffer_BRGH[rows, places.expand(new_BTGH.shape[:2])] = new_BTGH


def flush_to_memory(
    state: LayerState, rows: torch.Tensor, has_memory: compressive.HasMemory, features: FeatureMap
) -> None:
    """Write the full open segments of `rows` (an index) into their memories; has_memory: of these rows, before."""
    assert state.memory is not None and state.raw_keys is not None and state.values is not None
    memory = state.memory[rows]
    keys, values = state.raw_keys[rows].transpose(1, 2), state.values[rows].transpose(1, 2)
    compressive.fold(memory, keys, values, has_memory, features)
    state.memory[rows] = memory
