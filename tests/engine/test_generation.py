"""Answers that may end early end at the same token at every topology, companions go on, and tokens are read late."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelSettings, Sampling
from infini_eval.distributed.mesh import Mesh, MeshShape
from infini_eval.engine.generation import Limits, SampledTokenQueue
from infini_eval.engine.native_model import NativeModel, load_replica
from infini_eval.testing.distributed import run_distributed_test
from infini_eval.testing.tiny_models import write_tiny_checkpoint

NEW = 24


def prompts() -> list[np.ndarray]:
    draw = np.random.default_rng(3)
    return [draw.integers(3, 96, length, dtype=np.int32) for length in (41, 44, 9, 17)]


def ends_early(key: str, row: int, token_ids: Sequence[int]) -> bool:
    """Row 0 never; the others at a token that depends on the row."""
    return row > 0 and len(token_ids) >= 2 and token_ids[-1] % (row + 2) == 0


def answers(model: NativeModel, early_stop) -> list[tuple[list[int], str | None]]:
    rows = prompts()
    work = iter([("first", rows[:2], ["0", "1"], None), ("second", rows[2:], ["2", "3"], None)])
    batches = model.run(work, Limits(NEW), Sampling(), early_stop=early_stop)
    return [(each.token_ids, each.finish) for _, batch in sorted(batches) for each in batch]


def answers_of_rank(path: str, tp: int, pp: int) -> list:
    mesh = Mesh.build(MeshShape(1, tp, pp), int(os.environ["RANK"]))
    return answers(load_replica(Checkpoint(path), ModelSettings(dtype="float32"), mesh, "cpu"), ends_early)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "1")


def test_answers_are_cut_where_they_may_end(path) -> None:
    model = NativeModel.load(Checkpoint(path), ModelSettings(device="cpu"))
    whole, cut = answers(model, None), answers(model, ends_early)
    assert {finish for _, finish in whole} == {"length"}
    assert {finish for _, finish in cut} == {"length", "settled"}
    for (tokens, _), (beginning, finish) in zip(whole, cut, strict=True):
        assert beginning == tokens[: len(beginning)]
        assert (len(beginning) < NEW) == (finish == "settled")


@pytest.mark.distributed
@pytest.mark.parametrize(("tp", "pp"), [(2, 1), (1, 2)])
def test_all_ranks_end_at_the_same_token(path, tp: int, pp: int) -> None:
    expected = answers(NativeModel.load(Checkpoint(path), ModelSettings(device="cpu")), ends_early)
    for rank in run_distributed_test(answers_of_rank, tp * pp, args=(str(path), tp, pp)):
        assert rank == expected


def test_late_reading_holds_back_so_many_steps() -> None:
    tokens = SampledTokenQueue(1)
    tokens.put(torch.tensor([1]))
    assert tokens.read(everything=False) == []
    tokens.put(torch.tensor([2]))
    assert tokens.read(everything=False) == [[1]]
    assert tokens.read(everything=True) == [[2]]
