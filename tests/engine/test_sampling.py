"""Seeded draws: their numbers follow from seed, sample and position alone, whatever Python, torch or companions do."""

from __future__ import annotations

import hashlib

import pytest
import torch

from infini_eval.config import Sampling
from infini_eval.distributed.tensor_parallel import TensorParallel
from infini_eval.engine.sampling import Sampler, sampling_identity, uniform

WEIGHTS = torch.tensor([0.1, 0.2, 0.0, 0.7])


def sampler(keys, **settings) -> Sampler:
    return Sampler(Sampling(1.0, **settings), TensorParallel(), 4, 4, keys)


def drawn(keys, steps: int, **settings) -> list[list[int]]:
    """Tokens by row of a model that always answers WEIGHTS."""
    each = sampler(keys, **settings)
    logits = WEIGHTS.log().expand(len(keys), 4)
    return torch.stack([each.next_tokens(logits) for _ in range(steps)], dim=1).tolist()


def test_numbers_are_blake2_of_seed_key_and_position() -> None:
    """Written out: a change of these numbers changes every run at a temperature, and needs another DRAWN_BY."""
    digest = hashlib.blake2b(b'[42, "3f2a", 7]', digest_size=8).digest()
    assert uniform(42, "3f2a", 7) == (int.from_bytes(digest, "big") >> 11) / 2**53
    assert [round(uniform(0, "0", position), 6) for position in range(3)] == GOLDEN


GOLDEN = [0.924031, 0.493415, 0.73697]


def test_tokens_follow_the_weights() -> None:
    tokens = torch.tensor(drawn(["a"], 4000)[0])
    shares = torch.bincount(tokens, minlength=4) / len(tokens)
    assert shares.tolist() == pytest.approx(WEIGHTS.tolist(), abs=0.03)
    assert shares[2] == 0


def test_a_row_is_drawn_alike_among_other_rows_and_unlike_them() -> None:
    alone = drawn(["b"], 40)[0]
    assert drawn(["a", "b", "c"], 40)[1] == alone
    assert len({tuple(row) for row in drawn(["a", "b", "c"], 40)}) == 3
    assert drawn(["b"], 40, seed=1)[0] != alone


@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
def test_the_ends_of_the_interval_draw_possible_tokens(number: float, monkeypatch) -> None:
    monkeypatch.setattr("infini_eval.engine.sampling.uniform", lambda *place: number)
    each = Sampler(Sampling(1.0), TensorParallel(), 4, 4, ["a"])
    logits = torch.tensor([[float("-inf"), 1.0, 1.0, float("-inf")]])
    assert each.next_tokens(logits).tolist() == [1 if number == 0 else 2]


def test_the_identity_tells_how_draws_are_made_only_where_there_are_any() -> None:
    greedy, drawn_by = sampling_identity(Sampling()), sampling_identity(Sampling(0.7))
    assert greedy == {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0}
    assert drawn_by.keys() - greedy.keys() == {"drawn_by"}
