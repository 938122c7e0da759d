"""What a backend that computes here tells the planner before it loads: its model's shape, its place, its memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from infini_eval.config import ModelConfig
from infini_eval.distributed.mesh import MeshShape


@dataclass(frozen=True)
class Footprint:
    """Facts of one rank. A backend's `footprint()` returns one; None where memory is another machine's business.

    `model`: nanotron's ModelConfig, or a Hugging Face config.json as a mapping. `stage` and `mesh`: this rank's place.
    `capacity`: bytes that this process may use on `device` ("cpu" or "cuda:N"). `prefill_chunk`: tokens of each row in
    one step (None: as the engine chooses). `kernel`: sdpa, flash or eager. `kept_prefixes`: how many states of shared
    prefixes will be kept, of `kept_bytes` at most (None: nothing is shared).
    """

    model: ModelConfig | Mapping[str, Any]
    name: str
    mesh: MeshShape
    stage: int
    device: str
    capacity: int
    dtype: str
    kv_dtype: str | None = None
    memory_dtype: str = "float32"
    quantization: str = "none"
    kernel: Literal["sdpa", "flash", "eager"] = "sdpa"
    prefill_chunk: int | None = None
    kept_prefixes: int | None = None
    kept_bytes: int = 0
