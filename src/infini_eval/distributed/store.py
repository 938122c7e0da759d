"""The processes' common key-value store: joining it, and sending JSON through it."""

from __future__ import annotations

import json
import os
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from infini_eval.distributed.environment import LaunchEnvironment
from infini_eval.errors import ConfigError

if TYPE_CHECKING:
    from torch.distributed import Store

CHUNK = 1 << 20  # the store refuses values above 8 MiB and closes the connection
POLL_S = 0.02
ATTEMPT = "infini_eval/attempt"
FIRST_BEAT = "0|joining"


def beat_key(rank: int) -> str:
    """Where a rank's heartbeat stands in the store."""
    return f"heartbeat/{rank}"


@dataclass(frozen=True)
class RunStore:
    """The store of one attempt of a launch; `store` is the main thread's connection."""

    store: Store
    host: str
    port: int
    attempt: str

    def connect_again(self, timeout_s: float) -> Store:
        """A connection for another thread: on one connection, a wait of one thread blocks all others."""
        from torch.distributed import PrefixStore

        return PrefixStore(self.attempt, _client(self.host, self.port, timeout_s, is_master=False))


def join(environment: LaunchEnvironment, timeout_s: float) -> RunStore:
    """Join the store of this attempt; returns when every rank has joined.

    torchrun keeps one store over restarts, with all keys of the attempts before, and nodes count restarts differently.
    So rank 0 names each attempt anew, and answers each rank that has read the new name: a rank that read an old name,
    which nobody answers any more, reads again.
    """
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if host is None or port is None:
        raise ConfigError("RANK is set, but MASTER_ADDR and MASTER_PORT are not", next_step="start with torchrun")
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
    """The JSON value under `key`; waits for it up to the store's timeout."""
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
