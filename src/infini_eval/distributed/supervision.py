"""Supervision of a launch: every rank has a monitor thread that beats, watches the others, and ends pointless waiting.

It ends a process whose torchrun agent is gone, whose store is gone, whose peers have failed, or that was asked to stop
and did not come to an end in time. The main thread ends by `exit_on_error`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from infini_eval.distributed.shutdown import (
    EXIT_FAILED,
    Fault,
    ProcessExit,
    SignalPipe,
    StopRequest,
    first_fault,
    is_lost_peer,
    record_first_fault,
)
from infini_eval.distributed.store import LaunchEnvironment, RunStore, beat_key
from infini_eval.errors import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from torch.distributed import Store

BEAT_S = 0.5
RANKS_PER_BEAT_S = 128  # beats get rarer in large worlds: every rank reads every beat
STORE_TIMEOUT_S = 10.0
STORE_LOST_AFTER_S = 4.0
LEAVE_S = 3.0  # after another rank's error: time to leave by oneself
SILENT_S = 120.0  # a rank silent for so long is lost: no node pauses a thread that long, and nobody else may notice
STALLED = 0.8  # or this part of a shorter time limit: NCCL aborts the process at the limit, too late for a message
STOPPED_AFTER_S = 3.0  # a heartbeat that has not changed for so long has stopped
POLL_S = 0.05
CAUSE_S = STOPPED_AFTER_S + 2  # how long to look for the cause of a failed collective
STOP = "stop"
CONTINUES = "what was finished is on disk, the same command continues"
PROC = Path("/proc")
SIGNAL_OF_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG of Linux's prctl


def end_with_launcher() -> None:
    """Have the kernel send SIGTERM when the process that started this one ends, also while this one only waits."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux: the monitor looks at the parent twice a second
        ctypes.CDLL(None).prctl(SIGNAL_OF_PARENTS_DEATH, signal.SIGTERM)


def has_launcher(proc: Path = PROC) -> bool:
    """Whether this process has an ancestor that can be torchrun, which is a Python program.

    A process whose torchrun was killed before it looked belongs to init, or to whoever else takes orphans in. Between
    torchrun and this process there may be others, such as a shell script. True where the system does not tell.
    """
    pid = _parent(proc / "self")
    if pid is None:
        return os.getppid() != 1
    while pid:
        if _is_python(proc / str(pid)):
            return True
        pid = _parent(proc / str(pid)) or 0
    return _parent(proc / "self") == 0  # a parent outside this container


def _parent(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _is_python(process: Path) -> bool:
    """Whether it runs Python; a process of somebody else, which cannot be read, is not our launcher."""
    try:
        program = (process / "exe").readlink()
        return "python" in program.name or program == (process.parent / "self" / "exe").readlink()
    except OSError:
        return False


class Heartbeats:
    """Beats for one rank and watches the beats of all.

    A beat is a counter, and its age is the time since *we* saw it change: hosts' clocks need not agree. `store` is a
    connection that no other thread uses.
    """

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        self._store = store
        self._key = beat_key(rank)
        self._keys = [beat_key(number) for number in range(world_size)]
        self._beats = 0
        self._seen: list[tuple[bytes, float]] = [(b"", time.monotonic())] * world_size

    def beat(self, activity: str) -> None:
        """Say that this rank is alive, and what it is doing."""
        self._beats += 1
        self._store.set(self._key, f"{self._beats}|{activity}")

    def look(self) -> None:
        """Read all ranks' beats."""
        now = time.monotonic()
        for rank, beat in enumerate(self._store.multi_get(self._keys)):
            if beat != self._seen[rank][0]:
                self._seen[rank] = (beat, now)

    def stopped(self, after_s: float = STOPPED_AFTER_S) -> list[int]:
        """List the ranks whose heartbeat has not changed for `after_s` seconds."""
        return [rank for rank in range(len(self._seen)) if self.age(rank) > after_s]

    def age(self, rank: int) -> float:
        """Measure the seconds since a rank's heartbeat was seen to change."""
        return time.monotonic() - self._seen[rank][1]

    def describe(self, ranks: Sequence[int]) -> str:
        """Say what these ranks were last seen doing, as "rank 3 (5 s ago: batch 7)"."""
        return ", ".join(f"rank {rank} ({self.age(rank):.0f} s ago: {self._activity(rank)})" for rank in ranks)

    def _activity(self, rank: int) -> str:
        return self._seen[rank][0].decode(errors="replace").partition("|")[2] or "starting"


class Monitor:
    """Watches over one rank; `activity` says what the main thread is doing and travels with each beat."""

    def __init__(self, environment: LaunchEnvironment, timeout_s: float, grace_s: float) -> None:
        self.environment, self.timeout_s, self.grace_s = environment, timeout_s, grace_s
        self.activity = ""
        self.disbanded = False
        self.stop = StopRequest()
        self.process_exit = ProcessExit(environment.rank)
        self._pipe = SignalPipe()
        self._agent: int | None = None
        self._store: Store | None = None
        self._beats: Heartbeats | None = None
        self._abort: BaseException | None = None
        self._fault_since: float | None = None
        self._store_seen = time.monotonic()
        self._done = threading.Event()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the agent and the signals inside the block, and the peers from `join` on."""
        if self.environment.has_agent:
            end_with_launcher()  # first, so that an agent that ends between this line and the next is seen by the next
            self._agent = os.getppid() if has_launcher() else None
            self._watch_agent()
        thread = threading.Thread(target=self._watch, name="monitor", daemon=True)
        try:
            with self._pipe.catching():
                thread.start()
                yield
        finally:
            self._done.set()
            self._pipe.wake()
            thread.join()
            self._pipe.close()

    def join(self, store: RunStore) -> None:
        """Beat on the store from now on, and watch the peers; returns after the first beat."""
        self._store = store.new_client(STORE_TIMEOUT_S)
        beats = Heartbeats(self._store, self.environment.rank, self.environment.world_size)
        beats.beat(self.activity)
        self._store_seen = time.monotonic()
        self._beats = beats

    def disband(self) -> None:
        """Watch the agent and the signals only: the other ranks have nothing more to do with this one."""
        self.disbanded, self._beats = True, None

    def abort(self, error: BaseException) -> None:
        """End the run with an error that another thread has found."""
        self._abort = error
        self._pipe.wake()

    def stopped_peers(self) -> list[int]:
        """List the ranks whose heartbeat has stopped."""
        return self._beats.stopped() if self._beats is not None else []

    def lost_peer_fault(self, reason: str = "") -> Fault:
        """Make the error to report when peers do not answer: who has fallen silent, or what everybody is doing."""
        rank, stopped = self.environment.rank, self.stopped_peers()
        silent = "no heartbeat any more from" if stopped else "a collective failed although every rank is alive:"
        message = f"{silent} {self._describe(stopped or list(range(self.environment.world_size)))}"
        if reason.strip():
            message += f"\n  seen:  {reason.strip().splitlines()[0].split('. ')[0]}"
        message += "\n  next:  run the same command again, it continues"
        return Fault(rank, self.activity, message, "", EXIT_FAILED, elsewhere=True)

    def exit_interrupted(self) -> NoReturn:
        """End this process after a request to stop; rank 0 says why."""
        message = f"stopped by {self.stop.reason or 'an interrupt'}; {CONTINUES}"
        if stopped := self.stopped_peers():
            message += f"\n  no heartbeat any more from {self._describe(stopped)}"
        self.process_exit.exit(EXIT_INTERRUPTED, message if self.environment.rank == 0 else None)

    def _describe(self, ranks: list[int]) -> str:
        return self._beats.describe(ranks) if self._beats is not None else str(ranks)

    def _watch(self) -> None:
        try:
            self._watch_until_done()
        except Exception as error:  # without its monitor a rank would wait for ever for others
            fault = Fault.of(error, self.environment.rank, self.activity)
            self.process_exit.exit(fault.status, fault.render(self.environment.rank))

    def _watch_until_done(self) -> None:
        interval = max(BEAT_S, self.environment.world_size / RANKS_PER_BEAT_S)
        while not self._done.is_set():
            for name in self._pipe.wait(interval):
                self.stop.ask(name)
            if self._done.is_set():
                return
            self._watch_agent()
            if self._beats is not None and self._store is not None:
                self._watch_peers(self._beats, self._store)
            elif self._abort is not None:
                fault = Fault.of(self._abort, self.environment.rank, self.activity)
                self.process_exit.exit(fault.status, fault.render(self.environment.rank))
            self._end_in_time()

    def _watch_agent(self) -> None:
        if self.environment.has_agent and os.getppid() != self._agent:
            message = f"rank {self.environment.rank}: torchrun is gone; {CONTINUES}"
            self.process_exit.exit(EXIT_INTERRUPTED, message)

    def _watch_peers(self, beats: Heartbeats, store: Store) -> None:
        try:
            beats.beat(self.activity)
            beats.look()
            self._exchange_stop(store)
            self._follow_fault(store)
            if self._abort is not None:
                self._end_with(store, Fault.of(self._abort, self.environment.rank, self.activity))
            if beats.stopped(min(SILENT_S, STALLED * self.timeout_s)):
                self._end_with(store, self.lost_peer_fault())
            self._store_seen = time.monotonic()
        except (RuntimeError, OSError) as error:
            silent_s = time.monotonic() - self._store_seen
            if silent_s > STORE_LOST_AFTER_S and not self._done.is_set():
                status = EXIT_INTERRUPTED if self.stop.requested else EXIT_FAILED
                reason = f"rank {self.environment.rank} has not reached the launcher's store for {silent_s:.0f} s"
                self.process_exit.exit(status, f"{reason} ({error}); {CONTINUES}")

    def _exchange_stop(self, store: Store) -> None:
        """A stop asked of any rank is a stop of all."""
        if self._fault_since is not None:
            return
        if self.stop.requested:
            store.set(STOP, self.stop.reason or "")
        elif store.check([STOP]):
            self.stop.ask(store.get(STOP).decode())

    def _follow_fault(self, store: Store) -> None:
        """Leave after another rank's error: first let the main thread come to an end by itself, then without it."""
        fault = first_fault(store)
        if fault is None or fault.rank == self.environment.rank:
            return
        if self._fault_since is None:
            self._fault_since = time.monotonic()
            self.stop.ask(f"an error on rank {fault.rank}")
            if self.environment.rank == 0:
                self.process_exit.show(store, fault)
        elif time.monotonic() - self._fault_since > LEAVE_S:
            self.process_exit.exit(fault.status)

    def _end_with(self, store: Store, fault: Fault) -> None:
        """End the run with what the monitor itself has found."""
        if not self._done.is_set():
            self.process_exit.exit_with_fault(store, record_first_fault(store, fault))

    def _end_in_time(self) -> None:
        since = self.stop.since
        if since is None or self._fault_since is not None:
            return
        if self.stop.urgent or time.monotonic() - since > self.grace_s:
            self.exit_interrupted()


def exit_on_error(monitor: Monitor, store: Store, error: BaseException) -> NoReturn:
    """End this process after an exception in its main thread.

    Args:
        error: what was raised. The process ends with the run's first error, which may be another rank's, or as
            interrupted.
    """
    try:
        fault = _cause(monitor, store, error)
        if fault is not None:
            monitor.process_exit.exit_with_fault(store, fault, raised=error)
        _wait_for_others(monitor, store)
        monitor.exit_interrupted()
    except (RuntimeError, OSError) as lost:  # the store itself is gone, so every rank speaks for itself
        time.sleep(2 * BEAT_S)  # if the agent is gone too, the monitor says so and leaves
        status = EXIT_INTERRUPTED if monitor.stop.requested else EXIT_FAILED
        reason = lost if is_lost_peer(error) else error
        message = f"rank {monitor.environment.rank}: {type(reason).__name__}: {reason}; {CONTINUES}"
        monitor.process_exit.exit(status, message)


def _cause(monitor: Monitor, store: Store, error: BaseException) -> Fault | None:
    """The first error of the run; None where the run was asked to stop."""
    if isinstance(error, KeyboardInterrupt):
        return first_fault(store)
    if not is_lost_peer(error):
        return record_first_fault(store, Fault.of(error, monitor.environment.rank, monitor.activity))
    deadline = time.monotonic() + CAUSE_S
    while time.monotonic() < deadline and not monitor.stopped_peers():
        if fault := first_fault(store):
            return fault
        if monitor.stop.requested:
            return None
        time.sleep(POLL_S)
    return record_first_fault(store, monitor.lost_peer_fault(str(error)))


def _wait_for_others(monitor: Monitor, store: Store) -> None:
    """Let the others finish what they have in hand: torchrun ends all as soon as one has left."""
    deadline = (monitor.stop.since or time.monotonic()) + monitor.grace_s
    count = store.add("stopped", 1)
    while count < monitor.environment.world_size and time.monotonic() < deadline:
        if monitor.stopped_peers() or monitor.stop.urgent:
            return
        time.sleep(POLL_S)
        count = store.add("stopped", 0)
