"""What the launcher gives a process: its place among the others (torchrun's variables), and their common key-value store.

Importing this takes no torch.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.errors import ConfigError, in_one_line
from infini_eval.foreign import shown

if TYPE_CHECKING:
    from torch.distributed import Store

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
CHUNK = 1 << 20  # the store refuses values above 8 MiB and closes the connection
POLL_S = 0.02
ATTEMPT = "infini_eval/attempt"
FIRST_BEAT = "0|joining"


@dataclass(frozen=True)
class LaunchEnvironment:
    """This process among the processes of a launch; the defaults are `python` without torchrun.

    `has_agent`: started by torchrun, so that the parent process is its agent.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    has_agent: bool = False

    @classmethod
    def read(cls, variables: Mapping[str, str] | None = None) -> LaunchEnvironment:
        """Read torchrun's variables; ConfigError where only some are set, or one is not a number."""
        variables = os.environ if variables is None else variables
        if "RANK" not in variables and "WORLD_SIZE" not in variables:
            return cls()
        try:
            rank, world_size = int(variables["RANK"]), int(variables["WORLD_SIZE"])
            local_rank = int(variables.get("LOCAL_RANK", rank))
            local_world_size = int(variables.get("LOCAL_WORLD_SIZE", world_size))
            if not 0 <= rank < world_size:
                raise ValueError(f"RANK={shown(rank)} is not below WORLD_SIZE={shown(world_size)}")
            if not 0 <= local_rank < local_world_size <= world_size:
                raise ValueError(
                    f"LOCAL_RANK={shown(local_rank)} is not below LOCAL_WORLD_SIZE={shown(local_world_size)}, which is at "
                    f"most WORLD_SIZE={shown(world_size)}"
                )
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"the launcher's environment is not usable: {in_one_line(error, 200)}",
                valid=f"numbers in {', '.join(VARIABLES)}, as torchrun sets them",
                next_step="start with torchrun, or unset these variables for a single process",
            ) from error
        return cls(rank, world_size, local_rank, local_world_size, "TORCHELASTIC_RUN_ID" in variables)


def cpu_threads(environment: LaunchEnvironment) -> int | None:
    """Count the threads for CPU kernels: this process's share of the cores; None where the user's OMP_NUM_THREADS decides.

    torchrun sets OMP_NUM_THREADS=1 itself where the user has not; its own starting environment tells the two apart.
    """
    if "OMP_NUM_THREADS" in os.environ and not _set_by_torchrun(environment):
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // environment.local_world_size)


def _set_by_torchrun(environment: LaunchEnvironment) -> bool:
    if not environment.has_agent or os.environ["OMP_NUM_THREADS"] != "1":
        return False
    try:
        started_with = Path(f"/proc/{os.getppid()}/environ").read_bytes()
    except OSError:
        return False
    return not any(entry.startswith(b"OMP_NUM_THREADS=") for entry in started_with.split(b"\0"))


def beat_key(rank: int) -> str:
    """Name the key under which a rank's heartbeat stands."""
    return f"heartbeat/{rank}"


@dataclass(frozen=True)
class RunStore:
    """The store of one attempt of a launch; `store` is the main thread's connection."""

    store: Store
    host: str
    port: int
    attempt: str

    def new_client(self, timeout_s: float) -> Store:
        """Connect for another thread: on one connection, a wait of one thread blocks all others."""
        from torch.distributed import PrefixStore

        return PrefixStore(self.attempt, _client(self.host, self.port, timeout_s, is_master=False))


def join(environment: LaunchEnvironment, timeout_s: float) -> RunStore:
    """Join the store of this attempt; returns when every rank has joined.

    torchrun keeps one store over restarts, with all keys of the attempts before, and nodes count restarts differently.
    So rank 0 names each attempt anew, and answers each rank that has read the new name: a rank that read an old name,
    which nobody answers any more, reads again.

    Raises:
        ConfigError: the address is not set, or some rank did not come within `timeout_s`.
    """
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if host is None or port is None:
        raise ConfigError("RANK is set, but MASTER_ADDR and MASTER_PORT are not", next_step="start with torchrun")
    if not port.isdecimal() or not 0 < int(port[:6]) < 1 << 16:
        raise ConfigError(f"MASTER_PORT is {shown(port)}", valid="a port: 1 to 65535", next_step="start with torchrun")
    agent_has_it = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    enter = _open_attempt if environment.rank == 0 else _enter_attempt
    try:
        store = _client(host, int(port), timeout_s, is_master=environment.rank == 0 and not agent_has_it)
        inside, attempt = enter(environment, store, timeout_s)
    except RuntimeError as error:
        raise ConfigError(
            f"rank {environment.rank} could not join the other processes at {host}:{port}: {error}",
            valid=f"{environment.world_size} processes that all reach this address",
            next_step="check the rendezvous address and that every node was started",
        ) from error
    return RunStore(inside, host, int(port), attempt)


def put_json(store: Store, key: str, value: Any) -> None:
    """Store a JSON value of any size under `key`, in chunks; the key itself appears last."""
    text = json.dumps(value)
    chunks = [text[start : start + CHUNK] for start in range(0, len(text), CHUNK)]
    for number, chunk in enumerate(chunks):
        store.set(f"{key}/{number}", chunk)
    store.set(key, str(len(chunks)))


def get_json(store: Store, key: str) -> Any:
    """Read the JSON value under `key`; waits for it up to the store's timeout."""
    chunks = int(store.get(key))
    return json.loads("".join(store.get(f"{key}/{number}").decode() for number in range(chunks)))


def _client(host: str, port: int, timeout_s: float, *, is_master: bool) -> Store:
    from torch.distributed import TCPStore

    timeout = timedelta(seconds=timeout_s)
    return TCPStore(host, port, is_master=is_master, timeout=timeout, wait_for_workers=False, multi_tenant=True)


def _open_attempt(environment: LaunchEnvironment, store: Store, timeout_s: float) -> tuple[Store, str]:
    from torch.distributed import PrefixStore

    attempt = uuid.uuid4().hex
    inside = PrefixStore(attempt, store)
    inside.set(beat_key(0), FIRST_BEAT)
    store.set(ATTEMPT, attempt)
    nonces = [inside.get(f"hello/{rank}").decode() for rank in range(1, environment.world_size)]
    for rank, nonce in enumerate(nonces, 1):
        inside.set(f"welcome/{rank}/{nonce}", "")
    return inside, attempt


def _enter_attempt(environment: LaunchEnvironment, store: Store, timeout_s: float) -> tuple[Store, str]:
    from torch.distributed import DistStoreError, PrefixStore

    rank, nonce = environment.rank, uuid.uuid4().hex
    deadline = time.monotonic() + timeout_s
    greeted = None
    while time.monotonic() < deadline:
        attempt = store.get(ATTEMPT).decode()
        inside = PrefixStore(attempt, store)
        if attempt != greeted:
            inside.set(beat_key(rank), FIRST_BEAT)
            inside.set(f"hello/{rank}", nonce)
            greeted = attempt
        if inside.check([f"welcome/{rank}/{nonce}"]):
            return inside, attempt
        time.sleep(POLL_S)
    raise DistStoreError(f"rank {rank} was not welcomed by rank 0 within {timeout_s:.0f} s")
