"""A plan for the machine this runs on: its GPUs as nvidia-smi lists them, or its memory."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from infini_eval.config import Topology
from infini_eval.distributed.device_memory import host_available_bytes
from infini_eval.errors import InfiniEvalError
from infini_eval.planning.architecture import Architecture
from infini_eval.planning.devices import CATALOGUE, Device, find_gpus
from infini_eval.planning.memory import Settings
from infini_eval.planning.models import read_architecture
from infini_eval.planning.nearest import nearest_settings
from infini_eval.planning.plan import make_plan

PLANNED_BACKENDS = ("transformers", "nanotron")
BY_HUB_NAME = {"llama-4-scout": "llama-4-scout", "llama-3.1-8b": "llama-3.1-8b", "llama-3.1-70b": "llama-3.1-70b"}
QUANTIZATIONS = {"4bit": "bnb-4bit", "8bit": "bnb-8bit"}
OFFLOADING = ("--offload-folder", "--max-memory")


def devices_here() -> tuple[int, Device]:
    """How many devices there are, and the smallest of them; the host's memory where there are no GPUs."""
    gpus = [gpu for gpu in find_gpus() or [] if gpu.total_mib]
    if not gpus:
        return 1, Device("cpu", "cpu", host_available_bytes())
    smallest = min(gpus, key=lambda gpu: gpu.total_mib)
    sheet = next((device for name, device in CATALOGUE.items() if name.split("-")[0] in smallest.name), None)
    speed = (sheet.flops, sheet.bandwidth) if sheet else (None, None)
    return len(gpus), Device(smallest.name, "cuda", (smallest.total_mib - smallest.used_mib) * 2**20, *speed)


def plan_here(backend: str, model: str, context: int, flags: Sequence[str] = ()) -> dict[str, Any] | None:
    """Whether one replica fits on this machine's devices; None where the backend computes elsewhere or nothing is known.

    `flags` are those of `infini-eval run`; with offloading to host or disk, what does not fit is slow, not impossible.
    """
    architecture = _architecture(backend, model)
    if architecture is None:
        return None
    count, device = devices_here()
    values = dict(itertools.pairwise(flags))
    settings = Settings(
        dtype=values.get("--dtype"), quantization=QUANTIZATIONS.get(values.get("--quantization", ""), "none")
    )
    layers = len(architecture.layers)
    asked = Topology(dp=1, tp=1, pp=count) if count <= layers and "--tp" not in values else None
    (planned,) = make_plan(architecture, [context], device, count, asked=asked, settings=settings).contexts
    rank = planned.busiest
    advice = [] if planned.fits else nearest_settings(architecture, context, device, planned.mesh, settings, "run")
    return {
        "fits": planned.fits or any(flag in flags for flag in OFFLOADING),
        "fits_without_offloading": planned.fits,
        "devices": f"{count} x {device.name}",
        "need_gb": rank.total / 1e9,
        "capacity_gb": device.capacity / 1e9,
        "weights_gb": rank.weights / 1e9,
        "kv_cache_gb": rank.state.total / 1e9,
        "longest_context": planned.longest,
        "advice": "; or ".join(advice[:3]) or (None if planned.fits else "no single setting makes it fit"),
    }


def _architecture(backend: str, model: str) -> Architecture | None:
    if backend not in PLANNED_BACKENDS:
        return None
    preset = next((preset for name, preset in BY_HUB_NAME.items() if name in model.lower()), None)
    try:
        return read_architecture(model)
    except InfiniEvalError:
        return read_architecture(preset) if preset else None
