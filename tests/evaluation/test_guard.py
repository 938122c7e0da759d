"""Rows of a batch: what the planner says fits, decided once for all ranks and attempts; the user's own number stands."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infini_eval.api.backend import BatchPlan, Footprint
from infini_eval.config import EvalConfig
from infini_eval.data.reading import load_samples
from infini_eval.distributed.launch import launch
from infini_eval.distributed.mesh import MeshShape
from infini_eval.errors import ConfigError
from infini_eval.evaluation import guard
from infini_eval.evaluation.guard import (
    MemoryWatch,
    batch_sizes,
    batches_left,
    plan_as_json,
    plan_memory,
    rows_that_fit,
)
from infini_eval.evaluation.prepare import prepare_items
from infini_eval.evaluation.run_folder import RunFolder
from infini_eval.records import RunManifest
from infini_eval.results.manifest import read_manifest
from infini_eval.tasks.passkey import TASK
from infini_eval.testing.distributed import run_distributed_test
from support.limits import PROCESS_S

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
MANIFEST = RunManifest({}, {}, {}, 16)


def backend_with_room_for(config: EvalConfig, world, rows: int):
    """The nanotron backend on a device with exactly the memory that batches of up to `rows` prompts of 1k need."""
    from infini_eval.backends.nanotron import NanotronBackend

    class Tight(NanotronBackend):
        def footprint(self, plan):
            roomy = replace(super().footprint(plan), capacity=10**12)
            needed = (plan_memory(roomy, [(number, 1008 + 15)]).total for number in range(1, rows + 1))
            return replace(roomy, capacity=max(needed))

    return Tight(config, world)


def left_in(folder: str, rows: int, **settings):
    config = EvalConfig(str(ROOT / "checkpoints/infini-demo"), folder, str(DATA), **settings)
    with launch("cpu") as world:
        backend = backend_with_room_for(config, world, rows)
        prepared = prepare_items(TASK, backend, load_samples(str(DATA)).samples[:16], world)
        with RunFolder(config.save_path, MANIFEST, world) as opened:
            plan = batches_left(config, backend, world, prepared, opened)
        assert sorted(row for batch in plan.batches for row in batch.rows) == list(range(16))
        footprint, sizes = backend.footprint(plan), batch_sizes(plan, prepared, config.max_new_tokens)
        return [len(batch.rows) for batch in plan.batches], rows_that_fit(footprint, sizes)


def learnt(folder) -> dict | None:
    return read_manifest(folder).environment.get("batch_sizes")


def test_rows_are_those_that_fit(tmp_path):
    assert left_in(str(tmp_path / "a"), 8) == ([8, 8], 8)
    assert learnt(tmp_path / "a") is None
    sizes, _ = left_in(str(tmp_path / "b"), 3)
    assert sizes == [3, 3, 3, 3, 3, 1]
    assert learnt(tmp_path / "b") == {"largest": 3}


def test_a_resumed_run_keeps_them_and_may_need_fewer(tmp_path):
    folder = str(tmp_path / "run")
    left_in(folder, 7)
    assert left_in(folder, 8)[0] == [7, 7, 2]  # more memory than the first attempt had: the same companions
    assert left_in(folder, 3)[0] == [3, 3, 3, 3, 3, 1]
    assert learnt(folder) == {"largest": 3}


@pytest.mark.parametrize("settings", [{"batch_size": 8}, {"plan": False}], ids=["batch size given", "no plan"])
def test_what_the_user_says_stands(tmp_path, settings):
    assert left_in(str(tmp_path), 2, **settings)[0] == [8, 8]
    assert learnt(tmp_path) is None


def least_of_two(folder: str):
    import os

    rank = int(os.environ["RANK"])
    return left_in(folder, (8, 3)[rank])[0]


@pytest.mark.distributed
def test_the_rank_with_least_memory_decides_for_all(tmp_path):
    assert run_distributed_test(least_of_two, 2, None, args=(str(tmp_path),)) == [[3, 3, 3, 3, 3, 1]] * 2
    assert learnt(tmp_path) == {"largest": 3}


HF = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip
FACTS = Footprint(
    model=HF, name="some-8b", mesh=MeshShape(), stage=0, device="cuda:0", capacity=24 * 10**9, dtype="bfloat16"
)


def test_what_fits_passes():
    plan = plan_memory(FACTS, [(1, 1000), (2, 2000)])
    assert plan.fits
    assert plan_as_json(plan)["kv_cache_bytes"] == 2 * 2000 * 131_072


def test_refusal_has_numbers_and_a_setting_that_fits():
    with pytest.raises(ConfigError) as refusal:
        plan_memory(FACTS, [(1, 1000), (16, 8000)])
    text = str(refusal.value)
    assert "some-8b" in text
    assert "16 x 8,000 tokens" in text
    assert "24.0 GB are free" in text
    assert "--batch_size 2" in text
    assert "--no-plan" in text


def test_no_plan_goes_on():
    assert not plan_memory(FACTS, [(16, 8000)], refuse=False).fits


def test_each_stage_answers_for_itself():
    mesh = MeshShape(pp=2)
    first, last = (plan_memory(replace(FACTS, mesh=mesh, stage=stage), [(1, 1000)]) for stage in (0, 1))
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
        plan = plan_memory(backend.footprint(BatchPlan([])), [(2, 300)])
        backend.load(BatchPlan([]))
        model = backend._model
        assert model is not None
        difference = plan.weights - model.llama.nbytes()
        state = model.llama.new_state(2, 300)
        for layer in state.layers:
            layer.open_segment()
        assert abs(difference) <= 4 * model.config.num_hidden_layers * model.config.num_attention_heads
        assert plan.state.total == state.nbytes()


def noted(*, computes_here: bool) -> dict[str, Any]:
    """What a run writes down whose model is spread over devices, or computes elsewhere: nobody can plan its memory."""
    notes: dict[str, Any] = {}
    with launch("cpu") as world:
        watch = MemoryWatch(None, [(1, 100)], world, notes.update, refuse=True, watches=computes_here)
        watch.log_peak()
    return notes


def test_a_model_spread_over_devices_is_measured_without_a_plan(caplog: pytest.LogCaptureFixture) -> None:
    memory = noted(computes_here=True)["memory"]
    assert memory["measured_peak_bytes"] >= memory["measured_bytes"] >= 0
    assert "planned_bytes" not in memory
    assert "--no-plan" not in caplog.text


def test_a_backend_that_computes_elsewhere_is_not_measured() -> None:
    assert noted(computes_here=False) == {}


def test_loading_shows_how_much_is_in_memory(monkeypatch, caplog) -> None:
    monkeypatch.setattr(logging.getLogger("infini_eval"), "propagate", True)
    used = iter([0, *range(1_000_000_000, 50_000_000_000, 1_000_000_000)])
    monkeypatch.setattr(guard, "used_bytes", lambda device: next(used))
    with launch("cpu") as world, caplog.at_level("INFO", logger="infini_eval"):
        watch = MemoryWatch(None, [(1, 100)], world, lambda **changes: None, refuse=True, watches=True)
        with watch.loading(every_s=0.01):
            while not any(line.startswith("loading the model") for line in caplog.messages):
                time.sleep(0.01)
    shown = next(line for line in caplog.messages if line.startswith("loading the model"))
    assert shown == "loading the model: 1.0 GB in memory, 0:00:00 so far"
