"""How a run ends, without processes: stop requests, the first error, what it says, and that it is shown once."""

from __future__ import annotations

import os
import signal

import pytest

from infini_eval.distributed import shutdown
from infini_eval.distributed.shutdown import (
    Fault,
    ProcessExit,
    SignalPipe,
    StopRequest,
    first_fault,
    is_lost_peer,
    record_first_fault,
)
from infini_eval.errors import DataError

FAULT = Fault(rank=1, activity="sample 7", message="this cannot be used", report="", status=2)


@pytest.fixture
def store():
    from torch.distributed import HashStore

    return HashStore()


def test_asked_again_after_a_moment_a_stop_is_urgent(monkeypatch):
    stop = StopRequest()
    clock = iter([0.0, 0.1, 10.0])
    monkeypatch.setattr(shutdown.time, "monotonic", lambda: next(clock))
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


def test_the_first_error_stays_the_first(store):
    assert first_fault(store) is None
    first = Fault.of(DataError("bad row", next_step="fix it"), 2, "sample 7")
    assert record_first_fault(store, first) == first
    assert record_first_fault(store, Fault.of(RuntimeError("gloo"), 0, "")) == first
    assert first_fault(store) == first


def test_a_mistake_is_told_without_a_traceback_and_named_by_rank():
    fault = Fault.of(DataError("bad row", next_step="fix it"), 2, "sample 7")
    assert fault.status == 2
    assert fault.render(0) == "error: bad row\n  next:  fix it\n  where: rank 2, sample 7"
    assert fault.render(0, readers_message=fault.message) == "error: bad row\n  next:  fix it"


def test_a_defect_is_told_in_one_message_and_its_traceback_is_in_a_file(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    try:
        raise KeyError("x")
    except KeyError as error:
        fault = Fault.of(error, 2, "loading")
    (saved,) = tmp_path.iterdir()
    assert fault.status == 1
    assert fault.render(0) == (
        "error: KeyError: 'x'\n  where: rank 2, loading\n"
        f"  next:  this should not happen: please report it with {saved}, which says where"
    )
    assert "Traceback (most recent call last)" in saved.read_text()


def test_a_path_that_the_system_refuses_is_the_users_to_mend_on_any_rank():
    fault = Fault.of(OSError(36, "File name too long", "x" * 500), 1, "loading")
    assert fault.status == 2
    assert "File name too long" in fault.render(0) and "report" not in fault.render(0)


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
    assert is_lost_peer(error) is lost


class FakeStore:
    """A store that has been shown the error, has not, or is gone."""

    def __init__(self, state: str) -> None:
        self.state = state

    def check(self, keys: list[str]) -> bool:
        if self.state == "gone":
            raise RuntimeError("Connection reset by peer")
        return self.state == "shown"

    def set(self, key: str, value: str) -> None:
        self.state = "shown"


@pytest.mark.parametrize(
    ("state", "rank", "shown"), [("gone", 1, 0), ("shown", 1, 0), ("empty", 0, 1), ("empty", 1, 1)]
)
def test_the_status_is_the_faults(monkeypatch, capsys, state: str, rank: int, shown: int) -> None:
    monkeypatch.setattr("infini_eval.distributed.shutdown.SHOW_S", 0.1)
    monkeypatch.setattr(os, "_exit", lambda status: (_ for _ in ()).throw(SystemExit(status)))
    with pytest.raises(SystemExit) as left:
        ProcessExit(rank).exit_with_fault(FakeStore(state), FAULT)
    assert left.value.code == 2
    assert capsys.readouterr().err.count("this cannot be used") == shown


def test_torchruns_error_file_has_the_message_as_torchrun_reads_it(monkeypatch, capsys, tmp_path) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    file = tmp_path / "0" / "error.json"
    monkeypatch.setenv(shutdown.ERROR_FILE, str(file))
    shutdown.tell_user("error: no such file\n  next:  look again")
    assert capsys.readouterr().err == "error: no such file\n  next:  look again\n"
    killed = ProcessFailure(0, 1, -15, str(tmp_path / "none"))  # told to end, in the same second
    mistaken = ProcessFailure(1, 2, 2, str(file))
    summary = str(ChildFailedError("script.py", {0: killed, 1: mistaken}))
    assert "no such file\n    next:  look again" in summary.partition("Root Cause")[2]
    monkeypatch.setenv(shutdown.LAUNCHED, "1")
    shutdown.tell_user("error: shown by the launcher")
    assert capsys.readouterr().err == ""
