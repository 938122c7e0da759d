"""Joining and leaving: single process, several, what they share, devices, threads."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from infini_eval.distributed.launch import launch, pick_device
from infini_eval.distributed.shutdown import Interrupted
from infini_eval.distributed.store import LaunchEnvironment, cpu_threads
from infini_eval.errors import ConfigError, InfiniEvalError
from infini_eval.testing.distributed import run_distributed_test
from support.limits import PROCESS_S


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def test_plain_python_is_a_world_of_one():
    import torch.distributed as dist

    with launch("cpu") as world:
        assert (world.rank, world.world_size, world.device, world.store) == (0, 1, "cpu", None)
        assert world.broadcast_object("x", lambda: {"a": 1}) == {"a": 1}
        world.barrier("b")
        assert not dist.is_initialized()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_single_process_gets_its_own_exceptions():
    with pytest.raises(ConfigError, match="mine"), launch("cpu"):
        raise ConfigError("mine")


def run_until_signalled():
    with launch("cpu") as world:
        world.raise_if_stopped()
        os.kill(os.getpid(), signal.SIGUSR1)
        deadline = time.monotonic() + PROCESS_S
        while not world.stop.requested and time.monotonic() < deadline:
            time.sleep(0.01)
        world.raise_if_stopped()


def test_a_signal_is_a_wish_to_stop():
    with pytest.raises(Interrupted, match="SIGUSR1"):
        run_until_signalled()


@pytest.mark.parametrize(
    "variables",
    [{"RANK": "0"}, {"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}],
    ids=["half", "no number", "out of range"],
)
def test_an_unusable_environment_is_an_error(variables):
    with pytest.raises(ConfigError, match="environment is not usable"):
        LaunchEnvironment.read(variables)


def test_devices():
    assert pick_device("cpu", LaunchEnvironment()) == "cpu"
    with pytest.raises(ConfigError, match="unknown device 'tpu'"):
        pick_device("tpu", LaunchEnvironment())


def test_more_processes_than_gpus_is_an_error(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device(None, LaunchEnvironment(3, 4, 1, 2)) == "cuda:1"
    with pytest.raises(InfiniEvalError, match="4 processes on this node, but it has 2 GPUs"):
        pick_device(None, LaunchEnvironment(0, 4, 0, 4))
    with pytest.raises(InfiniEvalError, match="cuda:5, but it has 2 GPUs"):
        pick_device("cuda:5", LaunchEnvironment())


def test_threads_are_shared_out_unless_the_user_says(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert cpu_threads(LaunchEnvironment(local_world_size=3)) == 2
    assert cpu_threads(LaunchEnvironment(local_world_size=16)) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cpu_threads(LaunchEnvironment(local_world_size=3)) is None


def share_and_sum():
    import torch
    import torch.distributed as dist

    with launch("cpu") as world:
        assert dist.get_world_size() == world.world_size
        keys = world.broadcast_object(
            "keys", lambda: ["é" * 16] * 200_000 if world.is_main else pytest.fail("not rank 0")
        )
        tensor = torch.tensor([1.0])
        dist.all_reduce(tensor)
        world.barrier("here")
        return len(keys), keys[-1], tensor.item(), world.device


@pytest.mark.distributed
def test_ranks_share_what_rank_0_made_and_part_cleanly():
    results = run_distributed_test(share_and_sum, 3, None)
    assert results == [(200_000, "é" * 16, 3.0, "cpu")] * 3


def disband_and_go_on(folder):
    """Rank 0 goes on only once the other has left."""
    left = Path(folder, "left")
    with launch("cpu") as world:
        world.disband()
        deadline = time.monotonic() + PROCESS_S
        while world.is_main and not left.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not world.is_main or left.exists()
    left.touch()


@pytest.mark.distributed
def test_disbanded_ranks_leave_before_rank_0(tmp_path):
    run_distributed_test(disband_and_go_on, 2, None, args=(str(tmp_path),))


def disband_and_fail():
    try:
        with launch("cpu") as world:
            world.disband()
            if world.is_main:
                raise ConfigError("mine alone")
    except ConfigError as error:
        return str(error)
    return "left"


@pytest.mark.distributed
def test_after_disbanding_an_error_is_rank_0s_own():
    assert run_distributed_test(disband_and_fail, 2, None) == ["mine alone", "left"]


def join_after_a_broken_attempt():
    """The store still has the keys of an attempt whose rank 1 never came."""
    from datetime import timedelta

    from torch.distributed import PrefixStore, TCPStore

    from infini_eval.distributed.store import ATTEMPT, LaunchIdentity

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=PROCESS_S), wait_for_workers=False)
    ours = PrefixStore(LaunchIdentity.of_this_process(LaunchEnvironment.read()).prefix, store)
    if os.environ["RANK"] == "0":
        old = PrefixStore("old", store)
        for rank in range(2):
            old.set(f"hello/{rank}", "earlier")
            old.set(f"welcome/{rank}/earlier", "")
        old.set("error/first", "not of this attempt")
        ours.set(ATTEMPT, "old")
        store.wait(["greeted"], timedelta(seconds=PROCESS_S))
    else:
        ours.wait([ATTEMPT], timedelta(seconds=PROCESS_S))
        store.set("greeted", "")
    with launch("cpu") as world:
        return world.broadcast_object("value", lambda: 7)


@pytest.mark.distributed
def test_a_restart_does_not_mix_with_the_attempt_before():
    assert run_distributed_test(join_after_a_broken_attempt, 2, None) == [7, 7]
