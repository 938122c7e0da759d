"""The lock of a run folder: one run at a time, a dead run's lock is taken over."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from infini_eval.errors import RunFolderError
from infini_eval.foreign import parse_json
from infini_eval.results.files import make_folder, os_error


@dataclass(frozen=True)
class Owner:
    """Who holds a lock: process, host, and the launch it belongs to, so that a restart knows its own predecessor.

    `started` is the process's start in clock ticks since boot (pids are used again), `boot` tells one boot of a host
    from the next and one container from another. `folder` is where the lock was made: a folder is copied with its lock.
    """

    token: str
    host: str
    boot: str
    pid: int
    started: int
    since: str
    launch: str | None
    attempt: int
    folder: str = ""

    @classmethod
    def of_this_process(cls, folder: str = "") -> Owner:
        pid = os.getpid()
        since = datetime.now(UTC).isoformat(timespec="seconds")
        launch, attempt = _launch()
        return cls(
            uuid.uuid4().hex, socket.gethostname(), _boot(), pid, started(pid) or 0, since, launch, attempt, folder
        )

    @classmethod
    def read(cls, content: bytes) -> Owner | None:
        """The owner that a lock file names; None where it is not one that we have written."""
        try:
            data = parse_json(content)
            owner = cls(**{field.name: data[field.name] for field in fields(cls) if field.name in data})
        except (ValueError, TypeError):
            return None
        kinds = {"str": str, "int": int, "str | None": str | None}
        fits = (isinstance(getattr(owner, field.name), kinds[str(field.type)]) for field in fields(cls))
        return owner if all(fits) else None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


def _launch() -> tuple[str | None, int]:
    """The launch that this process belongs to and its attempt: a restarted job may take its own lock over at once."""
    run_id = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    job = os.environ.get("SLURM_JOB_ID")
    if run_id == "none" and job is None:
        return None, 0
    # "none" may be several launches at a time, which count their restarts apart
    counts = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT" if run_id != "none" else "")
    restarts = [int(count) if (count := os.environ.get(name, "")).isdecimal() else 0 for name in counts]
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
MOST_BYTES = 1 << 16
SILENT_BEATS = 3  # a living owner touches its lock at least once in this many beats
AHEAD_S = 5.0  # a lock may be that much younger than the file system's clock says


def _content(path: Path) -> bytes:
    """A lock file's content; empty where it is a link or a pipe, which we never make."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return b""
    with path.open("rb") as file:
        return file.read(MOST_BYTES)


class _Found(NamedTuple):
    """A lock file as read: `owner` is None where the content is not a lock; `touched` is its heartbeat, as a file's time."""

    content: bytes
    owner: Owner | None
    touched: float
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
    measured with the file system's own clock, or at once where it is an earlier attempt of this very launch. A lock that
    cannot be as it says (dated in the future, or not where its living owner made it) is looked at for a few beats: an
    owner that lives touches it. What is no lock at all is replaced.

    `on_lost` is called from the heartbeat's thread when another run has taken the lock over, which happens to a process
    that was suspended for long.
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
        self.owner = Owner.of_this_process(str(Path(folder).absolute()))
        self.taken_from: Owner | None = None
        self._beat_s = beat_s
        self._stale_after_s = stale_after_s
        self._on_lost = on_lost
        self._released = threading.Event()
        self._held = False
        self._doubtful: tuple[bytes, float, float] | None = None

    def acquire(self, *, wait_s: float = 0.0) -> None:
        """Take the lock, also from a dead owner; waits up to `wait_s` for a living one on this host to end."""
        make_folder(self.path.parent)
        deadline = time.monotonic() + wait_s
        while not self._create():
            found = self._read()
            if found is None:
                continue  # it has just been released
            stale = self._is_stale(found)
            if stale:
                self._remove(found)
            elif stale is None or time.monotonic() < deadline:
                time.sleep(min(POLL_S, self._beat_s))
            else:
                assert found.owner is not None
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
            content, touched = _content(self.path), self.path.lstat().st_mtime
        except FileNotFoundError:
            return None
        except OSError as error:
            raise os_error(self.path, error, "read") from error
        return _Found(content, Owner.read(content), touched, self._now() - touched)

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

    def _is_stale(self, found: _Found) -> bool | None:
        """Whether the lock's owner is gone; None where that will be known after a few beats."""
        holder = found.owner
        if holder is None:
            return True
        if (holder.host, holder.boot) == (self.owner.host, self.owner.boot):
            if started(holder.pid) != holder.started:
                return True
            where = self._made_elsewhere(holder)
            return False if where is None else where or self._is_silent(found)
        if self.owner.launch is not None and holder.launch == self.owner.launch and holder.attempt < self.owner.attempt:
            return True
        if found.age_s < -AHEAD_S:
            return self._is_silent(found)
        return found.age_s > self._stale_after_s

    def _made_elsewhere(self, holder: Owner) -> bool | None:
        """Whether this lock is surely the copy of one that stands elsewhere; None where it stands where it was made."""
        if not holder.folder:
            return None
        original = Path(holder.folder) / LOCK
        try:
            if original.samefile(self.path):
                return None
            there = Owner.read(_content(original))
        except OSError:
            return False
        return there is not None and there.token == holder.token

    def _is_silent(self, found: _Found) -> bool | None:
        """True once the lock has stood untouched for SILENT_BEATS, False when it was touched, None until then."""
        now = time.monotonic()
        if self._doubtful is None or self._doubtful[0] != found.content:
            self._doubtful = (found.content, found.touched, now)
        _, touched, since = self._doubtful
        if touched != found.touched:
            return False
        return True if now - since > SILENT_BEATS * self._beat_s else None

    def _remove(self, stale: _Found) -> None:
        """Move a stale lock away; if another run was faster, its fresh lock is put back."""
        aside = self.path.with_name(f".{LOCK}.stale.{self.owner.token}")
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return
        except OSError as error:
            raise os_error(self.path, error, "take over") from error
        if _content(aside) == stale.content:
            self.taken_from = stale.owner
        else:
            with contextlib.suppress(FileExistsError):
                os.link(aside, self.path)
        try:
            aside.unlink(missing_ok=True)
        except OSError as error:  # a folder of this name
            aside.rename(self.path)
            raise os_error(self.path, error, "remove") from error

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
