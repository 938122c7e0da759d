"""How the next token is drawn: greedy, or seeded temperature, top-k and top-p, alike on every rank.

Legend: B batch, V vocabulary (local to a tp rank until gathered).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from infini_eval.config import Sampling
from infini_eval.distributed.tensor_parallel import TensorParallel

DRAWN_BY = "blake2b of seed, sample and position"  # another way to draw needs another name: runs are told apart by it


def sampling_identity(sampling: Sampling) -> dict[str, Any]:
    """For manifest.identity: the settings, and how draws are made where there are any."""
    return asdict(sampling) | ({"drawn_by": DRAWN_BY} if sampling.temperature > 0 else {})


def uniform(seed: int, key: str, position: int) -> float:
    """The number in [0, 1) that draws the token at `position` of a sample's answer: the same on every machine."""
    place = json.dumps([seed, key, position]).encode()
    return (int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "big") >> 11) / 2**53


class Sampler:
    """Draws next tokens for the rows of one batch.

    Each token is drawn by a number that follows from the seed, the row's key and the token's place in the answer, so
    that an answer depends neither on a row's companions nor on the topology nor on the libraries' generators. Tokens
    from `vocabulary` on are padding rows of the head and never drawn.
    """

    def __init__(
        self,
        sampling: Sampling,
        tensor_parallel: TensorParallel,
        vocab_size: int,
        vocabulary: int,
        keys: Sequence[str],
    ) -> None:
        self._sampling, self._tp = sampling, tensor_parallel
        self._vocab_size, self._vocabulary = vocab_size, vocabulary
        self._keys, self._position = keys, 0

    def next_tokens(self, local_logits_BV: torch.Tensor) -> torch.Tensor:
        """One token a row: [B, V / tp] fp32 -> [B] int64 on the same device."""
        local_logits_BV = without_padding(local_logits_BV, self._tp, self._vocab_size, self._vocabulary)
        if self._sampling.temperature == 0:
            return self._tp.greedy(local_logits_BV, self._vocab_size)
        logits_BV = self._tp.gather_vocabulary(local_logits_BV)
        weights_BV = filtered(logits_BV / self._sampling.temperature, self._sampling).softmax(dim=-1).cpu()
        numbers = [uniform(self._sampling.seed, key, self._position) for key in self._keys]
        self._position += 1
        return drawn(weights_BV, torch.tensor(numbers, dtype=torch.float64)).to(local_logits_BV.device)


def without_padding(
    local_logits_BV: torch.Tensor, tensor_parallel: TensorParallel, vocab_size: int, vocabulary: int
) -> torch.Tensor:
    """Make the logits of padding rows of the head, from `vocabulary` on, -inf: [B, V / tp]."""
    start = vocab_size * tensor_parallel.rank // tensor_parallel.size
    real = max(0, vocabulary - start)
    if real >= local_logits_BV.shape[1]:
        return local_logits_BV
    masked = local_logits_BV.clone()
    masked[:, real:] = float("-inf")
    return masked


def drawn(weights_BV: torch.Tensor, numbers_B: torch.Tensor) -> torch.Tensor:
    """The tokens at which the weights, added up, first exceed the numbers' shares of their sums: [B] int64."""
    sums_BV = weights_BV.double().cumsum(dim=-1)
    shares_B1 = (numbers_B * sums_BV[:, -1])[:, None]
    possible_B1 = (weights_BV > 0).long().cumsum(dim=-1).argmax(dim=-1, keepdim=True)  # rounding may reach the sum
    return torch.searchsorted(sums_BV, shares_B1, right=True).minimum(possible_B1).squeeze(1)


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
