"""Bytes that one prefill step needs beside weights and state, as each engine really computes a layer.

Legend: n rows x tokens of the step, D model width, Q query width (heads x head width), K kv width, I MLP width,
b bytes of the model's dtype; all of one tensor-parallel shard.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from infini_eval.planning.architecture import Architecture
from infini_eval.planning.cache import bytes_a_token
from infini_eval.planning.weights import bits_of, kv_heads_of_a_shard

AttentionKernel = Literal["sdpa", "flash", "eager"]
KERNELS = ("sdpa", "flash", "eager")


@dataclass(frozen=True)
class StepShape:
    """One step: `tokens` new ones in each of `rows` sequences that have `context` tokens when it ends."""

    tokens: int
    context: int
    rows: int = 1
    tp: int = 1
    dtype: str = "bfloat16"
    kv_dtype: str = "bfloat16"
    memory_dtype: str = "float32"
    kernel: AttentionKernel = "sdpa"

    @property
    def new_tokens(self) -> int:
        """New tokens over all rows."""
        return self.rows * min(self.tokens, self.context)


def activation_bytes(architecture: Architecture, step: StepShape) -> int:
    """The peak over a prefill's steps and, in each, over a layer's phases."""
    if architecture.engine == "native":
        return _native(architecture, step)
    return max(_transformers(architecture, each) for each in _heaviest_steps(step))


def _heaviest_steps(step: StepShape) -> list[StepShape]:
    """The last whole step of a prefill, and the shorter one that may follow it."""
    whole = step.context // step.tokens * step.tokens
    rest = step.context - whole
    steps = [replace(step, context=whole)] if whole else []
    return steps + ([replace(step, tokens=rest)] if rest else [])


def eager_softmax_bytes(heads: int, queries: int, keys: int, rows: int = 1) -> int:
    """The fp32 matrix that eager attention makes in one layer: heads x queries x keys."""
    return rows * heads * queries * keys * 4


def expert_bytes(architecture: Architecture, step: StepShape) -> int:
    """Routed experts: every token through all of them ("repeated"), or through its own ("grouped")."""
    n, b = step.new_tokens, bits_of(step.dtype) / 8
    copies = architecture.num_experts if architecture.moe == "repeated" else architecture.experts_per_token
    inner = architecture.expert_width / step.tp
    # the repeated input, its scaled copy and the output; gate and up fused (2 I), activated (I), their product (I)
    return round(n * b * copies * (3 * architecture.hidden_size + 4 * inner))


def logit_bytes(architecture: Architecture, positions: int = 1, rows: int = 1, tp: int = 1) -> int:
    """fp32 logits of `positions` positions of each row; this package asks only for the last one."""
    return round(rows * positions * architecture.vocab_size * 4 / tp)


def _native(architecture: Architecture, step: StepShape) -> int:
    """models/llama.py: what each phase of a layer holds at once; temporaries die with the expression that made them."""
    b, m, n = bits_of(step.dtype) / 8, bits_of(step.memory_dtype) / 8, step.new_tokens
    d, q, k, inner = _widths(architecture, step.tp)
    held = 2 * d + q + 2 * k  # input, its norm, and the fused projection
    mlp = (held + d + q + max(d + 2 * inner, 4 * inner)) * b
    attention = (held + 2 * q + k) * b  # rotated queries and keys, local attention's result
    if architecture.keeps_memory:
        segments = max(1, step.tokens // (architecture.layers[0].window or step.tokens))
        # the mixed result, feature maps of q and k, v as the write's target; what one segment reads
        attention += (2 * q + 2 * k + (q + k) / segments) * m
    else:
        attention += _open_segment_scores(architecture, step, n)
    return round(n * max(mlp, attention))


def _open_segment_scores(architecture: Architecture, step: StepShape, new_tokens: int) -> float:
    """Bytes a new token of a plain Llama's mask over the whole context (bool, and as numbers in the kernel)."""
    if new_tokens == 0 or step.tokens >= step.context:
        return 0.0
    return step.context * (1 + bits_of(step.dtype) / 8) / step.rows


def _transformers(architecture: Architecture, step: StepShape) -> int:
    """modeling_llama.py and its kin with a DynamicCache: growing the cache, attention, MLP, experts; the mask stays."""
    b, n = bits_of(step.dtype) / 8, step.new_tokens
    d, q, k, inner = _widths(architecture, step.tp)
    mask = step.tokens * step.context if _has_mask(step) else 0  # bool, shared by rows and layers
    phases = [
        n * (2 * d + 2 * q + 3 * k) * b + _growth(architecture, step),
        n * (2 * d + 2 * q) * b + _kernel_bytes(architecture, step),
        n * (3 * d + 3 * inner) * b,
    ]
    if architecture.num_experts:
        phases.append(n * 2 * d * b + expert_bytes(architecture, step))
    return round(mask + max(phases)) + _in_flight(architecture, step)


def _has_mask(step: StepShape) -> bool:
    """A first step is plainly causal; later ones see more keys than they have queries."""
    return step.kernel != "flash" and (step.kernel == "eager" or step.tokens < step.context)


def _kernel_bytes(architecture: Architecture, step: StepShape) -> float:
    """What attention over the context makes: scores (eager), or the mask as numbers and repeated keys and values (sdpa)."""
    if not _has_mask(step):
        return 0.0
    b, n, context = bits_of(step.dtype) / 8, step.new_tokens, step.context
    heads = architecture.num_heads / step.tp
    if step.kernel == "eager":
        return heads * n * context * (4 + b)
    kv_heads = kv_heads_of_a_shard(architecture.num_kv_heads, step.tp)
    repeated = 2 * step.rows * context * heads * architecture.head_dim * b if heads > kv_heads else 0.0
    return repeated + n * context * b


def _growth(architecture: Architecture, step: StepShape) -> int:
    """A growing layer of a DynamicCache holds its old and its new keys at once."""
    if step.kernel == "flash":  # stands for paged caches too, which do not copy
        return 0
    unbounded = [layer for layer in set(architecture.layers) if not layer.window]
    return max((bytes_a_token(architecture, x, step.kv_dtype, step.tp) for x in unbounded), default=0) * (
        step.context * step.rows // 2
    )


def _in_flight(architecture: Architecture, step: StepShape) -> int:
    """A DynamicCache's window keeps the last step's tokens beside its own, since it is a view of both."""
    extra = 0
    for layer in architecture.layers:
        if layer.window and step.context > layer.window:
            token = bytes_a_token(architecture, layer, step.kv_dtype, step.tp) * step.rows
            extra += min(step.tokens, step.context - layer.window) * token
    return extra


def _widths(architecture: Architecture, tp: int) -> tuple[float, float, float, float]:
    """D, and Q, K, I of one shard."""
    width = architecture.head_dim
    kv = kv_heads_of_a_shard(architecture.num_kv_heads, tp) * width
    return architecture.hidden_size, architecture.num_heads * width / tp, kv, architecture.widest_mlp / tp
