"""What models/llama.py holds at once in each phase of a layer: one number of bytes a tensor.

Temporaries die with the expression that made them; what a name of a calling frame holds lives until it returns.
Legend: D, Q, K, I as in step_shape.Widths, in values a token.
"""

from __future__ import annotations

from infini_eval.planning.architecture import Architecture
from infini_eval.planning.step_shape import Phase, StepShape, widths
from infini_eval.planning.weights import bits_of


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
    attention = [value * token for value in rotated] + _beside_local(architecture, step)
    return [attention, *([value * token for value in phase] for phase in mlp)]


def _beside_local(architecture: Architecture, step: StepShape) -> Phase:
    """With a memory: the mixed result, features, the write's target, a read. A plain Llama: its mask."""
    w = widths(architecture, step.tp)
    if architecture.keeps_memory:
        value = step.new_tokens * bits_of(step.memory_dtype) / 8
        segments = max(1, step.tokens // (architecture.layers[0].window or step.tokens))
        return [each * value for each in (w.q, w.q + w.k, w.k, (w.q + w.k) / segments)]
    if architecture.layers[0].attention == "infini":
        return [w.q * step.new_tokens * step.value_bytes]  # weighed by the gate; no memory is read
    if step.new_tokens == 0 or step.tokens >= step.context:
        return []
    seen = step.new_tokens * step.context / step.rows  # one mask for all rows: bool, and as numbers in the kernel
    return [seen, seen * step.value_bytes]
