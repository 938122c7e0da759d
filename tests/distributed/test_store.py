"""Joining the store: processes of one launch find each other, those of another do not join them."""

from __future__ import annotations

import dataclasses
import sys
import threading

import pytest

from infini_eval.distributed import store as store_module
from infini_eval.distributed.store import LaunchEnvironment, LaunchIdentity, _enter_attempt, _open_attempt
from infini_eval.errors import ConfigError
from support.limits import PROCESS_S

OURS = LaunchIdentity("run", 2, "0123", "/tmp/agent")
ONE_NODE = LaunchEnvironment(0, 2, 0, 2)


@pytest.fixture
def store():
    from torch.distributed import HashStore

    return HashStore()


def joining(store, results, rank, identity):
    """A thread that joins as this rank and leaves what came of it in `results`."""
    environment = LaunchEnvironment(rank, identity.world_size, rank, identity.world_size)
    enter = _open_attempt if rank == 0 else _enter_attempt

    def run():
        try:
            results.append(enter(environment, identity, store, PROCESS_S)[1])
        except ConfigError as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("change", [{"run_id": "earlier"}, {"command": "4567"}, {"agent": "/tmp/other"}])
def test_a_worker_of_another_launch_is_not_welcomed(store, monkeypatch, change):
    monkeypatch.setattr(store_module, "STRANGER_S", 0.0)
    strangers, ours = [], []
    stranger = joining(store, strangers, 1, dataclasses.replace(OURS, **change))
    store.set("hello", "")
    if "run_id" in change:
        threads = [joining(store, ours, rank, OURS) for rank in (0, 1)]
        for thread in threads:
            thread.join()
        assert ours[0] == ours[1]
    else:
        joining(store, ours, 0, OURS).join()  # it waits for the rank that was refused in vain, so it is told
        assert "rank 1 belongs to another launch" in str(ours[0])
    stranger.join()
    assert "belongs to another launch" in str(strangers[0])
    assert "same command" in str(strangers[0])


def test_the_identity_is_that_of_the_command_and_the_launcher(monkeypatch):
    def identity(argv, environment=ONE_NODE):
        monkeypatch.setattr(sys, "argv", argv)
        return LaunchIdentity.of_this_process(environment)

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "/tmp/agent/attempt_0/1/error.json")
    one = identity(["/a/eval.py", "--dp", "2", "--local-rank=0"])
    assert one == identity(["/b/eval.py", "--dp", "2", "--local-rank=1"])
    assert one != identity(["/a/eval.py", "--dp", "1"])
    assert one.agent == "/tmp/agent"
    assert identity(["eval.py"], LaunchEnvironment(0, 4, 0, 2)).agent == ""  # each node has a launcher of its own
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE")
    assert identity(["eval.py"]).agent == ""
