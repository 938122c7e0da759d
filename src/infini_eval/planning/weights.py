"""Bytes of a model's weights on one rank: its stage's layers, its shard of each, and what a quantizer really converts."""

from __future__ import annotations

from dataclasses import dataclass

from infini_eval.errors import ConfigError
from infini_eval.planning.architecture import Architecture, Layer

BITS = {"float32": 32, "bfloat16": 16, "float16": 16, "fp8": 8, "float8_e4m3fn": 8, "int8": 8}
NF4_BITS = 4.5  # 4 bits and one fp32 scale for each block of 64 weights


@dataclass(frozen=True)
class Quantization:
    """Bits a weight: of linear layers, of routed experts, of everything else. None leaves the model's dtype."""

    linear: float | None
    experts: float | None
    rest: float | None
    meaning: str


QUANTIZATIONS = {
    "none": Quantization(None, None, None, "weights in the model's dtype"),
    "fp8": Quantization(8, 8, 8, "every weight in 8 bits"),
    "int8": Quantization(8, 8, 8, "every weight in 8 bits"),
    "int4": Quantization(4, 4, 4, "every weight in 4 bits: the ideal, without scales"),
    "nf4": Quantization(NF4_BITS, NF4_BITS, None, "a checkpoint stored in NF4: linear layers and experts"),
    "bnb-4bit": Quantization(
        NF4_BITS, None, None, "bitsandbytes while loading: linear layers only; fused 3-D experts are not converted"
    ),
    "bnb-8bit": Quantization(
        8, None, None, "bitsandbytes while loading: linear layers only; fused 3-D experts are not converted"
    ),
}


def bits_of(dtype: str) -> int:
    """Bits a value of a dtype; ConfigError for one we do not know."""
    if dtype not in BITS:
        raise ConfigError(f"unknown dtype {dtype!r}", valid=", ".join(BITS))
    return BITS[dtype]


def quantization(name: str) -> Quantization:
    """The quantization of that name; ConfigError, listing them, where there is none."""
    if name not in QUANTIZATIONS:
        raise ConfigError(f"unknown quantization {name!r}", valid=", ".join(QUANTIZATIONS))
    return QUANTIZATIONS[name]


def total_weight_bytes(architecture: Architecture, dtype: str, quantizer: str = "none") -> int:
    """Bytes of the whole model, once."""
    return stage_weight_bytes(architecture, range(len(architecture.layers)), dtype, quantizer)


def stage_weight_bytes(
    architecture: Architecture, layers: range, dtype: str, quantizer: str = "none", tp: int = 1
) -> int:
    """Bytes that one rank of a stage holds: the embedding is on the first stage, final norm and head on the last.

    Linear layers, experts, embedding and head are divided over tp; kv projections only down to one kv head; norms,
    routers and the vision tower (on the first stage) are on every shard.
    """
    plan, base = quantization(quantizer), bits_of(dtype)
    linear, experts, rest = (base if bits is None else bits for bits in (plan.linear, plan.experts, plan.rest))
    kv_share = kv_heads_of_a_shard(architecture.num_kv_heads, tp) / architecture.num_kv_heads
    bits = 0.0
    for layer in (architecture.layers[index] for index in layers):
        bits += ((layer.query + layer.mlp) / tp + layer.kv * kv_share) * linear
        bits += layer.experts / tp * experts + layer.other * rest
    return round((bits + _ends(architecture, layers, tp) * rest) / 8)


def kv_heads_of_a_shard(kv_heads: int, tp: int) -> int:
    """kv heads on each of `tp` shards; beyond the number of kv heads they are replicated."""
    return -(-kv_heads // tp)


def _ends(architecture: Architecture, layers: range, tp: int) -> float:
    """Parameters beside the layers on this stage."""
    first, last = layers.start == 0, layers.stop == len(architecture.layers)
    parameters = 0.0
    if first:
        parameters += architecture.embedding_parameters / tp + architecture.vision_parameters
    if last:
        tied_elsewhere = architecture.embedding_parameters if not architecture.head_parameters and not first else 0
        parameters += (architecture.head_parameters + tied_elsewhere) / tp + architecture.hidden_size
    return parameters


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
    step_tokens: int = 0,
) -> StateBytes:
    """State of `batch` sequences of `tokens` tokens in `layers` (None: all) on one of `tp` shards.

    Args:
        step_tokens: of a row in one step, which the native engine's layers with a window keep beside it.
    """
    chosen = architecture.layers if layers is None else [architecture.layers[index] for index in layers]
    width = _Widths(architecture, bits_of(kv_dtype) / 8, bits_of(memory_dtype) / 8, tp)
    beside = step_tokens if architecture.engine == "native" else 0
    counts: dict[Layer, int] = {}
    for layer in chosen:
        counts[layer] = counts.get(layer, 0) + batch
    total = StateBytes()
    for layer, times in counts.items():
        one = _layer_state(layer, tokens, width, architecture.keeps_memory, beside)
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


def _layer_state(layer: Layer, tokens: int, width: _Widths, keeps_memory: bool, beside_window: int) -> StateBytes:
    token = width.token(layer)
    if layer.attention != "infini":
        seen = min(tokens, layer.window + beside_window if layer.window else tokens)
        return StateBytes(cache=seen * token, unbounded=tokens * token)
    assert layer.window is not None
    buffers = 3 if keeps_memory else 2  # rotated keys, values, and raw keys for the memory's update
    open_segment = round(buffers * layer.window * width.local_kv * width.kv_bytes)
    memory = width.local_kv * (width.architecture.head_dim + 1) if keeps_memory else 0
    return StateBytes(0, round(memory * width.memory_bytes), open_segment, tokens * token)
