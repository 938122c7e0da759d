"""Supervision without processes: whose heartbeat has stopped, and what is said of lost peers."""

from __future__ import annotations

import pytest

from infini_eval.distributed import supervision
from infini_eval.distributed.store import LaunchEnvironment
from infini_eval.distributed.supervision import Heartbeats, Monitor, has_launcher


@pytest.fixture
def store():
    from torch.distributed import HashStore

    return HashStore()


def test_a_heartbeat_that_does_not_change_has_stopped(store, monkeypatch):
    now = 0.0
    monkeypatch.setattr(supervision.time, "monotonic", lambda: now)
    mine, theirs = Heartbeats(store, 0, 2), Heartbeats(store, 1, 2)
    theirs.beat("sample 7")
    for _ in range(3):
        mine.beat("sample 8")
        mine.look()
        now += 5.0
    assert mine.stopped(after_s=9) == [1]
    assert mine.describe([1]) == "rank 1 (15 s ago: sample 7)"
    theirs.beat("sample 9")
    mine.look()
    assert mine.stopped(after_s=9) == []


@pytest.mark.parametrize(
    ("ancestors", "expected"),
    [
        ({7: (1, "/usr/bin/python3.11"), 1: (0, "/sbin/init")}, True),
        ({9: (7, "/bin/bash"), 7: (1, "/opt/ours"), 1: (0, "/sbin/init")}, True),
        ({1: (0, "/sbin/init")}, False),
        ({5: (1, "/usr/lib/systemd/systemd"), 1: (0, None)}, False),
        ({1: (0, "/usr/bin/python3")}, True),
        ({}, True),
    ],
    ids=["torchrun", "a script between", "init", "somebody else's", "torchrun is the first process", "outside"],
)
def test_a_launcher_is_a_python_program_among_the_ancestors(tmp_path, ancestors, expected):
    parents = [*ancestors, 0]
    processes = {"self": (parents[0], "/opt/ours"), **ancestors}
    for pid, (parent, program) in processes.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"5 (a (name) S {parent} 1 1 0")
        if program is not None:
            (tmp_path / str(pid) / "exe").symlink_to(program)
    assert has_launcher(tmp_path) is expected


def test_the_message_about_lost_peers_says_what_everybody_does():
    monitor = Monitor(LaunchEnvironment(0, 2, 0, 2), timeout_s=10, grace_s=10)
    assert "although every rank is alive" in monitor.lost_peer_fault("gloo\nmore").message
    assert "seen:  gloo\n" in monitor.lost_peer_fault("gloo\nmore").message
