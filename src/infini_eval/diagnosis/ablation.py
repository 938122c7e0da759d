"""Ablation by head: how much less likely the answer becomes when one head's memory returns nothing at the question.

The prompt is read once with everything on; only from the question's segment on is a head's read set to zero, so the
effect is that of reading, not of what the head wrote. All heads are the rows of one batch.

Legend: B variants, N query heads.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from infini_eval.engine.batching import plan_prefill
from infini_eval.engine.native_model import NativeModel
from infini_eval.models.llama import Llama
from infini_eval.models.state import BatchState


@torch.inference_mode()
def head_effects(
    model: NativeModel, prompt: np.ndarray, answer: list[int]
) -> tuple[float, torch.Tensor, torch.Tensor, float]:
    """log p(answer) of the whole model; what it loses without each head [layers, N], each layer [layers], all of memory.

    The answer's tokens are given (teacher forcing). One process, one stage.
    """
    llama = model.llama
    layers, heads = len(llama.layers), llama.heads
    length = model.config.segment_length
    assert length is not None
    variants = 1 + layers * heads + layers + 1
    keep_BLN = torch.ones(variants, layers, heads, device=llama.device)
    for layer in range(layers):
        for head in range(heads):
            keep_BLN[1 + layer * heads + head, layer, head] = 0
        keep_BLN[1 + layers * heads + layer, layer] = 0
    keep_BLN[-1] = 0
    border = (len(prompt) - 1) // length * length
    state = _repeated(llama, prefix_state(model, prompt[:border]), variants, len(prompt) + len(answer))
    with _reading(llama, keep_BLN):
        log_p_B = _log_probability(llama, state, prompt[border:], answer)
    lost = (log_p_B[0] - log_p_B[1:]).cpu()
    return (
        log_p_B[0].item(),
        lost[: layers * heads].view(layers, heads),
        lost[layers * heads : -1],
        lost[-1].item(),
    )


def prefix_state(model: NativeModel, prefix: np.ndarray) -> BatchState:
    """The state after whole segments."""
    llama = model.llama
    state = llama.new_state(1, max(1, len(prefix)))
    if len(prefix):
        for plan in plan_prefill([len(prefix)], model.config.segment_length, model.chunk_tokens(1)):
            ids = torch.from_numpy(prefix[plan.start : plan.start + plan.tokens].astype(np.int64))[None]
            llama.run_layers(llama.embed(ids.to(llama.device)), state, state.cursor.take_segments(plan.segments))
    return state


def _repeated(llama: Llama, state: BatchState, rows: int, longest: int) -> BatchState:
    """The same memory in `rows` rows; the state stands at a border, so there is nothing else."""
    copies = llama.new_state(rows, longest)
    for layer, source in zip(copies.layers, state.layers, strict=True):
        assert layer.memory is not None and source.memory is not None
        layer.memory.copy_(source.memory.expand_as(layer.memory))
    copies.cursor.segments = state.cursor.segments * rows
    return copies


class _reading:
    """Inside the block each row b reads the memory of head n in layer l only where keep[b, l, n] is 1."""

    def __init__(self, llama: Llama, keep_BLN: torch.Tensor) -> None:
        self._llama, self._keep = llama, keep_BLN

    def __enter__(self) -> None:
        self._original = self._llama.layers
        self._llama.layers = []
        for index, layer in enumerate(self._original):
            assert layer.gates is not None
            memory_N1, local_N1 = layer.gates
            kept_B1N1 = self._keep[:, None, index, :, None] * memory_N1
            self._llama.layers.append(replace(layer, gates=(kept_B1N1, local_N1)))

    def __exit__(self, *exception: object) -> None:
        self._llama.layers = self._original


def _log_probability(llama: Llama, state: BatchState, rest: np.ndarray, answer: list[int]) -> torch.Tensor:
    """Sum of log p over the answer's tokens, [B]; `rest` is at most one segment."""
    rows = state.cursor.batch
    ids = torch.from_numpy(rest.astype(np.int64)).to(llama.device).expand(rows, -1)
    total = torch.zeros(rows, device=llama.device)
    for token in answer:
        hidden = llama.run_layers(llama.embed(ids), state, state.cursor.take_open(ids.shape[1]))
        total += F.log_softmax(llama.logits(hidden[:, -1]), dim=-1)[:, token]
        ids = torch.full((rows, 1), token, device=llama.device)
    return total
