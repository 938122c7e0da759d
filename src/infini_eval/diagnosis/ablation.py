"""Ablation by head: how much less likely the answer becomes when one head's memory returns nothing at the question.

The prompt is read once with everything on; only from the question's segment on is a head's read set to zero, so the
effect is that of reading, not of what the head wrote. Variants are the rows of a batch.

Legend: B variants, L layers, N query heads, A answer tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from infini_eval.engine.batching import plan_prefill
from infini_eval.engine.native_model import NativeModel
from infini_eval.models.llama import Llama
from infini_eval.models.state import BatchState, Memories

ROW_TOKENS = 16_384  # tokens of all variants that are computed at once


@dataclass(frozen=True)
class Effects:
    """What the answer's log-probability loses when reads are closed, in nats.

    log_p_A: of each token with everything on (the tokens before it given). by_head [L, N] and by_layer [L] are sums over
    the answer, without_A is what each token loses without any memory.
    """

    log_p_A: torch.Tensor
    by_head: torch.Tensor
    by_layer: torch.Tensor
    without_A: torch.Tensor


@dataclass(frozen=True)
class ReadPrompt:
    """A prompt read up to the last segment border (one row), and the tokens after it."""

    prefix: BatchState
    rest: np.ndarray


@torch.inference_mode()
def ask(model: NativeModel, prompt: np.ndarray) -> ReadPrompt:
    """Read the prompt's whole segments, all but the one that holds its last token. One process, one stage."""
    length = model.config.segment_length
    assert length is not None
    border = (len(prompt) - 1) // length * length
    return ReadPrompt(prefix_state(model, prompt[:border]), prompt[border:])


def head_effects(model: NativeModel, question: ReadPrompt, answer: Sequence[int]) -> Effects:
    """Close every head's read, every layer's, and all of them, each in turn."""
    layers, heads = len(model.llama.layers), model.llama.heads
    keep_BLN = torch.ones(1 + layers * heads + layers + 1, layers, heads)
    for layer in range(layers):
        for head in range(heads):
            keep_BLN[1 + layer * heads + head, layer, head] = 0
        keep_BLN[1 + layers * heads + layer, layer] = 0
    keep_BLN[-1] = 0
    log_p_BA = _over_rows(model, question, keep_BLN, answer)[0]
    lost_B = (log_p_BA[0] - log_p_BA[1:]).sum(1)
    return Effects(
        log_p_A=log_p_BA[0],
        by_head=lost_B[: layers * heads].view(layers, heads),
        by_layer=lost_B[layers * heads : -1],
        without_A=log_p_BA[0] - log_p_BA[-1],
    )


def greedy_answers(model: NativeModel, question: ReadPrompt, keep_BLN: torch.Tensor, tokens: int) -> list[list[int]]:
    """What the model answers greedily, `tokens` tokens, when row b reads head n of layer l only where keep is 1."""
    drawn_BA: list[list[int]] = _over_rows(model, question, keep_BLN, [None] * tokens)[1].tolist()
    return drawn_BA


@torch.inference_mode()
def prefix_state(model: NativeModel, prefix: np.ndarray) -> BatchState:
    """The state after whole segments."""
    state = model.llama.new_state(1, max(1, len(prefix)))
    _fold(model, state, prefix)
    return state


@torch.inference_mode()
def memories_at(model: NativeModel, ids: np.ndarray, borders: Sequence[int]) -> torch.Tensor:
    """Every layer's memory when the first `borders[p]` tokens (whole segments, ascending) are folded in: [P, L, G, H, E].

    Its rows stand in the checkpoint's order of features; the engine puts those of interleaved rotary pairs into halves.
    """
    kept = raw_memories_at(model, ids, borders)
    memory = torch.stack([torch.stack([layer.float().cpu() for layer in memories]) for memories in kept])
    if model.config.rope_interleaved:
        memory = memory.unflatten(-2, (2, -1)).transpose(-3, -2).flatten(-3, -2)
    return memory


@torch.inference_mode()
def raw_memories_at(model: NativeModel, ids: np.ndarray, borders: Sequence[int]) -> list[Memories]:
    """The same as the engine holds it, for each border and layer: [G, H, E]."""
    state, done, kept = model.llama.new_state(1, max(1, borders[-1])), 0, []
    for border in borders:
        _fold(model, state, ids[done:border])
        done = border
        kept.append(state.snapshot(0))
    return kept


@torch.inference_mode()
def answers_from(
    model: NativeModel, memories_LBGHE: Sequence[torch.Tensor], segments: int, rest: np.ndarray, tokens: int
) -> list[list[int]]:
    """What the model answers greedily when row b has its own memory after `segments` segments, and reads `rest`."""
    llama = model.llama
    at_once = max(1, ROW_TOKENS // len(rest))
    answers: list[list[int]] = []
    for parts in zip(*(memory.split(at_once) for memory in memories_LBGHE), strict=True):
        state = llama.new_state(len(parts[0]), len(rest) + tokens)
        for layer, memory in zip(state.layers, parts, strict=True):
            assert layer.memory is not None
            layer.memory.copy_(memory)
        state.cursor.segments = [segments] * len(parts[0])
        answers += _continue(llama, state, rest, [None] * tokens)[1].tolist()
    return answers


def _fold(model: NativeModel, state: BatchState, ids: np.ndarray) -> None:
    """Read further whole segments into a state that stands at a border."""
    llama = model.llama
    if not len(ids):
        return
    for plan in plan_prefill([len(ids)], model.config.segment_length, model.chunk_tokens(1)):
        step = torch.from_numpy(ids[plan.start : plan.start + plan.tokens].astype(np.int64))[None].to(llama.device)
        llama.run_layers_to_ends(llama.embed(step), state, state.cursor.step_segments(plan.segments), None)


@torch.inference_mode()
def _over_rows(
    model: NativeModel, question: ReadPrompt, keep_BLN: torch.Tensor, given: Sequence[int | None]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities [B, A] of the tokens that follow, and the most likely ones [B, A]; as many rows at once as fit."""
    llama = model.llama
    at_once = max(1, ROW_TOKENS // len(question.rest))
    parts = []
    for keep in keep_BLN.to(llama.device).split(at_once):
        state = _repeated(llama, question.prefix, len(keep), len(question.rest) + len(given))
        with _reading(llama, keep):
            parts.append(_continue(llama, state, question.rest, given))
    log_p, best = zip(*parts, strict=True)
    return torch.cat(log_p).cpu(), torch.cat(best).cpu()


def _continue(
    llama: Llama, state: BatchState, rest: np.ndarray, given: Sequence[int | None]
) -> tuple[torch.Tensor, torch.Tensor]:
    """log p of each given token and the most likely one, [B, A] each; None stands for the most likely one itself."""
    rows = state.cursor.batch
    ids = torch.from_numpy(rest.astype(np.int64)).to(llama.device).expand(rows, -1)
    log_p, best = [], []
    for token in given:
        hidden = llama.run_layers(llama.embed(ids), state, state.cursor.step_tail(ids.shape[1]))
        log_p_BV = F.log_softmax(llama.logits(hidden[:, -1]), dim=-1)
        best.append(log_p_BV.argmax(-1))
        ids = best[-1][:, None] if token is None else torch.full((rows, 1), token, device=llama.device)
        log_p.append(log_p_BV.gather(1, ids)[:, 0])
    return torch.stack(log_p, 1), torch.stack(best, 1)


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


@contextmanager
def all_gates_at(llama: Llama, value: float) -> Iterator[None]:
    """Inside the block every head mixes `value` of its memory with 1 - `value` of its local attention."""
    original = llama.layers
    llama.layers = []
    for layer in original:
        assert layer.gates is not None
        memory_N1, local_N1 = layer.gates
        changed = (torch.full_like(memory_N1, value), torch.full_like(local_N1, 1 - value))
        llama.layers.append(replace(layer, gates=changed))
    try:
        yield
    finally:
        llama.layers = original
