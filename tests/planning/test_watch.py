"""Measured memory: also where no plan can be made of what runs here, and never of what runs elsewhere."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from infini_eval.config import EvalConfig
from infini_eval.distributed.launch import launch
from infini_eval.planning.watch import MemoryWatch

CONFIG = EvalConfig("some-model", "unused", "unused")


def noted(backend: Any) -> dict[str, Any]:
    """What a run with this backend writes down."""
    notes: dict[str, Any] = {}
    with launch("cpu") as world:
        watch = MemoryWatch(CONFIG, backend, world, [(1, 100)], notes.update)
        watch.conclude()
    return notes


def test_a_model_spread_over_devices_is_measured_without_a_plan(caplog: pytest.LogCaptureFixture) -> None:
    memory = noted(SimpleNamespace(footprint=lambda: None))["memory"]
    assert memory["measured_peak_bytes"] >= memory["measured_bytes"] >= 0
    assert "planned_bytes" not in memory
    assert "--no-plan" not in caplog.text


def test_a_backend_that_computes_elsewhere_is_not_measured() -> None:
    assert noted(SimpleNamespace()) == {}
