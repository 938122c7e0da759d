"""Loads a model and tokenises a data set without generating: what it costs, before anything is asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from infini_eval.api import registry
from infini_eval.config import EvalConfig
from infini_eval.distributed.device_memory import all_devices, peak_bytes, used_bytes
from infini_eval.distributed.launch import launch
from infini_eval.evaluation.guard import plan_as_json, plan_memory
from infini_eval.evaluation.prepare import load_task_data, preprocessed
from infini_eval.evaluation.run_folder import Timing


def load_only(config: EvalConfig, *, timeout_s: float = 1800.0) -> dict[str, Any] | None:
    """Facts of the loading on rank 0 (None on the others): tokens, seconds of each part, planned and measured bytes.

    Raises ConfigError where the plan says that it does not fit (unless `config.plan` is False), and what loading raises.
    """
    with launch(config.model.device, timeout_s) as world, Timing(world) as timing:
        timing.begin("reading the data")
        task = registry.task(config.task)
        data = load_task_data(config, task)
        samples = preprocessed(data.samples, config.preprocess)[0] if config.preprocess else data.samples
        timing.begin("opening the model")
        backend = registry.load("backends", config.backend)(config, world)
        began = time.perf_counter()
        timing.begin("tokenising")
        prepared = [backend.prepare(sample, task.locate(sample)) for sample in samples]
        tokenised = time.perf_counter()
        batch_plan = backend.plan(prepared)
        batches = [(len(b.rows), max(prepared[row].tokens for row in b.rows)) for b in batch_plan.batches]
        footprint = backend.footprint(batch_plan)
        plan = None if footprint is None else plan_memory(footprint, batches, refuse=config.plan)
        timing.begin("loading the model")
        # where nothing is planned, the model may lie on every device
        devices = [world.device] if footprint is not None else all_devices(world.device)
        before = _sum_of(used_bytes, devices)
        backend.load(batch_plan)
        loaded = time.perf_counter()
        if not world.is_main:
            return None
        return {
            "model": dict(backend.model_facts()),
            "prompts": len(prepared),
            "prompt_tokens": max(item.tokens for item in prepared),
            "tokenise_seconds": tokenised - began,
            "load_seconds": loaded - tokenised,
            "planned": None if plan is None else plan_as_json(plan),
            "loaded_bytes": max(0, _sum_of(used_bytes, devices) - before),
            "peak_bytes": _sum_of(peak_bytes, devices),
            "loaded_bytes_by_device": {device: used_bytes(device) for device in devices},
        }


def _sum_of(measure: Callable[[str], int], devices: Sequence[str]) -> int:
    return sum(measure(device) for device in devices)
