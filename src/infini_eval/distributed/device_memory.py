"""Memory of this process's device: what it may use, what it uses now, and its peak so far. torch only for CUDA."""

from __future__ import annotations

import contextlib
from pathlib import Path

CGROUP_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_bytes(device: str, processes: int = 1) -> int:
    """Count the bytes that each of `processes` on this node may still use: free device memory, or its share of the host's."""
    if device != "cpu":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    return host_available_bytes() // processes


def host_available_bytes() -> int:
    """Read the host's available memory, or what a container's limit leaves of it."""
    available = _status("/proc/meminfo", "MemAvailable")
    for limit_path, used_path in CGROUP_LIMITS:
        limit, used = _number(limit_path), _number(used_path)
        if limit is not None and used is not None and limit < 1 << 60:
            available = min(available, max(0, limit - used))
    return available


def all_devices(device: str) -> list[str]:
    """Where a model that one process spreads by itself may lie: every GPU it sees, or the host where `device` is that."""
    if device == "cpu":
        return [device]
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def used_bytes(device: str) -> int:
    """Read what this process uses now: allocated device memory, or its resident size."""
    if device != "cpu":
        import torch

        return torch.cuda.memory_allocated(device)
    return _status("/proc/self/status", "VmRSS")


def restart_peak(device: str) -> None:
    """Let the peak start anew from what is used now; where the kernel does not allow it, it stays the process's own."""
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: str) -> int:
    """Read the most that this process has used since `restart_peak`, or since it began."""
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated(device)
    return _status("/proc/self/status", "VmHWM")


def resident_bytes(pid: int) -> int:
    """Sum the resident sizes of a process and of all that it has started; 0 once it is gone."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        own = _status(f"/proc/{pid}/status", "VmRSS")
    except OSError:
        return 0
    return own + sum(resident_bytes(int(child)) for child in children)


def _status(path: str, key: str) -> int:
    """A "Key:  123 kB" line of a file under /proc, in bytes."""
    for line in Path(path).read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{path} has no {key}")


def _number(path: str) -> int | None:
    try:
        text = Path(path).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
