"""The check before loading: refuses with numbers and the nearest setting; measured memory goes beside planned memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from infini_eval.api.backend import BatchPlan, Footprint
from infini_eval.distributed.mesh import MeshShape
from infini_eval.errors import ConfigError
from infini_eval.planning.check import as_json, check
from infini_eval.testing.limits import PROCESS_S

ROOT = Path(__file__).resolve().parents[2]
HF = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip
FACTS = Footprint(
    model=HF, name="some-8b", mesh=MeshShape(), stage=0, device="cuda:0", capacity=24 * 10**9, dtype="bfloat16"
)


def test_what_fits_passes():
    plan = check(FACTS, [(1, 1000), (2, 2000)])
    assert plan.fits
    assert as_json(plan)["kv_cache_bytes"] == 2 * 2000 * 131_072


def test_refusal_has_numbers_and_a_setting_that_fits():
    with pytest.raises(ConfigError) as refusal:
        check(FACTS, [(1, 1000), (16, 8000)])
    text = str(refusal.value)
    assert "some-8b" in text
    assert "16 x 8,000 tokens" in text
    assert "24.0 GB are free" in text
    assert "--batch_size 2" in text
    assert "--no-plan" in text


def test_no_plan_goes_on():
    assert not check(FACTS, [(16, 8000)], refuse=False).fits


def test_each_stage_answers_for_itself():
    mesh = MeshShape(pp=2)
    first, last = (check(replace(FACTS, mesh=mesh, stage=stage), [(1, 1000)]) for stage in (0, 1))
    assert first.layers.stop == last.layers.start
    assert first.logits == 0 < last.logits


def evaluation(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    data = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
    script = ROOT / "examples/infinite-context-length/scripts/run_passkey_eval.py"
    command = [sys.executable, str(script), "--ckpt-path", str(ROOT / "checkpoints/infini-demo"), "--device", "cpu"]
    command += ["--save_path", str(folder), "--eval_dataset_path", str(data), "--num_samples", "1", "--depths", "50"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *flags], capture_output=True, text=True, env=environment, timeout=PROCESS_S)


def test_an_evaluation_records_planned_and_measured_memory(tmp_path: Path):
    done = evaluation(tmp_path / "run")
    assert done.returncode == 0, done.stderr
    memory = json.loads((tmp_path / "run/manifest.json").read_text())["environment"]["memory"]
    assert memory["planned_bytes"] > memory["weight_bytes"] > 2_900_000
    assert memory["measured_bytes"] >= 0
    assert "measured" in done.stderr


def test_footprint_of_the_native_backend_is_what_it_loads():
    from infini_eval.backends.nanotron import NanotronBackend
    from infini_eval.config import EvalConfig, ModelSettings
    from infini_eval.distributed.launch import launch

    config = EvalConfig(str(ROOT / "checkpoints/infini-demo"), "unused", "unused", model=ModelSettings(device="cpu"))
    with launch("cpu") as world:
        backend = NanotronBackend(config, world)
        plan = check(backend.footprint(BatchPlan([])), [(2, 300)])
        backend.load(BatchPlan([]))
        model = backend._model
        assert model is not None
        difference = plan.weights - model.llama.nbytes()
        state = model.llama.new_state(2, 300)
        for layer in state.layers:
            layer.open_segment()
        assert abs(difference) <= 4 * model.config.num_hidden_layers * model.config.num_attention_heads
        assert plan.state.total == state.nbytes()
