"""The lock of a run folder: one run at a time, a dead run's lock is taken over."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from infini_eval.errors import RunFolderError
from infini_eval.results.files import make_folder, os_error


@dataclass(frozen=True)
class Owner:
    """Who holds a lock: process, host, and the launch it belongs to, so that a restart knows its own predecessor.

    `started` is the process's start in clock ticks since boot (pids are used again), `boot` tells one boot of a host
    from the next and one container from another.
    """

    token: str
    host: str
    boot: str
    pid: int
    started: int
    since: str
    launch: str | None
    attempt: int

    @classmethod
    def of_this_process(cls) -> Owner:
        pid = os.getpid()
        since = datetime.now(UTC).isoformat(timespec="seconds")
        launch, attempt = _launch()
        return cls(uuid.uuid4().hex, socket.gethostname(), _boot(), pid, started(pid) or 0, since, launch, attempt)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


def _launch() -> tuple[str | None, int]:
    """The launch that this process belongs to and its attempt: a restarted job may take its own lock over at once."""
    run_id = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    job = os.environ.get("SLURM_JOB_ID")
    if run_id == "none" and job is None:
        return None, 0
    restarts = [int(os.environ.get(name, 0)) for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")]
    return f"{job}/{run_id}", restarts[0] * 10_000 + restarts[1]


def _boot() -> str:
    """Identity of this host's boot and of its process numbering; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def started(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is no such process (a zombie is none)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc").is_dir() else _exists(pid)
    return None if fields[0] in "ZX" else int(fields[19])


def _exists(pid: int) -> int | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0
    return 0


LOCK = "run.lock"
BEAT_S = 10.0
STALE_AFTER_S = 90.0
POLL_S = 0.2
WAIT_S = 6.0  # workers of a killed launcher end within 5 s; the same command typed at once should not fail


class _Found(NamedTuple):
    """A lock file as read; `owner` is None where the text is not a lock."""

    text: str
    owner: Owner | None
    age_s: float


@contextlib.contextmanager
def run_lock(
    folder: str | Path, *, wait_s: float = WAIT_S, on_lost: Callable[[str], None] | None = None
) -> Iterator[RunLock]:
    """Hold a run folder's lock inside the block; RunFolderError naming the owner where a living run holds it."""
    lock = RunLock(folder, on_lost=on_lost)
    lock.acquire(wait_s=wait_s)
    try:
        yield lock
    finally:
        lock.release()


class RunLock:
    """The file `<folder>/run.lock`; its heartbeat is its modification time.

    On the owner's host a lock is stale once its process is gone; elsewhere once its heartbeat is `stale_after_s` old,
    measured with the file system's own clock. `on_lost` is called from the heartbeat's thread when another run has
    taken the lock over, which happens to a process that was suspended for long.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        beat_s: float = BEAT_S,
        stale_after_s: float = STALE_AFTER_S,
        on_lost: Callable[[str], None] | None = None,
    ) -> None:
        self.path = Path(folder) / LOCK
        self.owner = Owner.of_this_process()
        self.taken_from: Owner | None = None
        self._beat_s = beat_s
        self._stale_after_s = stale_after_s
        self._on_lost = on_lost
        self._released = threading.Event()
        self._held = False

    def acquire(self, *, wait_s: float = 0.0) -> None:
        """Take the lock, also from a dead owner; waits up to `wait_s` for a living one on this host to end."""
        make_folder(self.path.parent)
        deadline = time.monotonic() + wait_s
        while not self._create():
            found = self._read()
            if found is None:
                continue  # it has just been released
            if found.owner is None or self._is_stale(found.owner, found.age_s):
                self._remove(found)
            elif time.monotonic() < deadline:
                time.sleep(POLL_S)
            else:
                raise self._in_use(found.owner, found.age_s)
        self._held = True
        threading.Thread(target=self._beat, name="run-lock", daemon=True).start()

    def release(self) -> None:
        """Give the lock back; safe to call twice and from any thread."""
        self._released.set()
        if not self._held:
            return
        self._held = False
        if self._is_ours(self._read()):
            self.path.unlink(missing_ok=True)

    def confirm(self) -> None:
        """RunFolderError where this process does not hold the lock: then nothing in the folder is its to write."""
        found = self._read()
        if not self._held or not self._is_ours(found):
            raise RunFolderError(self._loss(found), next_step="choose another --save_path, or wait for the other run")

    def _create(self) -> bool:
        """Make the lock file complete in one step: a hard link of a finished file fails where a lock exists."""
        draft = self.path.with_name(f".{LOCK}.{self.owner.token}")
        try:
            draft.write_text(json.dumps(asdict(self.owner)) + "\n")
            os.link(draft, self.path)
        except FileExistsError:
            return False
        except OSError as error:
            raise os_error(self.path, error) from error
        finally:
            draft.unlink(missing_ok=True)
        return True

    def _read(self) -> _Found | None:
        """The lock that is there; None where there is none."""
        try:
            text = self.path.read_text()
            age_s = self._now() - self.path.stat().st_mtime
        except FileNotFoundError:
            return None
        except OSError as error:
            raise os_error(self.path, error, "read") from error
        try:
            return _Found(text, Owner(**json.loads(text)), age_s)
        except (ValueError, TypeError):
            return _Found(text, None, age_s)

    def _is_ours(self, found: _Found | None) -> bool:
        return found is not None and found.owner is not None and found.owner.token == self.owner.token

    def _now(self) -> float:
        """The file system's clock: hosts' clocks may differ by more than a heartbeat."""
        probe = self.path.with_name(f".{LOCK}.clock.{self.owner.token}")
        try:
            probe.touch()
            return probe.stat().st_mtime
        except OSError as error:
            raise os_error(probe, error) from error
        finally:
            probe.unlink(missing_ok=True)

    def _is_stale(self, holder: Owner, age: float) -> bool:
        if self.owner.launch is not None and holder.launch == self.owner.launch:
            return holder.attempt < self.owner.attempt or age > self._stale_after_s
        if (holder.host, holder.boot) == (self.owner.host, self.owner.boot):
            return started(holder.pid) != holder.started
        return age > self._stale_after_s

    def _remove(self, stale: _Found) -> None:
        """Move a stale lock away; if another run was faster, its fresh lock is put back."""
        aside = self.path.with_name(f".{LOCK}.stale.{self.owner.token}")
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return
        except OSError as error:
            raise os_error(self.path, error, "take over") from error
        if aside.read_text() == stale.text:
            self.taken_from = stale.owner
        else:
            with contextlib.suppress(FileExistsError):
                os.link(aside, self.path)
        aside.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._released.wait(self._beat_s):
            with contextlib.suppress(RunFolderError, OSError):  # a file system that hiccups: the next beat tries again
                found = self._read()
                if not self._is_ours(found):
                    return self._lose(found)
                os.utime(self.path)

    def _lose(self, found: _Found | None) -> None:
        if not self._released.is_set() and self._on_lost is not None:
            self._on_lost(self._loss(found))

    def _loss(self, found: _Found | None) -> str:
        new_owner = "it is gone" if found is None else f"it is held by {found.owner or 'an unknown run'}"
        return f"this run has lost the lock {str(self.path)!r}: {new_owner}"

    def _in_use(self, holder: Owner, age: float) -> RunFolderError:
        return RunFolderError(
            f"{str(self.path.parent)!r} is in use by another run: {holder}, last heard of {max(age, 0.0):.0f} s ago",
            valid="one run at a time in a folder",
            next_step=f"wait for it or choose another --save_path; if it is surely dead, delete {str(self.path)!r}",
        )
