"""Bytes that one prefill step needs beside weights and state, as each engine really computes a layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from infini_eval.config import window_block
from infini_eval.planning.architecture import Architecture
from infini_eval.planning.weights import bits_of, bytes_a_token, kv_heads_of_a_shard

AttentionKernel = Literal["sdpa", "flash", "eager"]
Phase = list[float]  # bytes of each tensor that is alive at the same moment


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

    @property
    def value_bytes(self) -> float:
        """Bytes of one value in the model's dtype."""
        return bits_of(self.dtype) / 8


@dataclass(frozen=True)
class Widths:
    """Values a token of one tp shard: D model, Q queries, K keys (as many values), I the widest MLP."""

    d: float
    q: float
    k: float
    inner: float


def widths(architecture: Architecture, tp: int) -> Widths:
    """D, and Q, K, I of one shard."""
    width = architecture.head_dim
    kv = kv_heads_of_a_shard(architecture.num_kv_heads, tp) * width
    return Widths(architecture.hidden_size, architecture.num_heads * width / tp, kv, architecture.widest_mlp / tp)


def native_phases(architecture: Architecture, step: StepShape) -> list[Phase]:
    """The phases of one layer in one prefill step."""
    w = widths(architecture, step.tp)
    token = step.new_tokens * step.value_bytes
    # what Generation embedded, the layer's input, its norm, and the fused projection
    held = [w.d, w.d, w.d, w.q + 2 * w.k]
    middle = [*held, w.q, w.d]  # with the attended heads and what follows o_proj
    mlp = [
        [*middle, w.d, 2 * w.inner],  # norm, gate_up
        [*middle, 2 * w.inner, w.inner, w.inner],  # gate_up, silu, their product
        [*middle, 2 * w.inner, w.inner, w.d, w.d],  # gate_up, product, down_proj and the sum
    ]
    rotated = [*held, w.q + w.k, w.q]  # rotated queries and keys, local attention's result
    stays, kernel = _masks(architecture, step)
    attention = [value * token for value in rotated] + stays + kernel + _beside_local(architecture, step)
    return [attention, *([value * token for value in phase] + stays for phase in mlp)]


def _beside_local(architecture: Architecture, step: StepShape) -> Phase:
    """With a memory: the mixed result, features, the write's target, a read."""
    w = widths(architecture, step.tp)
    if architecture.keeps_memory:
        value = step.new_tokens * bits_of(step.memory_dtype) / 8
        segments = max(1, step.tokens // (architecture.layers[0].window or step.tokens))
        return [each * value for each in (w.q, w.q + w.k, w.k, (w.q + w.k) / segments)]
    if architecture.layers[0].attention == "infini":
        return [w.q * step.new_tokens * step.value_bytes]  # weighed by the gate; no memory is read
    return []


def _masks(architecture: Architecture, step: StepShape) -> tuple[Phase, Phase]:
    """Without segments: what stays during a step, and what attention makes of it in one layer at a time.

    There stay windows' masks (bool, one for all rows) and the rotations of all positions. Where all keys are seen, later
    steps need no mask, but their queries and results once more, in mirrored order.
    """
    if any(layer.attention == "infini" for layer in architecture.layers):
        return [], []
    queries, windows = step.new_tokens / step.rows, {layer.window for layer in architecture.layers}
    mirrored = (
        2 * widths(architecture, step.tp).q * step.new_tokens if queries < step.context and None in windows else 0.0
    )
    blocks = [_window_block(architecture, step, size) for size in windows if size and size < step.context]
    masks = [mask for mask, _ in blocks if mask]
    kernel = max(mirrored * step.value_bytes, *(work for _, work in blocks), 0.0)
    return [*masks, *_rotations(architecture, step)], [kernel] if kernel else []


def _window_block(architecture: Architecture, step: StepShape, size: int) -> tuple[float, float]:
    """Bytes of the mask of a block of queries that look through a window, and of what attention makes.

    That is the mask as numbers with copies of keys and values, or in the end the results of all blocks, joined.
    """
    w, queries = widths(architecture, step.tp), step.new_tokens / step.rows
    block = min(queries, window_block(size))
    seen, joined = size - 1 + block, w.q * step.new_tokens if block < queries else 0.0
    copied = 2 * w.k * seen * step.rows if size + queries < step.context else 0.0  # where they pass the ring's end
    return block * seen, max(block * seen + copied, joined) * step.value_bytes


def _rotations(architecture: Architecture, step: StepShape) -> Phase:
    """Cosines and sines of all positions and of the step's: nothing beside a cache of all keys, but not beside windows."""
    if all(layer.window is None for layer in architecture.layers):
        return []
    position = 1.5 * architecture.head_dim * step.value_bytes
    return [position * step.context, position * step.new_tokens / step.rows]


def transformers_steps(step: StepShape) -> list[StepShape]:
    """The last whole step of a prefill, and the shorter one that may follow it."""
    whole = step.context // step.tokens * step.tokens
    rest = step.context - whole
    steps = [replace(step, context=whole)] if whole else []
    return steps + ([replace(step, tokens=rest)] if rest else [])


def transformers_phases(architecture: Architecture, step: StepShape) -> list[Phase]:
    """Growing the cache, attention, MLP, experts; the embedded tokens, the mask and windows' last steps stay."""
    if architecture.layers[0].attention == "infini":
        return _infini_phases_of_transformers(architecture, step)
    w = widths(architecture, step.tp)
    token = step.new_tokens * step.value_bytes
    stays = [w.d * token, *_mask(step), *_in_flight(architecture, step)]
    phases = [
        [value * token for value in (w.d, w.d, w.q, w.q, w.k, w.k, w.k)] + [_growth(architecture, step)],
        [value * token for value in (w.d, w.d, w.q, w.q)] + _kernel(architecture, step),
        [value * token for value in (w.d, w.d, w.d, w.inner, w.inner, w.inner)],
    ]
    if architecture.num_experts:
        phases.append([w.d * token, *_experts(architecture, step)])
    return [stays + phase for phase in phases]


PIECE_TOKENS = 4096  # that an exported Infini model passes through its layers at once, rounded to whole segments


def _infini_phases_of_transformers(architecture: Architecture, step: StepShape) -> list[Phase]:
    """The exported model's layer: no mask and no growth, but copies of its projections as segments."""
    w, length = widths(architecture, step.tp), architecture.layers[0].window
    assert length is not None
    tokens = min(step.tokens, step.context, max(1, PIECE_TOKENS // length) * length)
    token = step.rows * tokens * step.value_bytes
    # the layer's input, its norm; q, k, v as projected, q and k rotated; local attention, mixed by segment, joined
    attention = [w.d, w.d, w.q, w.k, w.k, w.q, w.k, w.q, w.q, w.q]
    attention += [w.q, w.k, w.k] if step.rows > 1 else []  # segments side by side: a copy where rows are several
    angles = [2.0 * architecture.head_dim * tokens * step.value_bytes]
    phases = [
        [value * token for value in attention] + angles,
        [value * token for value in (w.d, w.d, w.d, w.inner, w.inner, w.inner)] + angles,
    ]
    if architecture.keeps_memory:  # of one segment: the query's features, what they read, and its mixing
        value = step.rows * min(tokens, length) * bits_of(step.memory_dtype) / 8
        phases[0] += [value * each for each in (w.q, w.q, w.q, w.k)]
    return phases


def expert_bytes(architecture: Architecture, step: StepShape) -> int:
    """Routed experts: every token through all of them ("repeated"), or through its own ("grouped")."""
    return round(sum(_experts(architecture, step)))


def _experts(architecture: Architecture, step: StepShape) -> Phase:
    copies = architecture.num_experts if architecture.moe == "repeated" else architecture.experts_per_token
    each = step.new_tokens * step.value_bytes * copies
    d, inner = architecture.hidden_size, architecture.expert_width / step.tp
    # the repeated input, its scaled copy and the output; gate and up fused (2 I), activated (I), their product (I)
    return [each * value for value in (d, d, d, 2 * inner, inner, inner)]


def eager_softmax_bytes(heads: int, queries: int, keys: int, rows: int = 1) -> int:
    """The fp32 matrix that eager attention makes in one layer: heads x queries x keys."""
    return rows * heads * queries * keys * 4


def _has_mask(step: StepShape) -> bool:
    """A first step is plainly causal; later ones see more keys than they have queries."""
    return step.kernel != "flash" and (step.kernel == "eager" or step.tokens < step.context)


def _mask(step: StepShape) -> Phase:
    """bool, shared by rows and layers."""
    return [float(step.tokens * step.context)] if _has_mask(step) else []


def _kernel(architecture: Architecture, step: StepShape) -> Phase:
    """What attention over the context makes: scores (eager), or the mask as numbers and repeated keys and values (sdpa)."""
    if not _has_mask(step):
        return []
    b, n, context = step.value_bytes, step.new_tokens, step.context
    heads = architecture.num_heads / step.tp
    if step.kernel == "eager":
        return [heads * n * context * 4, heads * n * context * b]
    blocks = [n * context * b]
    if heads > kv_heads_of_a_shard(architecture.num_kv_heads, step.tp):
        blocks += 2 * [step.rows * context * heads * architecture.head_dim * b]
    return blocks


def _growth(architecture: Architecture, step: StepShape) -> float:
    """A growing layer of a DynamicCache holds its old and its new keys at once."""
    if step.kernel == "flash":  # stands for paged caches too, which do not copy
        return 0.0
    unbounded = [layer for layer in set(architecture.layers) if not layer.window]
    token = max((bytes_a_token(architecture, x, step.kv_dtype, step.tp) for x in unbounded), default=0)
    return token / 2 * step.context * step.rows


def _in_flight(architecture: Architecture, step: StepShape) -> Phase:
    """A DynamicCache's window keeps the last step's tokens beside its own, since it is a view of both."""
    blocks = []
    for layer in architecture.layers:
        if layer.window and step.context > layer.window:
            token = bytes_a_token(architecture, layer, step.kv_dtype, step.tp) * step.rows
            blocks += 2 * [min(step.tokens, step.context - layer.window) * token / 2]  # keys, values
    return blocks


__all__ = [
    "AttentionKernel",
    "StepShape",
    "eager_softmax_bytes",
    "expert_bytes",
    "heaviest_phase",
    "logit_bytes",
    "steps_of",
]


def steps_of(architecture: Architecture, step: StepShape) -> list[StepShape]:
    """The steps of a prefill among which the heaviest is."""
    return [step] if architecture.engine == "native" else transformers_steps(step)


def heaviest_phase(architecture: Architecture, step: StepShape) -> Phase:
    """The tensors of the phase of a layer that needs most in one step."""
    phases = (native_phases if architecture.engine == "native" else transformers_phases)(architecture, step)
    return max(phases, key=sum)


def logit_bytes(architecture: Architecture, positions: int = 1, rows: int = 1, tp: int = 1) -> int:
    """fp32 logits of `positions` positions of each row; this package asks only for the last one."""
    return round(rows * positions * architecture.vocab_size * 4 / tp)
