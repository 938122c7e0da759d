"""Sizes of the mesh axes: what is chosen, and what is refused with which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infini_eval.config import Topology
from infini_eval.distributed.topology import MeshShape, ModelShape, fitting, kv_replication, resolve_topology
from infini_eval.errors import TopologyError

MODEL = {"num_layers": 4, "num_heads": 8, "num_kv_heads": 2, "vocab_size": 512, "intermediate_size": 64}


def resolve(dp=None, tp=None, pp=None, *, world, saved_tp=1, saved_pp=1, **changes):
    return resolve_topology(Topology(dp, tp, pp), world, saved_tp=saved_tp, saved_pp=saved_pp, **(MODEL | changes))


@pytest.mark.parametrize(
    ("asked", "world", "saved", "expected"),
    [
        ((None, None, None), 1, (1, 1), (1, 1, 1)),
        ((None, None, None), 4, (2, 1), (2, 2, 1)),
        ((None, None, None), 4, (2, 2), (1, 2, 2)),
        ((None, None, None), 1, (2, 2), (1, 1, 1)),
        ((None, None, None), 3, (2, 2), (3, 1, 1)),
        ((None, None, None), 2, (2, 2), (1, 2, 1)),
        ((4, None, None), 4, (2, 2), (4, 1, 1)),
        ((None, 4, None), 4, (1, 2), (1, 4, 1)),
        ((None, 2, None), 4, (1, 2), (1, 2, 2)),
        ((None, None, 2), 8, (2, 1), (2, 2, 2)),
        ((2, 2, 2), 8, (1, 1), (2, 2, 2)),
    ],
)
def test_chosen_mesh(asked, world, saved, expected):
    assert resolve(*asked, world=world, saved_tp=saved[0], saved_pp=saved[1]) == MeshShape(*expected)


def test_saved_value_that_the_model_cannot_take_is_left_out():
    assert resolve(world=16, saved_tp=16) == MeshShape(dp=16)


def test_unfitting_saved_value_is_logged(caplog):
    with caplog.at_level("INFO"):
        resolve(world=3, saved_tp=2)
    assert "saved with tp=2" in caplog.text


@pytest.mark.parametrize(
    ("asked", "world", "words"),
    [
        ((3, None, None), 4, "--dp 3 needs a multiple of 3 processes, but there are 4"),
        ((2, 1, 1), 4, "--dp 2 --tp 1 --pp 1 needs 2 processes, but there are 4"),
        ((2, None, None), 4, "needs 2 processes, but there are 4"),
        ((None, 3, None), 3, "tp=3 does not divide the model's 8 attention heads"),
        ((None, None, 8), 8, "pp=8 stages need at least 8 layers; the model has 4"),
    ],
)
def test_refusals_name_the_value_and_list_what_fits(asked, world, words):
    with pytest.raises(TopologyError) as refused:
        resolve(*asked, world=world)
    assert words in str(refused.value)
    assert f"--dp {world} --tp 1 --pp 1" in refused.value.valid


def test_kv_heads_are_divided_or_replicated():
    assert ModelShape(**MODEL).tp_problem(4) is None
    assert "kv heads" in ModelShape(
        **(MODEL | {"num_heads": 12, "num_kv_heads": 4, "vocab_size": 60, "intermediate_size": 60})
    ).tp_problem(6)
    assert [kv_replication(2, tp) for tp in (1, 2, 4, 8)] == [1, 1, 2, 4]


def test_vocabulary_must_divide():
    with pytest.raises(TopologyError, match="509 vocabulary entries"):
        resolve(None, 2, None, world=2, vocab_size=509)


@given(world=st.integers(1, 48), saved_tp=st.integers(1, 8), saved_pp=st.integers(1, 8))
def test_a_default_always_exists_and_fits(world, saved_tp, saved_pp):
    mesh = resolve(world=world, saved_tp=saved_tp, saved_pp=saved_pp)
    assert mesh.world_size == world
    assert mesh in fitting(world, ModelShape(**MODEL))
