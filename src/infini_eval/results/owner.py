"""Who holds a run folder's lock: a process that can be told from every other, on any host and after any restart."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


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
