"""Starting and ending as one of the processes of a launch: torchrun on one node or many, or plain `python`."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from infini_eval.distributed.shutdown import StopRequest
from infini_eval.distributed.store import POLL_S, LaunchEnvironment, RunStore, cpu_threads, get_json, join, put_json
from infini_eval.distributed.supervision import Monitor, exit_on_error
from infini_eval.errors import ConfigError, TopologyError

if TYPE_CHECKING:
    from torch.distributed import Store

GRACE_S = 20.0  # after a signal, for the batch in hand: torchrun and Slurm kill after 30 s
LOOPBACKS = ("lo", "lo0")


@dataclass(frozen=True)
class World:
    """This process among its peers. `device` is "cpu" or "cuda:N"; `run_store` is None for a single process."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    device: str
    timeout_s: float
    monitor: Monitor
    run_store: RunStore | None = None

    @property
    def store(self) -> Store | None:
        """The main thread's connection to the common store, None for a single process."""
        return self.run_store.store if self.run_store else None

    def new_client(self) -> Store | None:
        """Connect to the store for another thread; None for a single process. A wait of one thread blocks all others."""
        return self.run_store.new_client(self.timeout_s) if self.run_store else None

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone writes the run folder's common files and talks to the user."""
        return self.rank == 0

    @property
    def stop(self) -> StopRequest:
        """Set when a signal, the user or another rank wants the run to stop."""
        return self.monitor.stop

    def broadcast_object(self, name: str, make: Callable[[], Any]) -> Any:
        """Call `make` on rank 0 and give every rank what it returns, a JSON value. `name` is used once in a launch."""
        if self.store is None:
            return make()
        if self.rank == 0:
            value = make()
            put_json(self.store, f"broadcast/{name}", value)
            return value
        return get_json(self.store, f"broadcast/{name}")

    def all_gather_object(self, name: str, value: Any) -> list[Any]:
        """Give every rank the JSON values of all, by rank; a stop ends the waiting. `name` is used once in a launch."""
        if self.store is None:
            return [value]
        put_json(self.store, f"gather/{name}/{self.rank}", value)
        return [self._wait_for(f"gather/{name}/{rank}") for rank in range(self.world_size)]

    def _wait_for(self, key: str) -> Any:
        assert self.store is not None
        deadline = time.monotonic() + self.timeout_s
        while not self.store.check([key]) and time.monotonic() < deadline:
            self.raise_if_stopped()
            time.sleep(POLL_S)
        return get_json(self.store, key)

    def barrier(self, name: str) -> None:
        """Wait until every rank is here, within the time limit. `name` is used once in a launch."""
        if self.store is None:
            return
        if self.store.add(f"barrier/{name}", 1) == self.world_size:
            self.store.set(f"barrier/{name}/open", "")
        self.store.wait([f"barrier/{name}/open"], timedelta(seconds=self.timeout_s))

    def disband(self) -> None:
        """Let the other ranks go, each of which calls this too: rank 0 goes on as if it had been alone.

        Once all are here there is no world any more: nobody waits, or may wait, for another rank.
        """
        if self.store is not None:
            _part(self)
            self.monitor.disband()
            _destroy_process_group()

    def set_status(self, activity: str) -> None:
        """Say what this rank does now; it stands in messages about errors and hung ranks."""
        self.monitor.activity = activity

    def on_exit(self, hook: Callable[[], object]) -> None:
        """Call `hook` if this process is ended early, without its `finally` blocks; from any thread."""
        self.monitor.process_exit.on_exit(hook)

    def abort(self, error: BaseException) -> None:
        """End the whole run with an error found by a thread other than the main one."""
        self.monitor.abort(error)

    def raise_if_stopped(self) -> None:
        """Raise shutdown.Interrupted where the run was asked to stop."""
        self.stop.raise_if_requested()


@contextlib.contextmanager
def launch(
    device: str | None = None, timeout_s: float = 1800.0, *, grace_s: float = GRACE_S, stop_is_end: bool = False
) -> Iterator[World]:
    """Join the other processes of this launch, and part cleanly from them.

    A single process, and rank 0 after `disband`, gets its exceptions unchanged. Several processes end together: the first
    error is shown once, by rank 0, and all leave with its exit status; after a stop request all leave with
    EXIT_INTERRUPTED.

    Args:
        device: "cpu", "cuda" or None (cuda where present); NCCL joins GPUs, gloo CPUs.
        timeout_s: bounds every collective.
        grace_s: how long the batch in hand may take after a stop request.
        stop_is_end: a stop request is how the block is meant to end, as of a server; where it then ends in time, several
            processes leave as after work that is done.

    Raises:
        ConfigError: the launcher's environment or the device is not usable.
        TopologyError: there are fewer GPUs than processes.
        Interrupted: a single process was asked to stop and `raise_if_stopped` was called.
    """
    environment = LaunchEnvironment.read()
    monitor = Monitor(environment, timeout_s, grace_s)
    with monitor.watching():
        if environment.world_size == 1:
            yield _world(environment, _prepare_device(device, environment), timeout_s, monitor, None)
            return
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a lost store is reported by us, not by stack traces
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its pool would have all cores in every process
        run_store = join(environment, timeout_s)
        try:
            monitor.join(run_store)
            world = _world(environment, _prepare_device(device, environment), timeout_s, monitor, run_store)
            _init_process_group(world, run_store.store)
            yield world
            if not monitor.disbanded:
                if not stop_is_end:
                    world.raise_if_stopped()
                world.set_status("waiting for the others to end")
                _part(world)
        except BaseException as error:
            if monitor.disbanded:
                raise
            exit_on_error(monitor, run_store.store, error)
    _destroy_process_group()


def pick_device(asked: str | None, environment: LaunchEnvironment) -> str:
    """Choose the device of this process: "cpu" or "cuda:<local rank>".

    Raises:
        ConfigError: an unknown device, or no GPU.
        TopologyError: there are fewer GPUs than processes.
    """
    import torch

    kind = asked or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cpu":
        return kind
    name, _, index = kind.partition(":")
    if name != "cuda" or (index and not index.isdecimal()):
        raise ConfigError(f"unknown device {asked!r}", valid="cpu, cuda")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus == 0:
        raise ConfigError("--device cuda: this machine has no usable CUDA device", next_step="use --device cpu")
    if index and environment.world_size > 1:
        raise ConfigError(f"--device {asked}: several processes need a GPU each", valid="cuda")
    number = int(index) if index else environment.local_rank
    if number >= gpus or (environment.world_size > 1 and environment.local_world_size > gpus):
        wanted = f"device cuda:{number}" if index else f"{environment.local_world_size} processes on this node"
        raise TopologyError(
            f"{wanted}, but it has {gpus} GPU{'s' * (gpus != 1)}",
            valid=f"up to --nproc_per_node={gpus}",
            next_step="start fewer processes, or use --device cpu",
        )
    return f"cuda:{number}"


def _prepare_device(asked: str | None, environment: LaunchEnvironment) -> str:
    import torch

    device = pick_device(asked, environment)
    if device != "cpu":
        torch.cuda.set_device(device)
    threads = cpu_threads(environment)
    if threads is not None:
        torch.set_num_threads(threads)
    return device


def _world(
    environment: LaunchEnvironment, device: str, timeout_s: float, monitor: Monitor, run_store: RunStore | None
) -> World:
    ranks = (environment.rank, environment.world_size, environment.local_rank, environment.local_world_size)
    return World(*ranks, device, timeout_s, monitor, run_store)


def _init_process_group(world: World, store: Store) -> None:
    import torch
    import torch.distributed as dist

    gpu = world.device != "cpu"
    if world.local_world_size == world.world_size:  # also beside NCCL: stages exchange tokens by gloo
        _gloo_on_loopback()
    dist.init_process_group(
        "nccl" if gpu else "gloo",
        store=dist.PrefixStore("process_group", store),
        rank=world.rank,
        world_size=world.world_size,
        timeout=timedelta(seconds=world.timeout_s),
        device_id=torch.device(world.device) if gpu else None,
    )


def _gloo_on_loopback() -> None:
    """Have the processes of one node talk where no other machine can listen, unless the user has named an interface."""
    loopback = next((name for _, name in socket.if_nameindex() if name in LOOPBACKS), None)
    if loopback is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)


def _part(world: World) -> None:
    """Leave together; rank 0, which may host the store, last."""
    assert world.store is not None
    world.barrier("end")
    world.store.set(f"left/{world.rank}", "")
    if world.is_main:
        world.store.wait([f"left/{rank}" for rank in range(world.world_size)], timedelta(seconds=world.timeout_s))


def _destroy_process_group() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
