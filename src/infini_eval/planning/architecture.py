"""What planning must know of a model: its layers, with their parameters and the kind of state that each keeps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from infini_eval.config import ModelConfig

Attention = Literal["full", "sliding", "chunked", "mla", "infini"]
Moe = Literal["grouped", "repeated"]


@dataclass(frozen=True)
class Layer:
    """One decoder layer.

    `attention` says what is kept of the past: everything ("full", "mla"), the last `window` tokens ("sliding",
    "chunked"), or a compressive memory and an open segment of `window` tokens ("infini").
    Parameters are counted by what may happen to them: `query` (q and o projections) and `kv` projections, `mlp` (dense
    and shared experts), `experts` (all routed ones, fused tensors) of which `active_experts` answer a token, and
    `other` (norms, biases, router, gates: never quantised, never sharded here).
    """

    attention: Attention
    window: int | None
    query: int
    kv: int
    mlp: int
    experts: int = 0
    active_experts: int = 0
    other: int = 0

    @property
    def parameters(self) -> int:
        return self.query + self.kv + self.mlp + self.experts + self.other

    @property
    def active_parameters(self) -> int:
        """Weights that multiply each token."""
        return self.query + self.kv + self.mlp + self.active_experts


@dataclass(frozen=True)
class Architecture:
    """A model's shape. `engine` is who would run it: this package's own ("native") or "transformers".

    `widest_mlp` and `expert_width` are intermediate sizes (0: none); `moe` is how experts are computed: each token
    by its own ("grouped"), or every token by all of them ("repeated", as transformers computes Llama 4).
    `latent_width` is what MLA keeps of a token in a layer (0: no MLA). `head_parameters` is 0 where it is tied.
    """

    name: str
    kind: str
    engine: Literal["native", "transformers"]
    hidden_size: int
    vocab_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    layers: tuple[Layer, ...]
    dtype: str
    embedding_parameters: int
    head_parameters: int
    widest_mlp: int
    expert_width: int = 0
    num_experts: int = 0
    experts_per_token: int = 0
    moe: Moe = "grouped"
    latent_width: int = 0
    vision_parameters: int = 0
    max_positions: int | None = None
    saved_tp: int = 1
    saved_pp: int = 1
    keeps_memory: bool = True
    notes: tuple[str, ...] = ()

    @property
    def total_parameters(self) -> int:
        """Every weight, tied embeddings once, a vision tower included."""
        return sum(self.parameters_by_part().values())

    @property
    def active_parameters(self) -> int:
        """Weights that multiply each token of a prefill: all layers, without embedding and head."""
        return sum(layer.active_parameters for layer in self.layers)

    def parameters_by_part(self) -> dict[str, int]:
        """Parameters of each part; they add up to `total_parameters`."""
        return {
            "embedding": self.embedding_parameters,
            "attention": sum(layer.query + layer.kv for layer in self.layers),
            "mlp": sum(layer.mlp for layer in self.layers),
            "experts": sum(layer.experts for layer in self.layers),
            "norms_and_others": sum(layer.other for layer in self.layers) + self.hidden_size,
            "head": self.head_parameters,
            "vision": self.vision_parameters,
        }


def from_model_config(config: ModelConfig, name: str) -> Architecture:
    """The shape of a nanotron model; `name` is shown in plans."""
    width, hidden = config.head_dim, config.hidden_size
    layer = Layer(
        attention="infini" if config.has_segments else "full",
        window=config.segment_length,
        query=2 * config.num_attention_heads * width * hidden,
        kv=2 * config.num_key_value_heads * width * hidden,
        mlp=3 * hidden * config.intermediate_size,
        other=2 * hidden + (config.num_attention_heads if config.has_segments else 0),
    )
    if config.attention_bias:
        layer = replace(
            layer, other=layer.other + (config.num_attention_heads + 2 * config.num_key_value_heads) * width
        )
    windows = [config.window_of(index) for index in range(config.num_hidden_layers)]
    layers = tuple(layer if size is None else replace(layer, attention="sliding", window=size) for size in windows)
    return Architecture(
        name=name,
        kind=config.kind,
        engine="native",
        hidden_size=hidden,
        vocab_size=config.vocab_size,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=width,
        layers=layers,
        dtype=config.dtype,
        embedding_parameters=config.vocab_size * hidden,
        head_parameters=0 if config.tie_word_embeddings else config.vocab_size * hidden,
        widest_mlp=config.intermediate_size,
        max_positions=None if config.has_segments else config.max_position_embeddings,
        saved_tp=config.saved_tp,
        saved_pp=config.saved_pp,
        keeps_memory=config.has_segments and config.memory == "on",
    )
