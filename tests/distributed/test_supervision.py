"""Supervision without processes: whose heartbeat has stopped, and what is said of lost peers."""

from __future__ import annotations

import pytest

from infini_eval.distributed import supervision
from infini_eval.distributed.store import LaunchEnvironment
from infini_eval.distributed.supervision import Heartbeats, Monitor


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


def test_the_message_about_lost_peers_says_what_everybody_does():
    monitor = Monitor(LaunchEnvironment(0, 2, 0, 2), timeout_s=10, grace_s=10)
    assert "although every rank is alive" in monitor.lost_peer_fault("gloo\nmore").message
    assert "seen:  gloo\n" in monitor.lost_peer_fault("gloo\nmore").message
