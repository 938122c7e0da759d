"""What modeling_llama.py and its kin hold at once with a DynamicCache: one number of bytes a tensor.

Legend: D, Q, K, I as in step_shape.Widths, in values a token.
"""

from __future__ import annotations

from dataclasses import replace

from infini_eval.planning.architecture import Architecture
from infini_eval.planning.cache import bytes_a_token
from infini_eval.planning.step_shape import Phase, StepShape, widths
from infini_eval.planning.weights import kv_heads_of_a_shard


def transformers_steps(step: StepShape) -> list[StepShape]:
    """The last whole step of a prefill, and the shorter one that may follow it."""
    whole = step.context // step.tokens * step.tokens
    rest = step.context - whole
    steps = [replace(step, context=whole)] if whole else []
    return steps + ([replace(step, tokens=rest)] if rest else [])


def transformers_phases(architecture: Architecture, step: StepShape) -> list[Phase]:
    """Growing the cache, attention, MLP, experts; the embedded tokens, the mask and windows' last steps stay."""
    w = widths(architecture, step.tp)
    token = step.new_tokens * step.value_bytes
    stays = [w.d * token, *_mask(step), *_in_flight(architecture, step)]
    phases = [
        [value * token for value in (w.d, w.d, w.q, w.q, w.k, w.k, w.k)] + [_growth(architecture, step)],
        [value * token for value in (w.d, w.d, w.q, w.q)] + _kernel(architecture, step),
        [
            value * token for value in (w.d, w.d, w.d, w.inner, w.inner, w.inner)
        ],  # the loop still holds the layer's input
    ]
    if architecture.num_experts:
        phases.append([w.d * token, *_experts(architecture, step)])
    return [stays + phase for phase in phases]


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
