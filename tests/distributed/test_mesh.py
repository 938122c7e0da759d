"""The mesh: which sizes are chosen and refused with which words, ranks and axes, and groups tried on real processes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infini_eval.config import Topology
from infini_eval.distributed.mesh import Mesh, MeshShape, ModelShape, fitting, resolve_topology, split_evenly
from infini_eval.errors import TopologyError
from infini_eval.testing.distributed import run_distributed_test

MODEL = ModelShape(num_layers=4, num_heads=8, num_kv_heads=2, vocab_size=512, intermediate_size=64)


def resolve(dp=None, tp=None, pp=None, *, world, saved_tp=1, saved_pp=1, **changes):
    return resolve_topology(
        Topology(dp, tp, pp), world, replace(MODEL, **changes), saved_tp=saved_tp, saved_pp=saved_pp
    )


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
    assert MODEL.tp_problem(4) is None
    sizes = {"num_heads": 12, "num_kv_heads": 4, "vocab_size": 60, "intermediate_size": 60}
    assert "kv heads" in replace(MODEL, **sizes).tp_problem(6)


def test_vocabulary_must_divide():
    with pytest.raises(TopologyError, match="509 vocabulary entries"):
        resolve(None, 2, None, world=2, vocab_size=509)


@given(world=st.integers(1, 48), saved_tp=st.integers(1, 8), saved_pp=st.integers(1, 8))
def test_a_default_always_exists_and_fits(world, saved_tp, saved_pp):
    mesh = resolve(world=world, saved_tp=saved_tp, saved_pp=saved_pp)
    assert mesh.world_size == world
    assert mesh in fitting(world, MODEL)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=24), st.data())
def test_stages_are_contiguous_and_no_split_is_lighter(costs, data) -> None:
    parts = data.draw(st.integers(1, len(costs)))
    stages = split_evenly(costs, parts)
    assert [layer for stage in stages for layer in stage] == list(range(len(costs)))
    busiest = max(sum(costs[layer] for layer in stage) for stage in stages)
    cuts = (
        sorted(data.draw(st.sets(st.integers(1, len(costs) - 1), min_size=parts - 1, max_size=parts - 1)))
        if parts > 1
        else []
    )
    edges = [0, *cuts, len(costs)]
    other = max(sum(costs[a:b]) for a, b in pairwise(edges))
    assert busiest <= other + 1e-9


def test_a_single_process_has_no_groups():
    mesh = Mesh.build(MeshShape())
    assert mesh.tag == "DP=0|PP=0|TP=0"
    assert mesh.is_leader
    assert mesh.tp_group is mesh.pp_group is mesh.pp_token_group is None
    assert mesh.pp_ranks == (0,)


def test_tp_is_the_fastest_axis_and_pp_the_slowest():
    shape = MeshShape(dp=2, tp=3, pp=2)
    meshes = [Mesh(shape, rank) for rank in range(12)]
    assert [m.tp_rank for m in meshes] == [0, 1, 2] * 4
    assert [m.dp_rank for m in meshes] == [0, 0, 0, 1, 1, 1] * 2
    assert [m.pp_rank for m in meshes] == [0] * 6 + [1] * 6
    assert [m.rank for m in meshes if m.is_leader] == [0, 3]
    assert meshes[10].tag == "DP=1|PP=1|TP=1"
    assert meshes[10].pp_ranks == (4, 10)
    assert shape.lines("tp") == [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)]
    assert shape.lines("pp") == [(0, 6), (1, 7), (2, 8), (3, 9), (4, 10), (5, 11)]


def sums_along_groups(dp, tp, pp):
    import torch
    import torch.distributed as dist

    mesh = Mesh.build(MeshShape(dp, tp, pp), dist.get_rank())
    sums = {}
    for name in ("tp_group", "pp_group", "pp_token_group"):
        group = getattr(mesh, name)
        tensor = torch.tensor(10**mesh.rank)
        if group is not None:
            dist.all_reduce(tensor, group=group)
        sums[name] = tensor.item()
    return sums


def sum_of(ranks):
    return sum(10**rank for rank in ranks)


@pytest.mark.distributed
@pytest.mark.parametrize(
    "sizes", [(2, 1, 1), (1, 2, 1), (1, 1, 2), (1, 2, 2), (2, 2, 1)], ids="dp{0[0]}tp{0[1]}pp{0[2]}".format
)
def test_each_group_joins_its_own_ranks(sizes):
    shape = MeshShape(*sizes)
    for rank, sums in enumerate(run_distributed_test(sums_along_groups, shape.world_size, args=sizes)):
        tp_line, pp_line = (next(line for line in shape.lines(axis) if rank in line) for axis in ("tp", "pp"))
        assert sums["tp_group"] == sum_of(tp_line)
        assert sums["pp_group"] == sums["pp_token_group"] == sum_of(pp_line)
