"""The runner of distributed tests itself: it reports every way to fail, and leaves nothing behind."""

from __future__ import annotations

import multiprocessing
import os
import time

import pytest

from infini_eval.testing.distributed import _collect, poisoned_memory, run_distributed_test

pytestmark = pytest.mark.distributed


def sum_of_ranks(extra):
    import torch
    import torch.distributed as dist

    tensor = torch.tensor(float(dist.get_rank() + extra))
    dist.all_reduce(tensor)
    return os.getpid(), tensor.item(), torch.empty(1).isnan().item()


def fail_on_rank_1():
    assert os.environ["RANK"] != "1", "rank 1 does not like this"


def die_on_rank_1():
    if os.environ["RANK"] == "1":
        os._exit(7)
    time.sleep(3600)


def hang():
    time.sleep(3600)


def test_values_come_back_by_rank_from_real_processes():
    results = run_distributed_test(sum_of_ranks, 3, args=(10,))
    assert [total for _, total, _ in results] == [33.0] * 3
    assert len({pid for pid, _, _ in results} | {os.getpid()}) == 4
    assert all(poisoned for _, _, poisoned in results)


def test_a_failed_assertion_names_its_rank():
    with pytest.raises(AssertionError, match=r"(?s)rank 1 failed:.*rank 1 does not like this"):
        run_distributed_test(fail_on_rank_1, 2, None)


def test_a_dead_process_is_reported_not_waited_for():
    with pytest.raises(AssertionError, match="rank 1 ended with status 7"):
        run_distributed_test(die_on_rank_1, 2, None)


def test_a_hang_ends_by_the_limit():
    with pytest.raises(AssertionError, match=r"ranks \[0, 1\] were still running after 1 s"):
        run_distributed_test(hang, 2, None, timeout_s=1)


def test_only_those_that_hang_are_named():
    ends = [multiprocessing.Pipe(duplex=False) for _ in range(2)]
    ends[1][1].send((True, "done"))
    with pytest.raises(AssertionError, match=r"ranks \[0\] were still running"):
        _collect([None, None], [receiver for receiver, _ in ends], timeout_s=0.1)


def test_functions_must_be_importable():
    with pytest.raises(ValueError, match="top level"):
        run_distributed_test(lambda: None, 2)


def test_poison_ends_with_its_block():
    import torch

    with poisoned_memory():
        assert torch.empty(3).isnan().all()
        assert torch.empty_like(torch.ones(2, 2)).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()
