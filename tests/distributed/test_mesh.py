"""Ranks, axes and groups of the mesh; the groups are tried on real processes."""

from __future__ import annotations

import pytest

from infini_eval.distributed.mesh import Mesh
from infini_eval.distributed.topology import MeshShape
from infini_eval.testing.distributed import run_distributed_test


def test_a_single_process_has_no_groups():
    mesh = Mesh.build(MeshShape())
    assert mesh.tag == "DP=0|PP=0|TP=0"
    assert mesh.is_leader
    assert mesh.tp_group is mesh.pp_group is mesh.replica_group is None
    assert mesh.tp_ranks == mesh.pp_ranks == (0,)


def test_tp_is_the_fastest_axis_and_pp_the_slowest():
    shape = MeshShape(dp=2, tp=3, pp=2)
    meshes = [Mesh(shape, rank) for rank in range(12)]
    assert [m.tp_rank for m in meshes] == [0, 1, 2] * 4
    assert [m.dp_rank for m in meshes] == [0, 0, 0, 1, 1, 1] * 2
    assert [m.pp_rank for m in meshes] == [0] * 6 + [1] * 6
    assert [m.rank for m in meshes if m.is_leader] == [0, 3]
    assert all(m.global_rank(pp=m.pp_rank, dp=m.dp_rank, tp=m.tp_rank) == m.rank for m in meshes)
    assert meshes[10].tag == "DP=1|PP=1|TP=1"
    assert meshes[10].tp_ranks == (9, 10, 11)
    assert meshes[10].pp_ranks == (4, 10)
    assert meshes[10].ranks_of_replica(1) == (3, 4, 5, 9, 10, 11)


def sums_along_groups(dp, tp, pp):
    import torch
    import torch.distributed as dist

    mesh = Mesh.build(MeshShape(dp, tp, pp), dist.get_rank())
    sums = {}
    for name in ("tp_group", "pp_group", "pp_token_group", "replica_group"):
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
        mesh = Mesh(shape, rank)
        assert sums["tp_group"] == sum_of(mesh.tp_ranks)
        assert sums["pp_group"] == sums["pp_token_group"] == sum_of(mesh.pp_ranks)
        assert sums["replica_group"] == sum_of(mesh.ranks_of_replica(mesh.dp_rank))
