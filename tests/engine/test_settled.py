"""An answer that may end early ends at the same token at every topology, and its companions go on."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pytest

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelSettings, Sampling
from infini_eval.distributed.mesh import Mesh
from infini_eval.distributed.topology import MeshShape
from infini_eval.engine.generation import Limits
from infini_eval.engine.native_model import NativeModel
from infini_eval.engine.replica import load_replica
from infini_eval.testing.distributed import run_distributed_test
from infini_eval.testing.tiny_checkpoints import write_tiny_checkpoint

NEW = 24


def prompts() -> list[np.ndarray]:
    draw = np.random.default_rng(3)
    return [draw.integers(3, 96, length, dtype=np.int32) for length in (41, 44, 9, 17)]


def settled(key: str, row: int, token_ids: Sequence[int]) -> bool:
    """Row 0 never; the others at a token that depends on the row."""
    return row > 0 and len(token_ids) >= 2 and token_ids[-1] % (row + 2) == 0


def answers(model: NativeModel, ends) -> list[tuple[list[int], str | None]]:
    rows = prompts()
    work = iter([("first", rows[:2], ["0", "1"], None), ("second", rows[2:], ["2", "3"], None)])
    batches = model.run(work, Limits(NEW), Sampling(), settled=ends)
    return [(each.token_ids, each.finish) for _, batch in sorted(batches) for each in batch]


def answers_of_rank(path: str, tp: int, pp: int) -> list:
    mesh = Mesh.build(MeshShape(1, tp, pp), int(os.environ["RANK"]))
    return answers(load_replica(Checkpoint(path), ModelSettings(dtype="float32"), mesh, "cpu"), settled)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "1")


def test_answers_are_cut_where_they_are_settled(path) -> None:
    model = NativeModel.load(Checkpoint(path), ModelSettings(device="cpu"))
    whole, cut = answers(model, None), answers(model, settled)
    assert {finish for _, finish in whole} == {"length"}
    assert {finish for _, finish in cut} == {"length", "settled"}
    for (tokens, _), (beginning, finish) in zip(whole, cut, strict=True):
        assert beginning == tokens[: len(beginning)]
        assert (len(beginning) < NEW) == (finish == "settled")


@pytest.mark.distributed
@pytest.mark.parametrize(("tp", "pp"), [(2, 1), (1, 2)])
def test_all_ranks_end_at_the_same_token(path, tp: int, pp: int) -> None:
    expected = answers(NativeModel.load(Checkpoint(path), ModelSettings(device="cpu")), settled)
    for rank in run_distributed_test(answers_of_rank, tp * pp, args=(str(path), tp, pp)):
        assert rank == expected
