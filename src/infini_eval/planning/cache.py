"""Bytes that sequences keep of their past: KV cache (grouped, sliding, chunked, latent) or compressive state."""

from __future__ import annotations

from dataclasses import dataclass

from infini_eval.planning.architecture import Architecture, Layer
from infini_eval.planning.weights import bits_of, kv_heads_of_a_shard


@dataclass(frozen=True)
class StateBytes:
    """What `batch` sequences keep on one rank. `unbounded` is what a cache without windows would take.

    `cache` is the KV cache of ordinary layers; `memory` the compressive memories; `open_segment` the rotated keys,
    raw keys and values of the segment that is being read.
    """

    cache: int = 0
    memory: int = 0
    open_segment: int = 0
    unbounded: int = 0

    @property
    def total(self) -> int:
        return self.cache + self.memory + self.open_segment

    def __add__(self, other: StateBytes) -> StateBytes:
        return StateBytes(
            self.cache + other.cache,
            self.memory + other.memory,
            self.open_segment + other.open_segment,
            self.unbounded + other.unbounded,
        )


def state_bytes(
    architecture: Architecture,
    tokens: int,
    *,
    kv_dtype: str,
    memory_dtype: str = "float32",
    layers: range | None = None,
    tp: int = 1,
    batch: int = 1,
) -> StateBytes:
    """State of `batch` sequences of `tokens` tokens in `layers` (None: all) on one of `tp` shards."""
    chosen = architecture.layers if layers is None else [architecture.layers[index] for index in layers]
    width = _Widths(architecture, bits_of(kv_dtype) / 8, bits_of(memory_dtype) / 8, tp)
    counts: dict[Layer, int] = {}
    for layer in chosen:
        counts[layer] = counts.get(layer, 0) + batch
    total = StateBytes()
    for layer, times in counts.items():
        one = _layer_state(layer, tokens, width, architecture.keeps_memory)
        total += StateBytes(one.cache * times, one.memory * times, one.open_segment * times, one.unbounded * times)
    return total


def state_blocks(state: StateBytes, layers: int, batches: int, keeps_memory: bool) -> list[float]:
    """The tensors that a state of `layers` alike layers and `batches` batches is made of, as bytes of each."""
    buffers = 3 if keeps_memory else 2
    parts = ((state.cache, 2), (state.open_segment, buffers), (state.memory, 1))
    return [
        total / (layers * batches * count) for total, count in parts if total for _ in range(layers * batches * count)
    ]


def bytes_a_token(architecture: Architecture, layer: Layer, kv_dtype: str, tp: int = 1) -> int:
    """Bytes that one more token adds to a layer's cache while its window is not full."""
    return _Widths(architecture, bits_of(kv_dtype) / 8, 4, tp).token(layer)


@dataclass(frozen=True)
class _Widths:
    """Values of one token in one layer, and their bytes."""

    architecture: Architecture
    kv_bytes: float
    memory_bytes: float
    tp: int

    @property
    def local_kv(self) -> int:
        return kv_heads_of_a_shard(self.architecture.num_kv_heads, self.tp) * self.architecture.head_dim

    def token(self, layer: Layer) -> int:
        latent = self.architecture.latent_width  # the latent is the same for all heads: every shard keeps it
        return round((latent if layer.attention == "mla" else 2 * self.local_kv) * self.kv_bytes)


def _layer_state(layer: Layer, tokens: int, width: _Widths, keeps_memory: bool) -> StateBytes:
    token = width.token(layer)
    if layer.attention != "infini":
        seen = min(tokens, layer.window or tokens)
        return StateBytes(cache=seen * token, unbounded=tokens * token)
    assert layer.window is not None
    buffers = 3 if keeps_memory else 2  # rotated keys, values, and raw keys for the memory's update
    open_segment = round(buffers * layer.window * width.local_kv * width.kv_bytes)
    memory = width.local_kv * (width.architecture.head_dim + 1) if keeps_memory else 0
    return StateBytes(0, round(memory * width.memory_bytes), open_segment, tokens * token)
