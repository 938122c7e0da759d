"""Devices by name ("4xH100-80GB", "cpu-64GB"): usable memory, peak FLOPs and bandwidth."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from infini_eval.errors import ConfigError
from infini_eval.foreign import shown

GIB = 2**30
GPU_RESERVE = 1_500_000_000  # driver context, libraries' workspaces: an estimate between 1 and 2 GB
CPU_RESERVE = 500_000_000  # the interpreter with torch
FRAGMENTATION = 0.05  # of what is allocated: an estimate between 5 and 10 %


@dataclass(frozen=True)
class Device:
    """One device. `capacity` is what a process can see (torch's total_memory), in bytes.

    `flops` is the dense bf16 peak and `bandwidth` the memory's, in bytes a second; None where not known.
    """

    name: str
    kind: str
    capacity: int
    flops: float | None = None
    bandwidth: float | None = None

    def reserve(self, planned: int) -> int:
        """Bytes kept free for the context and fragmentation when `planned` bytes are in use."""
        return (GPU_RESERVE if self.kind == "cuda" else CPU_RESERVE) + round(planned * FRAGMENTATION)


# GiB that a process sees, dense bf16 peak, bytes a second. How each was checked stands in docs/planner.md: against pages
# that repeat the vendors' data sheets, and capacities against torch's own messages; what could not be is marked there.
_SHEETS = {
    "A100-40GB": (39.4, 312e12, 1.555e12),
    "A100-80GB": (79.1, 312e12, 2.039e12),
    "A10G-24GB": (22.1, 70e12, 0.6e12),
    "B200-180GB": (178.3, 2250e12, 7.7e12),
    "GH200-96GB": (94.5, 989e12, 4.0e12),
    "H100-80GB": (79.1, 989e12, 3.35e12),
    "H100-PCIE-80GB": (79.1, 756e12, 2.0e12),
    "H200-141GB": (139.7, 989e12, 4.8e12),
    "L4-24GB": (22.0, 121e12, 0.3e12),
    "L40S-48GB": (44.4, 362e12, 0.864e12),
    "MI300X-192GB": (191.9, 1307e12, 5.3e12),
    "RTX4090-24GB": (23.5, 165e12, 1.008e12),
    "V100-32GB": (31.7, 125e12, 0.9e12),  # the peak is of fp16: this card has no bf16 units
}
CATALOGUE = {
    name: Device(name, "cuda", int(gib * GIB), flops, bandwidth) for name, (gib, flops, bandwidth) in _SHEETS.items()
}


def parse_gpus(text: str) -> tuple[int, Device]:
    """ "4xH100-80GB" as (4, device); "cpu-64GB" and "gpu-24GB" are taken at their word (10^9 bytes each GB)."""
    match = re.fullmatch(r"(?:(\d{1,6})[xX×])?(.+)", text.strip())
    count, name = (int(match[1] or 1), match[2]) if match else (0, text)
    device = _find(name)
    if count < 1 or device is None:
        raise ConfigError(
            f"unknown devices {shown(text)}",
            valid=f"[N x] one of {', '.join(CATALOGUE)}, or gpu-<N>GB, cpu-<N>GB; as in 4xH100-80GB",
        )
    return count, device


def _find(name: str) -> Device | None:
    known = {key.lower(): device for key, device in CATALOGUE.items()}
    if name.lower() in known:
        return known[name.lower()]
    alone = [device for key, device in known.items() if key.rpartition("-")[0] == name.lower()]
    if len(alone) == 1:
        return alone[0]
    literal = re.fullmatch(r"(gpu|cpu)-(\d{1,7}(?:\.\d{1,7})?)GB", name, re.IGNORECASE)
    if literal is None:
        return None
    kind = "cpu" if literal[1].lower() == "cpu" else "cuda"
    return Device(name, kind, int(float(literal[2]) * 1e9))


QUERY = ("name", "memory.total", "memory.used", "driver_version")


@dataclass(frozen=True)
class Gpu:
    """One GPU; memory in MiB, as nvidia-smi counts it."""

    name: str
    total_mib: int
    used_mib: int
    driver: str

    def __str__(self) -> str:
        busy = f", {self.used_mib:,} MiB in use" if self.used_mib > 1000 else ""
        return f"{self.name}, {self.total_mib:,} MiB{busy}"


def find_gpus() -> list[Gpu] | None:
    """GPUs of this machine; None where there is no nvidia-smi, empty where it finds none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return []
    if done.returncode:
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    return [_gpu(row) for row in rows if len(row) == len(QUERY)]


def _gpu(row: list[str]) -> Gpu:
    """Unified-memory GPUs say [N/A] where others have a number."""
    total, used = (int(cell) if cell.isdecimal() else 0 for cell in row[1:3])
    return Gpu(row[0], total, used, row[3])
