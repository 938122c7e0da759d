"""Where the GPU script runs: device, its peak, shapes at full or toy size, and timing that waits for the device."""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks._harness import temporary_folder
from benchmarks._models import config_of, full_300m, random_model, shape, shape_8b
from infini_eval.config import ModelSettings
from infini_eval.engine.native_model import NativeModel


@dataclass(frozen=True)
class Place:
    """The device under test."""

    device: str
    peak_tflops: float
    toy: bool

    @property
    def conditions(self) -> str:
        name = torch.cuda.get_device_name() if self.device == "cuda" else platform.machine()
        return f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}, {time.strftime('%Y-%m-%d')}"

    def model(self, size: str, dtype: str, segment: int | None = 1024, **settings: Any) -> NativeModel:
        """A random model: "300m" or "8b" (a tiny one as a toy)."""
        sizes = {"300m": full_300m, "8b": shape_8b}[size](segment)
        if self.toy:
            sizes = shape(32, 48, 2, 4, 2, 96, segment and 16)
        self.tidy()
        with temporary_folder() as folder:
            return random_model(config_of(sizes, folder), ModelSettings(dtype=dtype, device=self.device, **settings))

    def tokens(self, full: int) -> int:
        """A length at full size, or a toy's."""
        return max(40, full // 1024) if self.toy else full

    def seconds(self, run: Callable[[], Any], repetitions: int = 3) -> float:
        """The least wall-clock time, the device's queue drained before and after."""
        times = []
        for _ in range(1 if self.toy else repetitions):
            self.wait()
            began = time.perf_counter()
            run()
            self.wait()
            times.append(time.perf_counter() - began)
        return min(times)

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def tidy(self) -> None:
        """Give back what earlier models held."""
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def peak_bytes(self, run: Callable[[], Any]) -> int:
        """Most bytes that tensors held during `run` (0 on a CPU, where torch does not count)."""
        if self.device != "cuda":
            run()
            return 0
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated()
