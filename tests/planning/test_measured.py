"""Planned bytes against the bytes of the tensors that are alive, counted: malloc and the clock have no say here.

What a process's resident size shows beside them is measured by benchmarks/planned_memory.py (docs/planner.md).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelSettings
from infini_eval.distributed.mesh import MeshShape
from infini_eval.engine.native_model import NativeModel
from infini_eval.planning.architecture import from_model_config
from infini_eval.planning.memory import Settings, plan_stages
from infini_eval.testing.tiny_models import tiny_qwen2_config, write_tiny_checkpoint

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the package `benchmarks` is not installed

from benchmarks.planned_memory import CPU, Case, counted, planned_tensors, write  # noqa: E402

MIXED = {"sliding_window_size": 256, "no_rope_layer": 2, "attention_bias": True}
NATIVE = {
    "infini": Case("native", (128, 384, 3, 4, 4, 2048), 64, 2048),
    "infini-gqa-rows": Case("native", (128, 384, 3, 8, 2, 2048), 64, 1024, 3),
    "infini-bf16": Case("native", (128, 384, 3, 4, 4, 2048), 64, 2048, 1, "bfloat16"),
    "plain": Case("native", (128, 384, 3, 4, 2, 2048), None, 2048),
    "plain-rows": Case("native", (128, 384, 3, 4, 2, 2048), None, 1024, 2),
    "qwen2-windows": Case("native", (128, 384, 4, 4, 2, 2048), None, 4096, qwen2={"sliding_window_size": 256}),
    "qwen2-mixed": Case("native", (128, 384, 4, 4, 2, 2048), None, 3072, 2, qwen2=MIXED),
    "qwen2-short": Case("native", (128, 384, 4, 4, 2, 2048), None, 900, qwen2={"sliding_window_size": 256}),
}
TRANSFORMERS = {
    "hf-one-step": Case("transformers", (256, 1024, 4, 8, 4, 1024), None, 3000),
    "hf-steps": Case("transformers", (128, 384, 3, 4, 4, 2048), None, 6000),
    "hf-gqa": Case("transformers", (128, 384, 3, 8, 2, 2048), None, 6000),
    "hf-rows": Case("transformers", (128, 384, 3, 4, 4, 2048), None, 2000, 2),
    "hf-bf16-rows": Case("transformers", (128, 384, 3, 8, 2, 2048), None, 2500, 2, "bfloat16", "bfloat16"),
}
EXPORTED = {
    "exported": Case("transformers", (128, 384, 3, 4, 4, 2048), 64, 6000),
    "exported-gqa-rows": Case("transformers", (128, 384, 3, 8, 2, 2048), 128, 3000, 2),
    "exported-bf16": Case("transformers", (128, 384, 3, 4, 4, 2048), 256, 6000, 1, "bfloat16", "bfloat16"),
    "exported-wide-mlp": Case("transformers", (128, 1024, 3, 4, 4, 2048), 64, 6000),
}
CASES = NATIVE | TRANSFORMERS | EXPORTED


@pytest.mark.parametrize("name", CASES)
def test_planned_tensors_are_those_that_live(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    write(case, tmp_path)
    planned, alive = planned_tensors(case, tmp_path), counted(case, tmp_path)
    assert 0.92 * alive <= planned <= 1.05 * alive


@pytest.mark.parametrize("changes", [{"no_rope_layer": 3}, {}], ids=["some layers", "all layers"])
def test_windows_bound_the_cache_as_the_engine_bounds_it(changes, tmp_path: Path) -> None:
    config = tiny_qwen2_config(sliding_window_size=100, attention_bias=True, num_key_value_heads=2, **changes)
    checkpoint = Checkpoint(write_tiny_checkpoint(tmp_path / "1", config))
    model = NativeModel.load(checkpoint, ModelSettings(device="cpu"))
    state = model.llama.new_state(2, 50_000, model.chunk_tokens(2))
    for layer in state.layers:
        layer.open_segment()
    architecture = from_model_config(checkpoint.config, "tiny")
    plan = plan_stages(architecture, 50_000, CPU, MeshShape(), Settings(batch=2))[0]
    assert plan.state.total == state.nbytes()
    assert plan.weights == model.llama.nbytes()
    assert architecture.total_parameters == checkpoint.config.parameter_count
