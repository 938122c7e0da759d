"""Arithmetic of a prefill and of one new token: projections, attention, compressive memory, head."""

from __future__ import annotations

from dataclasses import dataclass

from infini_eval.planning.architecture import Architecture, Layer


@dataclass(frozen=True)
class Flops:
    """FLOPs by part; a multiplication and its addition are two."""

    projections: float
    attention: float
    memory: float
    head: float = 0.0

    @property
    def total(self) -> float:
        return self.projections + self.attention + self.memory + self.head


def flops_a_token(architecture: Architecture, context: int) -> Flops:
    """Mean over the tokens of a prompt of `context` tokens, without the head."""
    attention = sum(_attention(architecture, layer, context) for layer in architecture.layers)
    memory = sum(_memory(architecture, layer) for layer in architecture.layers)
    return Flops(2.0 * architecture.active_parameters, attention, memory)


def prefill_flops(architecture: Architecture, context: int) -> Flops:
    """A whole prompt; the head computes its last position only."""
    one = flops_a_token(architecture, context)
    head = 2.0 * architecture.vocab_size * architecture.hidden_size
    return Flops(one.projections * context, one.attention * context, one.memory * context, head)


def keys_seen(layer: Layer, context: int) -> float:
    """Keys that a query sees on average over a prompt of `context` tokens."""
    window = min(layer.window or context, context)
    if layer.attention == "sliding":  # the first `window` queries see half a window, all others a whole one
        return window * (context - window / 2) / context
    return window / 2


def _attention(architecture: Architecture, layer: Layer, context: int) -> float:
    return 4.0 * keys_seen(layer, context) * architecture.num_heads * architecture.head_dim


def _memory(architecture: Architecture, layer: Layer) -> float:
    """Each query and each key reads the memory, each key and value is written: d x (d + 1) values a head."""
    if layer.attention != "infini" or not architecture.keeps_memory:
        return 0.0
    matrix = 2.0 * architecture.head_dim * (architecture.head_dim + 1)
    return matrix * (architecture.num_heads + 2 * architecture.num_kv_heads)
