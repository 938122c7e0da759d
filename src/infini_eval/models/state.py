"""What a batch of sequences carries from one step to the next, and where each step's tokens stand.

An Infini model keeps the memory of its completed segments and the keys and values of the open one; a model without
segments is treated as one open segment that never closes. Of that one, layers with a sliding window keep in a ring only
what later queries can see. Lengths are known on the host, so no step waits for the device.

Legend: B batch, T tokens of the step, S keys seen, R places of a ring, G kv heads, H head width; L is the segment length.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch

from infini_eval.config import window_block
from infini_eval.models.memory import HasMemory, new_memory

Memories = tuple[torch.Tensor, ...]  # one row's memory_GHE in each layer of a stage; empty where none is kept


@dataclass(frozen=True)
class Window:
    """A sliding window of `size` keys, the query's own included. The key of position p lies at place p % `ring`."""

    size: int
    ring: int

    @classmethod
    def of(cls, size: int, capacity: int, step_tokens: int) -> Window:
        """Make the window for sequences of at most `capacity` tokens, read by steps of at most `step_tokens`.

        A step writes its keys before its first query looks `size` back, and right padding may write as many once more
        where a row's next tokens go: neither reaches a key that is still to be seen.
        """
        return cls(size, min(capacity, size + step_tokens))

    def visible(self, positions: torch.Tensor, last: torch.Tensor, span: int) -> torch.Tensor:
        """What queries see of the first `span` places: bool [B or 1, 1, T, span].

        Args:
            positions: of the queries, [T] or [B, T].
            last: the position that was written last, [1] or [B, 1].
        """
        stored = last - (last - torch.arange(span, device=positions.device)) % self.ring  # at each place
        stored, query = stored.unsqueeze(-2), positions.unsqueeze(-1)
        seen = (stored >= 0) & (stored <= query) & (stored > query - self.size)
        return seen.view(-1, 1, positions.shape[-1], span)

    def band(self, queries: int, device: torch.device) -> torch.Tensor:
        """What consecutive queries see of the `size` - 1 keys before the first of them and of their own: bool, both dims."""
        keys = self.size - 1 + queries
        return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(self.size - 1).triu()

    def in_order(self, buffer_BRGH: torch.Tensor, first: int, stop: int) -> torch.Tensor:
        """Keys or values of the positions [first, stop), a view where they do not pass the ring's end."""
        place, count = first % self.ring, stop - first
        part = buffer_BRGH[:, place : place + count]
        return part if part.shape[1] == count else torch.cat((part, buffer_BRGH[:, : count - part.shape[1]]), dim=1)


@dataclass(frozen=True)
class StateShape:
    """Sizes of one layer's state.

    `capacity` is the number of open tokens it can hold (L, or the longest sequence), unless there is a `window`.
    """

    batch: int
    kv_heads: int
    head_dim: int
    capacity: int
    keeps_memory: bool
    window: Window | None = None

    @property
    def places(self) -> int:
        """Tokens whose keys and values are kept."""
        return self.capacity if self.window is None else self.window.ring


class LayerState:
    """One layer's state: memory_BGHE and the open segment's rotated keys, raw keys and values, each [B, S, G, H]."""

    def __init__(self, shape: StateShape, dtype: torch.dtype, memory_dtype: torch.dtype, device: torch.device) -> None:
        self._shape, self._dtype, self._device = shape, dtype, device
        self.window = shape.window
        self.memory: torch.Tensor | None = None
        if shape.keeps_memory:
            self.memory = new_memory(shape.batch, shape.kv_heads, shape.head_dim, memory_dtype, device)
        self.keys: torch.Tensor | None = None
        self.raw_keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None

    def open_segment(self) -> None:
        """Allocate the open segment's buffers once, at the first step that needs them."""
        if self.keys is not None:
            return
        shape = self._shape
        size = (shape.batch, shape.places, shape.kv_heads, shape.head_dim)
        # zeros, not empty: a masked key still takes part in sums, and NaN times zero is NaN
        self.keys = torch.zeros(size, dtype=self._dtype, device=self._device)
        self.values = torch.zeros(size, dtype=self._dtype, device=self._device)
        if shape.keeps_memory:
            self.raw_keys = torch.empty(size, dtype=self._dtype, device=self._device)

    def branch(self, sources: Sequence[int | Memories], layer: int) -> None:
        """Become the state of other rows at the same border; `layer` is this one's place among the stage's layers."""
        assert self.keys is None, "rows branch before their open segment is read"
        self._shape = replace(self._shape, batch=len(sources))
        if self.memory is None:
            return
        if all(isinstance(source, int) for source in sources):
            self.memory = self.memory[torch.tensor(sources, device=self._device)]
        else:
            self.memory = torch.stack([self.memory[s] if isinstance(s, int) else s[layer] for s in sources])

    def copy_from(self, other: LayerState, lengths_B: torch.Tensor) -> None:
        """Become a copy of `other`, which has room for as many tokens or fewer; the buffers stay where they are.

        Args:
            lengths_B: open tokens of each row; where there is a window, only what it still shows is taken over.
        """
        if self.memory is not None and other.memory is not None:
            self.memory.copy_(other.memory)
        assert self.keys is not None and self.values is not None
        pairs = [(self.keys, other.keys), (self.values, other.values), (self.raw_keys, other.raw_keys)]
        for target, source in pairs:
            if target is not None:
                target.zero_()  # no NaN of other sequences may stay behind a mask
                if source is not None and self.window is not None:
                    assert other.window is not None
                    _copy_ring(target, self.window, source, other.window, lengths_B)
                elif source is not None:
                    target[:, : source.shape[1]] = source

    def nbytes(self) -> int:
        """Count the bytes of this layer's tensors."""
        tensors = (self.memory, self.keys, self.raw_keys, self.values)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _copy_ring(
    target_BRGH: torch.Tensor, ours: Window, source_BRGH: torch.Tensor, theirs: Window, lengths_B: torch.Tensor
) -> None:
    """Copy each row's last tokens, as many as a window shows, to their places in another ring."""
    positions = lengths_B[:, None] - 1 - torch.arange(min(ours.size, ours.ring, theirs.ring), device=lengths_B.device)
    rows, column = (positions >= 0).nonzero(as_tuple=True)
    positions = positions[rows, column]
    target_BRGH[rows, positions % ours.ring] = source_BRGH[rows, positions % theirs.ring]


@dataclass(frozen=True)
class WindowStep:
    """What a step of the open segment means to layers with a window.

    places: where the step's keys go in the ring, int64 like the step's positions.
    span: the first places of the ring, which is all of them once it is full.
    mask: bool [B or 1, 1, T, span]; None where plain causality says the same and the span holds the step's tokens alone.
    start: the position of the first token of several, where rows stand alike: its queries are computed in blocks, each
        with the keys around it, and the mask is that of a block (`Window.band`).
    """

    window: Window
    places: torch.Tensor
    span: int
    mask: torch.Tensor | None
    start: int | None = None

    def at(self, positions_B1: torch.Tensor, last: torch.Tensor) -> WindowStep:
        """One query of each row, after all of the step's keys were written, the last of them at position `last`."""
        places = positions_B1 % self.window.ring
        return WindowStep(self.window, places, self.span, self.window.visible(positions_B1, last, self.span))


@dataclass(frozen=True)
class Step:
    """One forward step: whole segments, or tokens of the open segment.

    segments: K > 0 whole segments of every row; 0 for T tokens of the open segment.
    positions: int64 positions inside the segment, [T], or [B, T] where rows differ.
    has_memory: whether rows have a memory to read.
    span: S, the number of open keys the step can see, its own included.
    mask: bool [B, 1, 1, S] of what one query of each row sees, where rows differ; several queries see what lies up to
        their positions, of which attention makes masks block by block.
    causal: queries and keys are the same T tokens.
    lengths: int32 [B], open keys a row sees from its last query on (for kernels that take lengths instead of masks).
    closing: rows whose open segment is full after this step, as an index tensor; None when there is none.
    recurs: other steps have the same shapes, so that compiling them pays.
    window: the same for layers with a window, where the stage has any; the mask above is for the other layers.
    """

    segments: int
    positions: torch.Tensor
    has_memory: HasMemory
    span: int = 0
    mask: torch.Tensor | None = None
    causal: bool = True
    offset: int | None = 0
    lengths: torch.Tensor | None = None
    closing: torch.Tensor | None = None
    recurs: bool = False
    window: WindowStep | None = None

    def at(self, token_B: torch.Tensor) -> Step:
        """Make of a step of the open segment the step of one of its tokens in each row, whose keys are all stored by then."""
        assert not self.segments, "one token of whole segments cannot be asked alone"
        batch = token_B.shape[0]
        position_B1 = self.positions.expand(batch, -1).gather(1, token_B[:, None])
        visible_BS = torch.arange(self.span, device=token_B.device) <= position_B1
        lengths_B = position_B1[:, 0].int() + 1
        window = None if self.window is None else self.window.at(position_B1, self.positions[..., -1:])
        return replace(
            self,
            positions=position_B1,
            mask=visible_BS[:, None, None],
            causal=False,
            offset=None,
            lengths=lengths_B,
            window=window,
        )


class Cursor:
    """Where each row of a batch stands; makes the steps that move it on."""

    def __init__(
        self,
        batch: int,
        segment_length: int | None,
        device: torch.device,
        windows: Collection[Window | None] = (None,),
    ) -> None:
        """windows: the kinds of layers that the steps are for; all windows are alike, None stands for layers without."""
        self.batch = batch
        self.segment_length = segment_length
        self._window = next((window for window in windows if window is not None), None)
        self._sees_all = None in windows
        self.open_lengths = [0] * batch
        self.segments = [0] * batch
        self._device = device

    def step_segments(self, count: int) -> Step:
        """Step over `count` whole segments of every row; allowed only at a border."""
        assert self.segment_length is not None and not any(self.open_lengths), "whole segments start at a border"
        positions = torch.arange(self.segment_length, device=self._device).repeat(count)
        step = Step(segments=count, positions=positions, has_memory=self._has_memory(), recurs=True)
        self.segments = [done + count for done in self.segments]
        return step

    def step_tail(self, tokens: int, counts: Sequence[int] | None = None) -> Step:
        """Step over `tokens` more of the open segment.

        Args:
            counts: real tokens of each row (None: all); the rest is padding on the right.
        """
        counts = [tokens] * self.batch if counts is None else list(counts)
        starts = self.open_lengths
        common = starts[0] if len(set(starts)) == 1 else None
        within = torch.arange(tokens, device=self._device)
        positions = within + common if common is not None else within + self._tensor(starts)[:, None]
        span = max(starts) + tokens
        after = [start + count for start, count in zip(starts, counts, strict=True)]
        step = Step(
            segments=0,
            positions=positions,
            has_memory=self._has_memory(),
            span=span,
            mask=self._mask(positions, span, common, tokens),
            causal=common == 0,
            offset=common,
            lengths=self._tensor([start + tokens for start in starts]).int(),
            closing=self._tensor(full) if (full := self._close(after)) else None,
            window=self._window_step(positions, span, common),
        )
        return step

    def advance(self) -> list[int]:
        """Move all rows on by one token that was computed elsewhere; returns the rows whose segment is full now."""
        return self._close([length + 1 for length in self.open_lengths])

    def _close(self, after: list[int]) -> list[int]:
        """Move on to `after`; rows that reached L start a new segment."""
        full = [row for row, length in enumerate(after) if length == self.segment_length]
        assert self.segment_length is None or max(after) <= self.segment_length, "an open step crossed a border"
        self.open_lengths = [0 if row in set(full) else length for row, length in enumerate(after)]
        for row in full:
            self.segments[row] += 1
        return full

    def _has_memory(self) -> HasMemory:
        flags = [done > 0 for done in self.segments]
        if len(set(flags)) == 1:
            return flags[0]
        return torch.tensor(flags, device=self._device)

    def _window_step(self, positions: torch.Tensor, span: int, common: int | None) -> WindowStep | None:
        window, tokens = self._window, positions.shape[-1]
        if window is None:
            return None
        assert window.ring >= min(span, window.size + tokens), "the ring is too small for a step of so many tokens"
        span, places = min(span, window.ring), positions % window.ring
        if common == 0 and tokens <= window.size:
            return WindowStep(window, places, span, None)
        if common is not None and tokens > 1:
            band = window.band(min(tokens, window_block(window.size)), self._device)
            return WindowStep(window, places, span, band, common)
        return WindowStep(window, places, span, window.visible(positions, positions[..., -1:], span))

    def _mask(self, positions: torch.Tensor, span: int, common: int | None, tokens: int) -> torch.Tensor | None:
        if not self._sees_all or common is not None or tokens > 1:
            return None
        visible = torch.arange(span, device=self._device) <= positions[..., None]
        return visible.view(-1, 1, tokens, span)

    def _tensor(self, values: list[int]) -> torch.Tensor:
        return torch.tensor(values, device=self._device)


class BatchState:
    """The state of a batch in all layers of a stage, and its cursor."""

    def __init__(
        self,
        shapes: Sequence[StateShape],
        segment_length: int | None,
        dtype: torch.dtype,
        memory_dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """shapes: of each layer; they differ in their windows alone."""
        self.layers = [LayerState(shape, dtype, memory_dtype, device) for shape in shapes]
        self.cursor = Cursor(shapes[0].batch, segment_length, device, {shape.window for shape in shapes})
        self.capacity = shapes[0].capacity
        self._device = device

    def branch(self, sources: Sequence[int | Memories], segments: int) -> None:
        """Become the state of other rows after `segments` whole segments: each a copy of a row here, or a snapshot.

        Allowed only before the open segment is read.
        """
        for index, layer in enumerate(self.layers):
            layer.branch(sources, index)
        self.cursor = Cursor(len(sources), self.cursor.segment_length, self._device)
        self.cursor.segments = [segments] * len(sources)

    def snapshot(self, row: int) -> Memories:
        """Copy a row's memories, independent of what the row reads next; allowed only at a border."""
        assert not self.cursor.open_lengths[row], "snapshots are taken at borders"
        return tuple(layer.memory[row].clone() for layer in self.layers if layer.memory is not None)

    def nbytes(self) -> int:
        """Count the bytes of all layers' tensors."""
        return sum(layer.nbytes() for layer in self.layers)
