"""An Architecture from a nanotron ModelConfig: Infini-Attention or plain Llama, as this package's engine computes it."""

from __future__ import annotations

from infini_eval.config import ModelConfig
from infini_eval.planning.architecture import Architecture, Layer


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
    return Architecture(
        name=name,
        kind=config.kind,
        engine="native",
        hidden_size=hidden,
        vocab_size=config.vocab_size,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=width,
        layers=(layer,) * config.num_hidden_layers,
        dtype=config.dtype,
        embedding_parameters=config.vocab_size * hidden,
        head_parameters=0 if config.tie_word_embeddings else config.vocab_size * hidden,
        widest_mlp=config.intermediate_size,
        max_positions=None if config.has_segments else config.max_position_embeddings,
        saved_tp=config.saved_tp,
        saved_pp=config.saved_pp,
        keeps_memory=config.has_segments and config.memory == "on",
    )
