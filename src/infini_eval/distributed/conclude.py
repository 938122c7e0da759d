"""The main thread's way out of a launch of several processes, after any exception."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NoReturn

from infini_eval.distributed import faults
from infini_eval.distributed.faults import EXIT_FAILED, Fault
from infini_eval.distributed.heartbeat import STOPPED_AFTER_S
from infini_eval.distributed.monitor import BEAT_S, CONTINUES, Monitor
from infini_eval.errors import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from torch.distributed import Store

POLL_S = 0.05
CAUSE_S = STOPPED_AFTER_S + 2  # how long to look for the cause of a failed collective


def conclude(monitor: Monitor, store: Store, error: BaseException) -> NoReturn:
    """End this process: with the run's first error, which may be `error`, or as interrupted."""
    try:
        fault = _cause(monitor, store, error)
        if fault is not None:
            monitor.ending.leave_with(store, fault, own=error)
        _wait_for_others(monitor, store)
        monitor.leave_interrupted()
    except (RuntimeError, OSError) as lost:  # the store itself is gone, so every rank speaks for itself
        time.sleep(2 * BEAT_S)  # if the agent is gone too, the monitor says so and leaves
        status = EXIT_INTERRUPTED if monitor.stop.requested else EXIT_FAILED
        reason = lost if faults.is_lost_peer(error) else error
        message = f"rank {monitor.environment.rank}: {type(reason).__name__}: {reason}; {CONTINUES}"
        monitor.ending.leave(status, message)


def _cause(monitor: Monitor, store: Store, error: BaseException) -> Fault | None:
    """The first error of the run; None where the run was asked to stop."""
    if isinstance(error, KeyboardInterrupt):
        return faults.recorded(store)
    if not faults.is_lost_peer(error):
        return faults.record_first(store, Fault.of(error, monitor.environment.rank, monitor.activity))
    deadline = time.monotonic() + CAUSE_S
    while time.monotonic() < deadline and not monitor.stopped_peers():
        if fault := faults.recorded(store):
            return fault
        if monitor.stop.requested:
            return None
        time.sleep(POLL_S)
    return faults.record_first(store, monitor.lost_peer_fault(str(error)))


def _wait_for_others(monitor: Monitor, store: Store) -> None:
    """Let the others finish what they have in hand: torchrun ends all as soon as one has left."""
    deadline = (monitor.stop.since or time.monotonic()) + monitor.grace_s
    count = store.add("stopped", 1)
    while count < monitor.environment.world_size and time.monotonic() < deadline:
        if monitor.stopped_peers() or monitor.stop.urgent:
            return
        time.sleep(POLL_S)
        count = store.add("stopped", 0)
