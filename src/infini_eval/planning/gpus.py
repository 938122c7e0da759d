"""The machine's GPUs as nvidia-smi lists them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

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
