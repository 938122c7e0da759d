"""The queue of batches: every batch once, longest first, peers of a replica alike."""

from __future__ import annotations

import heapq
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infini_eval.distributed.launch import launch
from infini_eval.distributed.mesh import Mesh, MeshShape
from infini_eval.distributed.work_queue import WorkQueue
from infini_eval.testing.distributed import run_distributed_test


@given(st.lists(st.integers(0, 5)))
def test_a_single_process_gets_every_batch_once_longest_first(costs):
    order = list(WorkQueue(costs, Mesh()))
    assert sorted(order) == list(range(len(costs)))
    assert [costs[index] for index in order] == sorted(costs, reverse=True)


def test_no_more_batches_once_the_run_stops():
    queue = WorkQueue([1, 1, 1], Mesh(), stopping=lambda: queue._drawn >= 2)
    assert list(queue) == [0, 1]
    assert queue.pull() is None


def test_several_processes_need_a_store():
    with pytest.raises(ValueError, match="store"):
        WorkQueue([1], Mesh(MeshShape(dp=2), 0))


def drain(dp, tp, pp, count, stop_after):
    rank = int(os.environ["RANK"])
    mesh = Mesh(MeshShape(dp, tp, pp), rank)
    with launch("cpu") as world:
        taken = []
        stopping = (lambda: len(taken) >= stop_after) if stop_after else (lambda: False)
        for index in WorkQueue([number % 7 for number in range(count)], mesh, world.store, stopping=stopping):
            taken.append(index)
    return mesh.dp_rank, taken


@pytest.mark.distributed
@pytest.mark.parametrize("sizes", [(3, 1, 1), (1, 2, 2), (2, 2, 1)], ids="dp{0[0]}tp{0[1]}pp{0[2]}".format)
def test_replicas_share_the_work_and_peers_see_the_same(sizes):
    results = run_distributed_test(drain, MeshShape(*sizes).world_size, None, args=(*sizes, 25, 0))
    replicas = {}
    for dp_rank, taken in results:
        assert replicas.setdefault(dp_rank, taken) == taken
    assert sorted(index for taken in replicas.values() for index in taken) == list(range(25))


@pytest.mark.distributed
def test_peers_stop_where_their_leader_stops():
    results = run_distributed_test(drain, 2, None, args=(1, 2, 1, 25, 4))
    assert results[0] == results[1]
    assert len(results[0][1]) == 4


def test_longest_first_balances_eight_replicas():
    """What the queue's order gives when each free replica takes the next batch."""
    draw = random.Random(0)
    costs = [draw.choice((1, 2, 4, 8)) * draw.uniform(0.9, 1.1) for _ in range(400)]
    free = [0.0] * 8
    for index in WorkQueue(costs, Mesh()).order:
        heapq.heapreplace(free, free[0] + costs[index])
    assert max(free) / (sum(costs) / 8) <= 1.03
