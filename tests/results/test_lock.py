"""The lock of a run folder: a living owner is respected, a dead one's lock is taken over."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from infini_eval.errors import RunFolderError
from infini_eval.results.lock import LOCK, Owner, RunLock, run_lock
from infini_eval.testing.limits import PROCESS_S

HOLD = """
import sys, time
from infini_eval.results.lock import RunLock
RunLock(sys.argv[1]).acquire()
print("held", flush=True)
time.sleep(3600)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def foreign(tmp_path, age_s, **changes):
    """A lock file of another host whose last heartbeat is `age_s` old."""
    owner = dataclasses.replace(
        Owner.of_this_process(), **({"token": "theirs", "host": "elsewhere", "boot": "x"} | changes)
    )
    path = tmp_path / LOCK
    path.write_text(json.dumps(dataclasses.asdict(owner)))
    os.utime(path, (time.time() - age_s,) * 2)
    return owner


def test_the_lock_is_there_inside_the_block_only(tmp_path):
    with run_lock(tmp_path / "run") as lock:
        assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == os.getpid()
        assert lock.taken_from is None
    assert list((tmp_path / "run").iterdir()) == []


def test_only_the_owner_is_confirmed(tmp_path):
    lock = RunLock(tmp_path)
    with pytest.raises(RunFolderError, match="it is gone"):
        lock.confirm()
    lock.acquire()
    lock.confirm()
    thief = foreign(tmp_path, age_s=0)
    with pytest.raises(RunFolderError, match=f"it is held by process {thief.pid} on elsewhere"):
        lock.confirm()


def test_a_second_run_is_refused_by_name(tmp_path, holder):
    with (
        pytest.raises(RunFolderError, match=rf"in use by another run: process {holder.pid} on "),
        run_lock(tmp_path, wait_s=0.1),
    ):
        pass


def test_a_killed_owner_on_this_host_is_replaced_at_once(tmp_path, holder):
    holder.kill()
    holder.wait()
    with run_lock(tmp_path, wait_s=0) as lock:
        assert lock.taken_from.pid == holder.pid


def test_an_owner_that_is_just_ending_is_waited_for(tmp_path, holder):
    threading.Timer(0.3, holder.kill).start()
    with run_lock(tmp_path, wait_s=PROCESS_S) as lock:
        assert lock.taken_from.pid == holder.pid


def test_a_reused_pid_is_not_the_owner(tmp_path):
    foreign(tmp_path, 0, host=Owner.of_this_process().host, boot=Owner.of_this_process().boot, started=1)
    with run_lock(tmp_path, wait_s=0) as lock:
        assert lock.taken_from.token == "theirs"


def test_across_hosts_the_heartbeat_decides(tmp_path):
    foreign(tmp_path, age_s=10)
    with pytest.raises(RunFolderError, match="on elsewhere"), run_lock(tmp_path, wait_s=0):
        pass
    foreign(tmp_path, age_s=1000)
    with run_lock(tmp_path, wait_s=0) as lock:
        assert lock.taken_from.host == "elsewhere"


def test_a_restart_takes_over_from_its_own_earlier_attempt(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job7")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    foreign(tmp_path, age_s=0, launch="None/job7", attempt=0)
    with run_lock(tmp_path, wait_s=0) as lock:
        assert lock.taken_from.attempt == 0


def test_the_heartbeat_keeps_a_lock_fresh(tmp_path):
    lock = RunLock(tmp_path, beat_s=0.05)
    lock.acquire()
    os.utime(lock.path, (1, 1))
    deadline = time.monotonic() + PROCESS_S
    while lock.path.stat().st_mtime < 1000 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lock.path.stat().st_mtime > 1000
    lock.release()


def test_a_lost_lock_is_told_and_not_removed(tmp_path):
    lost = threading.Event()
    lock = RunLock(tmp_path, beat_s=0.05, on_lost=lambda reason: lost.set())
    lock.acquire()
    foreign(tmp_path, age_s=0)
    assert lost.wait(PROCESS_S)
    lock.release()
    assert json.loads(lock.path.read_text())["token"] == "theirs"


def test_of_many_that_see_a_stale_lock_one_gets_it(tmp_path):
    foreign(tmp_path, age_s=1000)
    held, refused = [], []

    def compete():
        lock = RunLock(tmp_path)
        try:
            lock.acquire()
            held.append(lock)
        except RunFolderError:
            refused.append(lock)

    threads = [threading.Thread(target=compete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1
    assert len(refused) == 7
    held[0].release()
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_lock_is_replaced(tmp_path):
    (tmp_path / LOCK).write_text("")
    with run_lock(tmp_path, wait_s=0):
        pass
