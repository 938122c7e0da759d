"""Running a test function in several real processes joined by gloo, and NaN in every fresh tensor."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

PROCESS_S = 600.0  # limit of processes that a test starts: far above what the busiest machine needs
# torch._inductor.config is what torch.use_deterministic_algorithms imports on its first call, for seconds.
PRELOADED = ["torch", "torch.distributed", "torch._inductor.config", "pytest", "hypothesis", __name__]


def run_distributed_test(
    func: Callable[..., Any],
    world_size: int,
    backend: str | None = "gloo",
    args: Sequence[Any] = (),
    *,
    timeout_s: float = PROCESS_S,
    poison: bool = True,
    environment: Mapping[str, str] | None = None,
) -> list[Any]:
    """Run `func(*args)` in `world_size` new processes and return what it returned, by rank.

    Each process has torchrun's variables and, unless `backend` is None, an initialised process group. `func` is a
    function at the top level of its module. AssertionError with the traceback of the first rank that failed, or naming
    the ranks that were still running after `timeout_s`; no process is left behind. `poison` fills fresh tensors with
    NaN (see `poisoned_memory`).
    """
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    variables |= {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size), "OMP_NUM_THREADS": "1"}
    variables |= dict(environment or {})
    context = multiprocessing.get_context("forkserver")  # torch is imported once, and no thread is ever forked
    context.set_forkserver_preload(PRELOADED)
    where = _whereabouts(func)
    processes: list[BaseProcess] = []
    results: list[Connection] = []
    for rank in range(world_size):
        receiver, sender = context.Pipe(duplex=False)
        own = variables | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        process: BaseProcess = context.Process(
            target=_child, args=(sender, where, tuple(args), own, backend, poison), daemon=True
        )
        process.start()
        sender.close()
        processes.append(process)
        results.append(receiver)
    try:
        return _collect(processes, results, timeout_s)
    finally:
        for process in processes:
            process.kill()
            process.join()


@contextlib.contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill tensors that torch.empty and its kin make with NaN (integers: their maximum), so that unset values show."""
    import torch

    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    deterministic: Any = torch.utils.deterministic
    filling = deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)  # torch fills fresh memory in this mode only
    deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        deterministic.fill_uninitialized_memory = filling
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _whereabouts(func: Callable[..., Any]) -> tuple[str, str, str]:
    """Module, file and name of a function: test modules cannot be imported by name in another process."""
    name = func.__qualname__
    if "." in name:
        raise ValueError(f"{name} must stand at the top level of its module")
    path = sys.modules[func.__module__].__file__
    assert path is not None
    return func.__module__.replace("__main__", "__mp_main__"), path, name


def _load(where: tuple[str, str, str]) -> Callable[..., Any]:
    module_name, path, name = where
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    function: Callable[..., Any] = getattr(module, name)
    return function


def _child(
    sender: Connection,
    where: tuple[str, str, str],
    args: tuple[Any, ...],
    variables: dict[str, str],
    backend: str | None,
    poison: bool,
) -> None:
    import torch

    os.environ.update(variables)
    torch.set_num_threads(1)
    try:
        with poisoned_memory() if poison else contextlib.nullcontext(), _process_group(backend):
            value = _load(where)(*args)
        sender.send((True, value))
    except BaseException:
        sender.send((False, traceback.format_exc()))
        raise


@contextlib.contextmanager
def _process_group(backend: str | None) -> Iterator[None]:
    import torch.distributed as dist

    if backend is None:
        yield
        return
    dist.init_process_group(backend, timeout=timedelta(seconds=PROCESS_S))
    yield
    dist.barrier()  # no rank closes its connections while another still reads
    dist.destroy_process_group()


def _collect(processes: Sequence[BaseProcess], results: Sequence[Connection], timeout_s: float) -> list[Any]:
    deadline = time.monotonic() + timeout_s
    values: dict[int, Any] = {}
    while len(values) < len(processes):
        open_ones = [connection for rank, connection in enumerate(results) if rank not in values]
        ready = wait(open_ones, max(0.0, deadline - time.monotonic()))
        if not ready:
            running = [rank for rank in range(len(processes)) if rank not in values]
            raise AssertionError(f"ranks {running} were still running after {timeout_s:.0f} s")
        for connection in ready:
            rank = results.index(connection)
            values[rank] = _receive(rank, results[rank], processes[rank])
    return [values[rank] for rank in range(len(processes))]


def _receive(rank: int, connection: Connection, process: BaseProcess) -> Any:
    try:
        succeeded, value = connection.recv()
    except EOFError:
        process.join()
        raise AssertionError(f"rank {rank} ended with status {process.exitcode} and without a result") from None
    if not succeeded:
        raise AssertionError(f"rank {rank} failed:\n{value}")
    return value
