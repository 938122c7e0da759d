"""What the launcher says about this process (torchrun's variables), and its share of the CPU threads. No torch here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infini_eval.errors import ConfigError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


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
                raise ValueError(f"RANK={rank} is not below WORLD_SIZE={world_size}")
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"the launcher's environment is not usable: {error}",
                valid=f"numbers in {', '.join(VARIABLES)}, as torchrun sets them",
                next_step="start with torchrun, or unset these variables for a single process",
            ) from error
        return cls(rank, world_size, local_rank, local_world_size, "TORCHELASTIC_RUN_ID" in variables)


def cpu_threads(environment: LaunchEnvironment) -> int | None:
    """Threads for CPU kernels: this process's share of the cores; None where the user's OMP_NUM_THREADS decides.

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
