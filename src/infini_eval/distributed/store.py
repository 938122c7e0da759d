"""What the launcher gives a process: its place among the others (torchrun's variables), and their common key-value store.

Importing this takes no torch.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import socket
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from infini_eval._version import __version__
from infini_eval.errors import ConfigError, in_one_line
from infini_eval.foreign import shown

if TYPE_CHECKING:
    from torch.distributed import Store, TCPStore

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
CHUNK = 1 << 20  # the store refuses values above 8 MiB and closes the connection
POLL_S = 0.02
TRY_S = 5.0
AGENT_STORE_S = 60.0  # torchrun's own store is there before the processes: what is not found by then is gone
STRANGER_S = 30.0  # how long a process looks on while another launch's rank 0 has the store, and its own has not come
OPENED = "infini_eval/opened"
ATTEMPT = "attempt"
FIRST_BEAT = "0|joining"
SAME_COMMAND = (
    "give every node the same command and the same version of infini_eval; "
    "launches that run at the same time need ports and --rdzv-id of their own"
)


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

        return PrefixStore(self.attempt, _client(self.host, self.port, timeout_s))


@dataclass(frozen=True)
class LaunchIdentity:
    """Which launch a process belongs to: processes of different launches that meet at one address do not join.

    `command` is a digest of program and arguments. `agent` tells apart launches on one node that are alike in all else:
    the folder that torchrun makes for each; empty where several nodes have several, or there is no torchrun.
    """

    run_id: str
    world_size: int
    command: str
    agent: str = ""

    @classmethod
    def of_this_process(cls, environment: LaunchEnvironment) -> LaunchIdentity:
        words = [Path(sys.argv[0]).name, *sys.argv[1:]]  # older launchers give each process its rank as an argument
        alike = [word for word in words if not word.startswith(("--local-rank=", "--local_rank="))]
        digest = hashlib.sha256(json.dumps([__version__, *alike]).encode()).hexdigest()[:12]
        one_node = environment.local_world_size == environment.world_size
        error_file = Path(os.environ.get("TORCHELASTIC_ERROR_FILE") or "none")  # AGENT/attempt_N/RANK/error.json
        agent = str(error_file.parents[2]) if one_node and len(error_file.parents) > 3 else ""
        return cls(os.environ.get("TORCHELASTIC_RUN_ID", "none"), environment.world_size, digest, agent)

    @property
    def prefix(self) -> str:
        """Of its keys in the store."""
        return f"infini_eval/{hashlib.sha256(self.to_json().encode()).hexdigest()[:16]}"

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    def __str__(self) -> str:
        return f"run id {shown(self.run_id)}, {self.world_size} processes, command {self.command}"


def join(environment: LaunchEnvironment, timeout_s: float) -> RunStore:
    """Join the store of this attempt; returns when every rank has joined.

    torchrun keeps one store over restarts, with all keys of the attempts before, and nodes count restarts differently.
    So rank 0 names each attempt anew, and answers each rank that has read the new name: a rank that read an old name,
    which nobody answers any more, reads again. All of it stands under the launch's identity: a process of another
    launch, which a fixed port may lead here, is neither heard nor answered, and leaves.

    Raises:
        ConfigError: the address is not set, some rank did not come within `timeout_s`, or it is another launch's.
    """
    host, port = _address()
    agent_has_it = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    identity = LaunchIdentity.of_this_process(environment)
    enter = _open_attempt if environment.rank == 0 else _enter_attempt
    try:
        if environment.rank == 0 and not agent_has_it:
            store: Store = host_store(host, port, timeout_s)
        else:
            _reach(host, port, min(timeout_s, AGENT_STORE_S) if agent_has_it else timeout_s)
            store = _client(host, port, timeout_s)
        inside, attempt = enter(environment, identity, store, timeout_s)
    except (RuntimeError, OSError) as error:
        raise ConfigError(
            f"rank {environment.rank} could not join the other processes at {host}:{port}: {error}",
            valid=f"{environment.world_size} processes that all reach this address",
            next_step="check the rendezvous address and that every node was started",
        ) from error
    return RunStore(inside, host, port, attempt)


def host_store(host: str, port: int, timeout_s: float) -> TCPStore:
    """Open the store in this process; it listens on the loopback interface alone where `host` is on it. Port 0: any.

    Raises:
        RuntimeError: the port is taken.
    """
    from torch.distributed import TCPStore

    listening = _listen_on_loopback(host, port)
    return TCPStore(
        host,
        port if listening is None else listening.getsockname()[1],
        is_master=True,
        timeout=timedelta(seconds=timeout_s),
        wait_for_workers=False,
        multi_tenant=True,
        master_listen_fd=None if listening is None else listening.detach(),  # the store closes it
    )


def _listen_on_loopback(host: str, port: int) -> socket.socket | None:
    """A socket at that address; None where it is not on this machine's loopback, or cannot be had."""
    for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
            continue
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections keep a port for a while
        try:
            listening.bind(address)
            listening.listen(socket.SOMAXCONN)
            return listening
        except OSError:
            listening.close()
    return None


def _address() -> tuple[str, int]:
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if host is None or port is None:
        raise ConfigError("RANK is set, but MASTER_ADDR and MASTER_PORT are not", next_step="start with torchrun")
    if not port.isdecimal() or not 0 < int(port[:6]) < 1 << 16:
        raise ConfigError(f"MASTER_PORT is {shown(port)}", valid="a port: 1 to 65535", next_step="start with torchrun")
    return host, int(port)


def _reach(host: str, port: int, timeout_s: float) -> None:
    """Wait, in short tries, until somebody listens there; the system's last refusal where nobody does."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((host, port), TRY_S).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(10 * POLL_S)


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


def _client(host: str, port: int, timeout_s: float) -> Store:
    from torch.distributed import TCPStore

    timeout = timedelta(seconds=timeout_s)
    return TCPStore(host, port, is_master=False, timeout=timeout, wait_for_workers=False, multi_tenant=True)


def _open_attempt(
    environment: LaunchEnvironment, identity: LaunchIdentity, store: Store, timeout_s: float
) -> tuple[Store, str]:
    from torch.distributed import DistStoreError, PrefixStore

    attempt = uuid.uuid4().hex
    ours, inside = PrefixStore(identity.prefix, store), PrefixStore(attempt, store)
    inside.set(beat_key(0), FIRST_BEAT)
    ours.set(ATTEMPT, attempt)
    store.set(OPENED, identity.to_json())
    deadline = time.monotonic() + timeout_s
    for rank in range(1, environment.world_size):
        while not inside.check([f"hello/{rank}"]):
            if ours.check([f"refused/{rank}"]):
                raise ConfigError(ours.get(f"refused/{rank}").decode(), next_step=SAME_COMMAND)
            if time.monotonic() > deadline:
                raise DistStoreError(f"rank {rank} did not come within {timeout_s:.0f} s")
            time.sleep(POLL_S)
    nonces = [inside.get(f"hello/{rank}").decode() for rank in range(1, environment.world_size)]
    for rank, nonce in enumerate(nonces, 1):
        inside.set(f"welcome/{rank}/{nonce}", "")
    return inside, attempt


def _enter_attempt(
    environment: LaunchEnvironment, identity: LaunchIdentity, store: Store, timeout_s: float
) -> tuple[Store, str]:
    from torch.distributed import DistStoreError, PrefixStore

    rank, nonce = environment.rank, uuid.uuid4().hex
    began = time.monotonic()
    ours, greeted, others_since = PrefixStore(identity.prefix, store), None, None
    while time.monotonic() < began + timeout_s:
        if ours.check([ATTEMPT]):
            attempt = ours.get(ATTEMPT).decode()
            inside = PrefixStore(attempt, store)
            if attempt != greeted:
                inside.set(beat_key(rank), FIRST_BEAT)
                inside.set(f"hello/{rank}", nonce)
                greeted = attempt
            if inside.check([f"welcome/{rank}/{nonce}"]):
                return inside, attempt
        elif store.check([OPENED]):
            others_since = others_since or time.monotonic()
            if time.monotonic() - others_since > STRANGER_S:
                _leave_others(rank, identity, store)
        time.sleep(POLL_S)
    raise DistStoreError(f"rank {rank} was not welcomed by rank 0 within {timeout_s:.0f} s")


def _leave_others(rank: int, identity: LaunchIdentity, store: Store) -> NoReturn:
    """Leave a store that another launch uses; where that has the same run id, its rank 0 is told whom it waits for."""
    from torch.distributed import PrefixStore

    theirs = LaunchIdentity(**json.loads(store.get(OPENED)))
    problem = f"rank {rank} belongs to another launch ({identity}) than the rank 0 that it met ({theirs})"
    if theirs.run_id == identity.run_id:
        PrefixStore(theirs.prefix, store).set(f"refused/{rank}", problem)
    raise ConfigError(problem, next_step=SAME_COMMAND)
