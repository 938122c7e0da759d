"""Scoring given tokens: their log-probabilities, streamed, so that logits of a whole sequence never stand in memory.

A row's scored tokens are its last ones. The model reads all tokens but the last, as it reads a prompt to continue: steps
without a scored token need only what later steps read of the last layer, and prefixes that rows share are computed once.
Where tokens are scored, logits are made in pieces of bounded size, reduced to a few numbers a token, and dropped.

Legend: B batch, T tokens, K scored tokens of a piece, V vocabulary (local to a tp rank), D model width, N scored tokens
of all rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from infini_eval.distributed.tensor_parallel import TensorParallel
from infini_eval.engine.batching import PrefillStep
from infini_eval.engine.generation import BatchGeneration, Links
from infini_eval.engine.sampling import without_padding
from infini_eval.models.state import Step

# fp32 logits that stand in memory at once; a reduction needs about as much again
PIECE_BYTES = {"cpu": 1 << 23, "cuda": 1 << 28}


@dataclass(frozen=True)
class Scored:
    """What the model thinks of n given tokens.

    logprobs: float32 [n], the natural logarithm of each token's probability given all before it. greedy: bool [n],
    whether it is the most probable one (of equals the one with the lowest id). top_ids, top_logprobs: int64 and float32
    [n, top], the most probable tokens, best first; None where none were asked for. reused_tokens: those of the row that
    were computed for another one.
    """

    logprobs: np.ndarray
    greedy: np.ndarray
    top_ids: np.ndarray | None = None
    top_logprobs: np.ndarray | None = None
    reused_tokens: int = 0


class ScoreTable:
    """Room for the scores of all rows, made once: N = sum of `scored`, rows one after the other."""

    def __init__(self, scored: Sequence[int], top: int, device: torch.device) -> None:
        self.starts = [0, *accumulate(scored)]
        self.top = top
        total = self.starts[-1]
        self.logprobs_N = torch.empty(total, dtype=torch.float32, device=device)
        self.greedy_N = torch.empty(total, dtype=torch.bool, device=device)
        self.top_ids = torch.empty(total, top, dtype=torch.int64, device=device)
        self.top_logprobs = torch.empty(total, top, dtype=torch.float32, device=device)

    def share(self, links: Links) -> None:
        """Move to the host, and give every stage what the last one computed."""
        links.flush()
        self.logprobs_N, self.top_ids = links.share_from_last(self.logprobs_N.cpu()), self._shared(self.top_ids, links)
        self.top_logprobs = self._shared(self.top_logprobs, links)
        self.greedy_N = links.share_from_last(self.greedy_N.cpu().byte()).bool()

    def row(self, row: int, reused_tokens: int) -> Scored:
        """Take the scores of a row, after `share`."""
        span = slice(self.starts[row], self.starts[row + 1])
        top_ids = self.top_ids[span].numpy() if self.top else None
        top_logprobs = self.top_logprobs[span].numpy() if self.top else None
        return Scored(self.logprobs_N[span].numpy(), self.greedy_N[span].numpy(), top_ids, top_logprobs, reused_tokens)

    def _shared(self, table: torch.Tensor, links: Links) -> torch.Tensor:
        return links.share_from_last(table.cpu()) if self.top else table


class BatchReading(BatchGeneration):
    """A batch that is only read: it ends with the last token of its prompts."""

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return self._next_step == len(self._steps)

    def _end_prefill(self) -> None:
        """Nothing is drawn."""


class LogitsOfAll(BatchReading):
    """A batch of which the logits of all positions are kept, for checks of short texts."""

    def __init__(self, *plan: Any) -> None:
        super().__init__(*plan)
        self._parts: list[torch.Tensor] = []

    def logits(self) -> torch.Tensor:
        """Join what the steps gave: [B, T, V] fp32 on the CPU, the vocabulary whole; last stage only."""
        return torch.cat(self._parts, dim=1)

    def _read_prompts(self, x_BTD: torch.Tensor, plan: PrefillStep, step: Step) -> None:
        x_BTD = self._llama.run_layers(x_BTD, self._state, step)
        local = self._llama.logits(x_BTD).flatten(0, 1)
        self._parts.append(self._llama.tp.gather_vocabulary(local).unflatten(0, x_BTD.shape[:2]).cpu())


class BatchScoring(BatchReading):
    """A batch whose rows' scores are written to a table. Its prompts are the rows without their last tokens."""

    def __init__(
        self,
        rows: Sequence[np.ndarray],
        scored: Sequence[int],
        places: Sequence[int],
        table: ScoreTable,
        vocabulary: int,
        *plan: Any,
    ) -> None:
        """Plan the reading.

        Args:
            rows: token ids [T] of each row.
            scored: how many tokens at each row's end are scored.
            places: where in the table each row's scores begin.
            vocabulary: number of real tokens; padding rows of the head beyond it have no probability.
            plan: what BatchReading takes.
        """
        super().__init__(*plan)
        self._rows, self._scored, self._places = rows, scored, places
        self._table, self._vocabulary = table, vocabulary
        row_bytes = 4 * self._llama.config.vocab_size // self._llama.tp.size
        self._piece = max(1, PIECE_BYTES.get(self._llama.device.type, PIECE_BYTES["cpu"]) // row_bytes)

    def _read_prompts(self, x_BTD: torch.Tensor, plan: PrefillStep, step: Step) -> None:
        spans = list(self._scored_tokens(plan))
        if not spans:
            self._llama.run_layers_to_ends(x_BTD, self._state, step, None)
            return
        hidden_BTD = self._llama.run_layers(x_BTD, self._state, step)
        for prompt, row, first, last in spans:
            targets_N = torch.from_numpy(self._rows[prompt][first + 1 : last + 1].astype(np.int64))
            place = self._places[prompt] + first - (len(self._rows[prompt]) - 1 - self._scored[prompt])
            self._score(hidden_BTD[row, first - plan.start : last - plan.start], targets_N, place)

    def _scored_tokens(self, plan: PrefillStep) -> Iterator[tuple[int, int, int, int]]:
        """The prompts with positions [first, last) in this step that predict scored tokens, and the rows they stand in."""
        for prompt, row in enumerate(plan.row_of_prompt):
            end = len(self._rows[prompt]) - 1
            first, last = max(plan.start, end - self._scored[prompt]), min(plan.start + plan.tokens, end)
            if first < last:
                assert row is not None, "a prompt joins before its first scored token"
                yield prompt, row, first, last

    def _score(self, hidden_ND: torch.Tensor, targets_N: torch.Tensor, place: int) -> None:
        """Score tokens one after the other in a row, into the table from `place` on."""
        table, llama = self._table, self._llama
        for hidden_KD, targets_K in zip(hidden_ND.split(self._piece), targets_N.split(self._piece), strict=True):
            logits_KV = without_padding(llama.logits(hidden_KD), llama.tp, llama.config.vocab_size, self._vocabulary)
            here = slice(place, place + len(targets_K))
            targets_K = targets_K.to(llama.device)
            logprobs_K, total_K = token_logprobs(logits_KV, targets_K, llama.tp, llama.config.vocab_size)
            table.logprobs_N[here] = logprobs_K
            table.greedy_N[here] = llama.tp.greedy(logits_KV, llama.config.vocab_size) == targets_K
            if table.top:
                values, ids = best_tokens(logits_KV, table.top, llama.tp, llama.config.vocab_size)
                table.top_ids[here], table.top_logprobs[here] = ids, values - total_K[:, None]
            place += len(targets_K)


def token_logprobs(
    logits_KV: torch.Tensor, targets_K: torch.Tensor, tensor_parallel: TensorParallel, vocab_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute log-probabilities [K] of tokens, and the log of the sum over the vocabulary [K], from local logits."""
    start = vocab_size * tensor_parallel.rank // tensor_parallel.size
    local_K = targets_K - start
    is_local_K = (local_K >= 0) & (local_K < logits_KV.shape[1])
    chosen_K = logits_KV.gather(1, torch.where(is_local_K, local_K, 0)[:, None])[:, 0]
    own = torch.stack((logits_KV.logsumexp(dim=1), torch.where(is_local_K, chosen_K, float("-inf"))))
    totals, chosen = torch.stack(tensor_parallel.gather(own)).unbind(1)
    total_K = totals.logsumexp(dim=0)
    return chosen.amax(dim=0) - total_K, total_K


def best_tokens(
    logits_KV: torch.Tensor, top: int, tensor_parallel: TensorParallel, vocab_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the `top` largest logits of the whole vocabulary and their ids, each [K, top], best first."""
    values, ids = logits_KV.topk(min(top, logits_KV.shape[1]), dim=1)
    ids = ids + vocab_size * tensor_parallel.rank // tensor_parallel.size
    values, ids = (torch.cat(tensor_parallel.gather(part), dim=1) for part in (values, ids))
    best = values.sort(dim=1, descending=True, stable=True).indices[:, :top]
    return values.gather(1, best), ids.gather(1, best)
