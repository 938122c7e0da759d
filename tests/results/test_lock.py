"""The lock of a run folder: a living owner is respected, a dead one's lock is taken over."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

from infini_eval.errors import RunFolderError
from infini_eval.results.lock import LOCK, Owner, RunLock, run_lock
from support.limits import PROCESS_S

OWNER = [field.name for field in dataclasses.fields(Owner)]
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


ODD_LOCKS = {
    "empty": lambda path: path.write_text(""),
    "not UTF-8": lambda path: path.write_bytes(b'{"token": "\xff"}'),
    "odd types": lambda path: path.write_text(json.dumps({name: [1] for name in OWNER})),
    "nested": lambda path: path.write_text("[" * 100_000),
    "link to nowhere": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("make", ODD_LOCKS.values(), ids=ODD_LOCKS)
def test_what_is_no_lock_is_replaced(tmp_path, make):
    make(tmp_path / LOCK)
    with run_lock(tmp_path, wait_s=0) as lock:
        assert json.loads((tmp_path / LOCK).read_text())["token"] == lock.owner.token
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_locks_name_is_refused_and_stays(tmp_path):
    (tmp_path / LOCK / "mine").mkdir(parents=True)
    with pytest.raises(RunFolderError, match=r"run\.lock"), run_lock(tmp_path, wait_s=0):
        pass
    assert (tmp_path / LOCK / "mine").is_dir()


@pytest.fixture(params=["slurm", "fixed rendezvous"])
def same_launch(request, monkeypatch):
    """What a job's steps, and launches with a name of the user's, all have in common."""
    name, value = ("SLURM_JOB_ID", "7") if request.param == "slurm" else ("TORCHELASTIC_RUN_ID", "mine")
    monkeypatch.setenv(name, value)


def test_a_dead_owner_of_the_same_launch_is_replaced_at_once(tmp_path, same_launch, holder):
    holder.kill()
    holder.wait()
    with run_lock(tmp_path, wait_s=0) as lock:
        assert lock.taken_from.pid == holder.pid


def test_a_living_owner_is_not_replaced_by_a_restart_of_another_launch(tmp_path, same_launch, holder, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(RunFolderError, match=f"process {holder.pid}"), run_lock(tmp_path, wait_s=0):
        pass


def test_restarts_of_launches_without_a_name_are_not_compared(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    foreign(tmp_path, age_s=0, launch="7/none", attempt=0)
    with pytest.raises(RunFolderError, match="on elsewhere"), run_lock(tmp_path, wait_s=0):
        pass


def test_a_lock_of_the_future_is_replaced_once_it_has_stood_still(tmp_path):
    foreign(tmp_path, age_s=-10_000)
    lock = RunLock(tmp_path, beat_s=0.05)
    lock.acquire()
    assert lock.taken_from.token == "theirs"
    lock.release()


def test_a_lock_of_the_future_whose_owner_beats_is_respected(tmp_path):
    foreign(tmp_path, age_s=-10_000)
    lock = RunLock(tmp_path, beat_s=0.3)
    beat = threading.Timer(0.1, os.utime, [tmp_path / LOCK])
    beat.start()
    with pytest.raises(RunFolderError, match="on elsewhere"):
        lock.acquire()


def test_a_lock_copied_with_its_folder_is_replaced(tmp_path, holder):
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / LOCK, copy)
    with run_lock(copy, wait_s=0) as lock:
        assert lock.taken_from.pid == holder.pid
    assert (tmp_path / LOCK).exists()


def test_a_folder_moved_under_its_owner_is_respected_while_that_beats(tmp_path):
    mine = Owner.of_this_process()
    here = {"host": mine.host, "boot": mine.boot, "pid": mine.pid, "started": mine.started}
    foreign(tmp_path, 0, folder=str(tmp_path / "before"), **here)
    lock = RunLock(tmp_path, beat_s=0.3)
    beat = threading.Timer(0.1, os.utime, [tmp_path / LOCK])
    beat.start()
    with pytest.raises(RunFolderError, match=f"process {mine.pid}"):
        lock.acquire()
