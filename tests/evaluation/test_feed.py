"""Token ids made ahead by a thread: the right ones, no more than one batch ahead, and failures that surface."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from infini_eval.api.backend import Batch, WorkItem, no_ids
from infini_eval.distributed.mesh import Mesh
from infini_eval.distributed.work_queue import SPARE, WorkQueue
from infini_eval.errors import DataError
from infini_eval.evaluation.feed import AHEAD, Feed
from infini_eval.records import NeedlePosition, Sample
from infini_eval.testing.distributed import run_distributed_test
from infini_eval.testing.limits import PROCESS_S


class Tokens:
    """A backend whose ids are a sample's length, counted; it fails for the sample `bad`."""

    def __init__(self, bad: str | None = None) -> None:
        self.bad, self.made = bad, 0

    def token_ids(self, sample: Sample) -> np.ndarray:
        if sample.id == self.bad:
            raise DataError(f"{sample.id} cannot be tokenised")
        self.made += 1
        return np.full(len(sample.prompt), int(sample.id), np.int32)


def made_up(number: int) -> tuple[list[WorkItem], list[Batch]]:
    samples = [Sample(str(i), "x" * (i + 1), "", 0.0) for i in range(number)]
    prepared = [WorkItem(sample, no_ids(), len(sample.prompt), NeedlePosition(None, None), "") for sample in samples]
    return prepared, [Batch((row,), row + 1) for row in range(number)]


def feed(number: int, backend: Tokens) -> Feed:
    prepared, batches = made_up(number)
    return Feed(WorkQueue([batch.cost for batch in batches], Mesh()), batches, prepared, backend)


def test_every_batch_comes_once_with_its_own_ids():
    with feed(5, Tokens()) as source:
        given = list(source)
    assert [index for index, _ in given] == [4, 3, 2, 1, 0]
    for index, rows in given:
        assert list(rows) == [index]
        assert rows[index].ids.tolist() == [index] * (index + 1) == [index] * rows[index].tokens


def test_ids_that_were_kept_are_not_made_again():
    prepared, batches = made_up(1)
    kept = WorkItem(prepared[0].sample, np.array([7], np.int32), 1, prepared[0].position, "")
    backend = Tokens()
    with Feed(WorkQueue([1], Mesh()), batches, [kept], backend) as source:
        assert next(iter(source))[1][0].ids is kept.ids
    assert backend.made == 0


def test_one_batch_is_made_ahead_and_no_more():
    backend = Tokens()
    with feed(9, backend) as source:
        deadline = time.monotonic() + PROCESS_S
        given = iter(source)
        for taken in range(1, 5):
            next(given)
            while backend.made < taken + AHEAD and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(0.05)  # time to run too far
            assert backend.made == taken + AHEAD


def test_a_failing_thread_fails_the_compute():
    with pytest.raises(DataError, match="1 cannot be tokenised"), feed(4, Tokens(bad="1")) as source:
        list(source)
    assert_no_feed_threads()


def test_leaving_early_ends_the_thread():
    with feed(50, Tokens()) as source:
        next(iter(source))
    assert_no_feed_threads()


def assert_no_feed_threads() -> None:
    deadline = time.monotonic() + PROCESS_S
    while any(thread.name == "feed" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "the feed's thread is still there"
        time.sleep(0.01)


def test_near_the_end_nothing_is_held_back():
    """As many batches as there are replicas: each must find one, however early the first one asks."""
    mesh = SimpleNamespace(shape=SimpleNamespace(dp=4, tp=1, pp=1, world_size=4), is_leader=True, dp_rank=0)
    store = SimpleNamespace(taken=0)
    store.add = lambda key, number: setattr(store, "taken", store.taken + number) or store.taken
    queue = WorkQueue([1.0] * (4 * SPARE + 1), mesh, store)
    assert queue.has_plenty()
    queue.pull()
    assert not queue.has_plenty()


def fed_in_two_replicas_of_two():
    import os

    from infini_eval.distributed.launch import launch
    from infini_eval.distributed.mesh import MeshShape

    with launch("cpu") as world:
        mesh = Mesh.build(MeshShape(2, 2, 1), int(os.environ["RANK"]))
        prepared, batches = made_up(12)
        queue = WorkQueue([batch.cost for batch in batches], mesh, world.new_client())
        with Feed(queue, batches, prepared, Tokens()) as source:
            return mesh.dp_rank, [(index, rows[index].ids.sum().item()) for index, rows in source]


@pytest.mark.distributed
def test_all_ranks_of_a_replica_get_the_same_batches():
    ranks = run_distributed_test(fed_in_two_replicas_of_two, 4, None)
    by_replica = dict(ranks)
    assert all(by_replica[replica] == given for replica, given in ranks)
    everything = sorted(pair for given in by_replica.values() for pair in given)
    assert everything == [(i, i * (i + 1)) for i in range(12)]


def feed_that_fails_on_rank_1():
    import torch
    import torch.distributed as dist

    from infini_eval.distributed.launch import launch
    from infini_eval.distributed.mesh import MeshShape

    with launch("cpu") as world:
        mesh = Mesh.build(MeshShape(1, 2, 1), world.rank)
        prepared, batches = made_up(6)
        queue = WorkQueue([batch.cost for batch in batches], mesh, world.new_client())
        with Feed(queue, batches, prepared, Tokens(bad="2" if world.rank == 1 else None)) as source:
            for _ in source:
                dist.all_reduce(torch.ones(1), group=mesh.tp_group)  # rank 0 waits here for ever
    return "unreached"


@pytest.mark.distributed
def test_a_failing_thread_ends_the_peers_that_wait_in_a_collective():
    with pytest.raises(AssertionError, match="ended with status 2"):
        run_distributed_test(feed_that_fails_on_rank_1, 2, None)
