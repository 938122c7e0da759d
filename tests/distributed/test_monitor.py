"""The parts of a fault without processes: stop requests, heartbeats, first errors, and what they say."""

from __future__ import annotations

import os
import signal

import pytest

from infini_eval.distributed import faults, heartbeat, signals
from infini_eval.distributed.environment import LaunchEnvironment
from infini_eval.distributed.faults import Fault
from infini_eval.distributed.heartbeat import Heartbeats
from infini_eval.distributed.monitor import Monitor
from infini_eval.distributed.signals import SignalPipe, StopRequest
from infini_eval.errors import DataError


@pytest.fixture
def store():
    from torch.distributed import HashStore

    return HashStore()


def test_asked_again_after_a_moment_a_stop_is_urgent(monkeypatch):
    stop = StopRequest()
    clock = iter([0.0, 0.1, 10.0])
    monkeypatch.setattr(signals.time, "monotonic", lambda: next(clock))
    urgent = []
    for reason in ("SIGINT", "SIGINT", "SIGTERM"):
        stop.ask(reason)
        urgent.append(stop.urgent)
    assert urgent == [False, False, True]
    assert stop.reason == "SIGINT"


def test_other_peoples_signals_are_no_wish_to_stop():
    pipe = SignalPipe()
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    try:
        with pipe.catching():
            for number in (signal.SIGALRM, signal.SIGHUP):
                os.kill(os.getpid(), number)
            names = []
            while "SIGHUP" not in names:
                names += pipe.wait(5)
    finally:
        signal.signal(signal.SIGALRM, before)
        pipe.close()
    assert names == ["SIGHUP"]


def test_a_heartbeat_that_does_not_change_has_stopped(store, monkeypatch):
    now = 0.0
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now)
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


def test_the_first_error_stays_the_first(store):
    assert faults.recorded(store) is None
    first = Fault.of(DataError("bad row", next_step="mend it"), 2, "sample 7")
    assert faults.record_first(store, first) == first
    assert faults.record_first(store, Fault.of(RuntimeError("gloo"), 0, "")) == first
    assert faults.recorded(store) == first


def test_a_mistake_is_told_without_a_traceback_and_named_by_rank():
    fault = Fault.of(DataError("bad row", next_step="mend it"), 2, "sample 7")
    assert fault.status == 2
    assert fault.render(0) == "error: bad row\n  next:  mend it\n  where: rank 2, sample 7"
    assert fault.render(0, readers_own=fault.message) == "error: bad row\n  next:  mend it"


def test_a_defect_is_told_with_its_traceback():
    try:
        raise KeyError("x")
    except KeyError as error:
        fault = Fault.of(error, 0, "loading")
    assert fault.status == 1
    assert fault.render(0).startswith("Traceback (most recent call last)")
    assert fault.render(0).endswith("error: KeyError: 'x'\n  where: loading")


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"), True),
        (RuntimeError("Timed out waiting 5000ms for recv operation to complete"), True),
        (ConnectionResetError("Connection reset by peer"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (DataError("Connection closed by the data set"), False),
    ],
)
def test_which_errors_only_say_that_a_peer_is_lost(error, lost):
    assert faults.is_lost_peer(error) is lost


def test_the_message_about_lost_peers_says_what_everybody_does():
    monitor = Monitor(LaunchEnvironment(0, 2, 0, 2), timeout_s=10, grace_s=10)
    assert "although every rank is alive" in monitor.lost_peer_fault("gloo\nmore").message
    assert "seen:  gloo\n" in monitor.lost_peer_fault("gloo\nmore").message
