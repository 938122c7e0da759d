"""The monitor: a thread in every rank that beats, watches the others, and ends the process when waiting is pointless.

It ends a process whose torchrun agent is gone, whose store is gone, whose peers have failed, or that was asked to stop
and did not come to an end in time. What is finished is on disk at any moment, so ending at once loses nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NoReturn

from infini_eval.distributed import faults
from infini_eval.distributed.environment import LaunchEnvironment
from infini_eval.distributed.faults import EXIT_FAILED, Fault
from infini_eval.distributed.heartbeat import STOPPED_AFTER_S, Heartbeats
from infini_eval.distributed.signals import SignalPipe, StopRequest
from infini_eval.distributed.store import RunStore
from infini_eval.errors import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from torch.distributed import Store

BEAT_S = 0.5
RANKS_PER_BEAT_S = 128  # beats get rarer in large worlds: every rank reads every beat
STORE_LOST_AFTER_S = 4.0
LEAVE_S = 3.0  # after another rank's error: time to leave by oneself
SHOW_S = 3.0  # time for rank 0 to show another rank's error
STALLED = 0.8  # part of the time limit; NCCL aborts the process at the limit itself, too late for a message
STOP = "stop"
CONTINUES = "what was finished is on disk, the same command continues"


class Monitor:
    """Watches over one rank; `activity` says what the main thread is doing and travels with each beat."""

    def __init__(self, environment: LaunchEnvironment, timeout_s: float, grace_s: float) -> None:
        self.environment, self.timeout_s, self.grace_s = environment, timeout_s, grace_s
        self.activity = ""
        self.stop = StopRequest()
        self._pipe = SignalPipe()
        self._agent = os.getppid()
        self._store: Store | None = None
        self._beats: Heartbeats | None = None
        self._hooks: list[Callable[[], object]] = []
        self._abort: BaseException | None = None
        self._fault_since: float | None = None
        self._store_seen = time.monotonic()
        self._done = threading.Event()
        self._shown = False
        self._leaving = threading.RLock()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the agent and the signals inside the block, and the peers from `join` on."""
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
        self._store = store.connect_again(max(10.0, STORE_LOST_AFTER_S))
        beats = Heartbeats(self._store, self.environment.rank, self.environment.world_size)
        beats.beat(self.activity)
        self._store_seen = time.monotonic()
        self._beats = beats

    def on_exit(self, hook: Callable[[], object]) -> None:
        """Call `hook` before this process is ended early; it may run in the monitor's thread."""
        self._hooks.append(hook)

    def abort(self, error: BaseException) -> None:
        """End the run with an error that another thread has found."""
        self._abort = error
        self._pipe.wake()

    def leave(self, status: int, message: str | None = None) -> NoReturn:
        """End this process now: not by raising, since its main thread may wait in a collective for ever."""
        with self._leaving:
            if message is not None:
                faults.show(message)
            for hook in self._hooks:
                with contextlib.suppress(Exception):
                    hook()
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(status)

    def conclude(self, store: Store, error: BaseException) -> NoReturn:
        """Main thread: end the process after an exception; the message that appears is that of the first error."""
        try:
            self._conclude(store, error)
        except (RuntimeError, OSError) as lost:  # the store itself is gone, so every rank speaks for itself
            status = EXIT_INTERRUPTED if self.stop.requested else EXIT_FAILED
            reason = error if faults.is_lost_peer(error) is False else lost
            self.leave(status, f"rank {self.environment.rank}: {type(reason).__name__}: {reason}; {CONTINUES}")

    def _conclude(self, store: Store, error: BaseException) -> NoReturn:
        fault = self._cause(store, error)
        if fault is None:
            self._wait_for_others(store)
            self._leave_interrupted()
        if self.environment.rank != 0 and fault.rank == self.environment.rank and not self._shown_by_rank_0(store):
            self._show(fault)
        if self.environment.rank == 0:
            self._show(fault, readers_own=str(error))
            store.set(faults.SHOWN, "")
        self.leave(fault.status)

    def _cause(self, store: Store, error: BaseException) -> Fault | None:
        """The first error of the run, which may be this one; None where the run was asked to stop."""
        rank = self.environment.rank
        if isinstance(error, KeyboardInterrupt):
            return faults.recorded(store)
        if not faults.is_lost_peer(error):
            return faults.record_first(store, Fault.of(error, rank, self.activity))
        deadline = time.monotonic() + STOPPED_AFTER_S + 2
        while time.monotonic() < deadline:
            if fault := faults.recorded(store):
                return fault
            if self.stop.requested:
                return None
            if self._beats is not None and self._beats.stopped():
                break
            time.sleep(0.05)
        return faults.record_first(store, self._lost_peer_fault(str(error)))

    def _wait_for_others(self, store: Store) -> None:
        """Let the others finish what they have in hand: torchrun ends all as soon as one has left."""
        size = self.environment.world_size
        count = store.add("stopped", 1)
        since = self.stop.since or time.monotonic()
        while count < size and time.monotonic() - since < self.grace_s and not self.stop.urgent:
            if self._beats is None or self._beats.stopped():
                return
            time.sleep(0.05)
            count = store.add("stopped", 0)

    def _lost_peer_fault(self, reason: str) -> Fault:
        rank = self.environment.rank
        everyone = range(self.environment.world_size)
        beats = self._beats
        stopped = beats.stopped() if beats else []
        if beats and stopped:
            message = f"no heartbeat any more from {beats.describe(stopped)}"
        else:
            message = "a collective failed although every rank is alive: "
            message += beats.describe(everyone) if beats else ""
        first_line = reason.strip().splitlines()[0] if reason.strip() else ""
        message += f"\n  seen:  {first_line}" if first_line else ""
        return Fault(
            rank, self.activity, f"{message}\n  next:  run the same command again, it continues", "", EXIT_FAILED
        )

    def _watch(self) -> None:
        interval = max(BEAT_S, self.environment.world_size / RANKS_PER_BEAT_S)
        while not self._done.is_set():
            select.select([self._pipe.reader], [], [], interval)
            for name in self._pipe.received():
                self.stop.ask(name)
            if self.environment.has_agent and os.getppid() != self._agent:
                self.leave(EXIT_INTERRUPTED, f"rank {self.environment.rank}: torchrun is gone; {CONTINUES}")
            if self._abort is not None and not self._done.is_set():
                self._follow_abort(self._abort)
            if self._beats is not None:
                self._watch_peers(self._beats)
            self._end_in_time()

    def _watch_peers(self, beats: Heartbeats) -> None:
        try:
            beats.beat(self.activity)
            beats.look()
            self._exchange_stop()
            self._follow_fault()
            if beats.stopped(STALLED * self.timeout_s) and not self._done.is_set():
                self._end_with(self._lost_peer_fault(""))
            self._store_seen = time.monotonic()
        except (RuntimeError, OSError) as error:
            silent_s = time.monotonic() - self._store_seen
            if silent_s > STORE_LOST_AFTER_S and not self._done.is_set():
                status = EXIT_INTERRUPTED if self.stop.requested else EXIT_FAILED
                reason = f"rank {self.environment.rank} has lost the launcher's store for {silent_s:.0f} s ({error})"
                self.leave(status, f"{reason}; {CONTINUES}")

    def _exchange_stop(self) -> None:
        """A stop asked of any rank is a stop of all."""
        assert self._store is not None
        if self._fault_since is not None:
            return
        if self.stop.requested:
            self._store.set(STOP, self.stop.reason or "")
        elif self._store.check([STOP]):
            self.stop.ask(self._store.get(STOP).decode())

    def _follow_fault(self) -> None:
        """Leave after another rank's error: first let the main thread come to an end by itself, then without it."""
        assert self._store is not None
        fault = faults.recorded(self._store)
        if fault is None or fault.rank == self.environment.rank:
            return
        if self._fault_since is None:
            self._fault_since = time.monotonic()
            self.stop.ask(f"an error on rank {fault.rank}")
            if self.environment.rank == 0:
                self._show(fault)
                self._store.set(faults.SHOWN, "")
        elif time.monotonic() - self._fault_since > LEAVE_S:
            self.leave(fault.status)

    def _follow_abort(self, error: BaseException) -> None:
        fault = Fault.of(error, self.environment.rank, self.activity)
        if self._store is None:
            self.leave(fault.status, fault.render(self.environment.rank))
        self._end_with(fault)

    def _end_with(self, fault: Fault) -> NoReturn:
        """End the run with what the monitor itself has found."""
        assert self._store is not None
        fault = faults.record_first(self._store, fault)
        if self.environment.rank == 0:
            self._show(fault)
            self._store.set(faults.SHOWN, "")
        elif fault.rank == self.environment.rank and not self._shown_by_rank_0(self._store):
            self._show(fault)
        self.leave(fault.status)

    def _end_in_time(self) -> None:
        since = self.stop.since
        if since is None or self._fault_since is not None or self._done.is_set():
            return
        if self.stop.urgent or time.monotonic() - since > self.grace_s:
            self._leave_interrupted()

    def _leave_interrupted(self) -> NoReturn:
        message = f"stopped by {self.stop.reason or 'an interrupt'}; {CONTINUES}"
        self.leave(EXIT_INTERRUPTED, message if self.environment.rank == 0 else None)

    def _show(self, fault: Fault, readers_own: str | None = None) -> None:
        with self._leaving:
            if not self._shown:
                self._shown = True
                faults.show(fault.render(self.environment.rank, readers_own))

    def _shown_by_rank_0(self, store: Store) -> bool:
        deadline = time.monotonic() + SHOW_S
        while time.monotonic() < deadline:
            if store.check([faults.SHOWN]):
                return True
            time.sleep(0.05)
        return False
