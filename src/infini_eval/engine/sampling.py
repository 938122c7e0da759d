"""How the next token is drawn: greedy, or seeded temperature, top-k and top-p, alike on every rank.

Legend: B batch, V vocabulary (local to a tp rank until gathered).
"""

from __future__ import annotations

import torch

from infini_eval.config import Sampling
from infini_eval.distributed.tensor_parallel import TensorParallel


class Sampler:
    """Draws next tokens for the rows of one batch.

    Each row has its own generator, seeded by (seed, the row's own seed), so that an answer depends neither on a row's
    companions nor on the topology. Tokens from `vocabulary` on are padding rows of the head and never drawn.
    """

    def __init__(
        self,
        sampling: Sampling,
        tensor_parallel: TensorParallel,
        vocab_size: int,
        vocabulary: int,
        row_seeds: list[int],
    ) -> None:
        self._sampling, self._tp = sampling, tensor_parallel
        self._vocab_size, self._vocabulary = vocab_size, vocabulary
        self._generators = [torch.Generator().manual_seed(hash((sampling.seed, seed)) % 2**63) for seed in row_seeds]

    def next_tokens(self, local_logits_BV: torch.Tensor) -> torch.Tensor:
        """One token a row: [B, V / tp] fp32 -> [B] int64 on the same device."""
        local_logits_BV = self._mask_padding(local_logits_BV)
        if self._sampling.temperature == 0:
            return self._tp.greedy(local_logits_BV, self._vocab_size)
        logits_BV = self._tp.gather_vocabulary(local_logits_BV)
        weights_BV = filtered(logits_BV / self._sampling.temperature, self._sampling).softmax(dim=-1).cpu()
        drawn = [
            torch.multinomial(weights, 1, generator=generator)
            for weights, generator in zip(weights_BV, self._generators, strict=True)
        ]
        return torch.cat(drawn).to(local_logits_BV.device)

    def _mask_padding(self, local_logits_BV: torch.Tensor) -> torch.Tensor:
        start = self._vocab_size * self._tp.rank // self._tp.size
        real = max(0, self._vocabulary - start)
        if real >= local_logits_BV.shape[1]:
            return local_logits_BV
        masked = local_logits_BV.clone()
        masked[:, real:] = float("-inf")
        return masked


def filtered(logits_BV: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Logits outside the top k, or outside the smallest set with probability top_p, become -inf."""
    if sampling.top_k:
        kth = logits_BV.topk(min(sampling.top_k, logits_BV.shape[1])).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < kth, float("-inf"))
    if sampling.top_p < 1:
        ordered, index = logits_BV.sort(descending=True)
        before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
        dropped = torch.zeros_like(before, dtype=torch.bool).scatter(1, index, before >= sampling.top_p)
        logits_BV = logits_BV.masked_fill(dropped, float("-inf"))
    return logits_BV
