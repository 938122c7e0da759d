"""Every benchmark runs at toy size, gates included; nothing here is timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the package `benchmarks` is not installed

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import _harness, _models, _recompute  # noqa: E402

from infini_eval.checkpoint.reader import Checkpoint  # noqa: E402
from infini_eval.config import ModelSettings  # noqa: E402
from infini_eval.engine.native_model import NativeModel  # noqa: E402
from infini_eval.models.naive import naive_logits  # noqa: E402
from infini_eval.testing.tiny_models import tiny_config, write_tiny_checkpoint  # noqa: E402

PROCESSES = {"pp2_overlap", "tp2_manual", "whole_run"}
MARKED = [pytest.param(name, marks=pytest.mark.distributed) if name in PROCESSES else name for name in command.NAMES]


@pytest.fixture(autouse=True)
def _threads_as_they_were():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", MARKED)
def test_runs_at_toy_size(name: str) -> None:
    metrics = _harness.run_benchmark(name, toy=True)
    assert metrics
    for metric in metrics:
        assert metric.name
        json.dumps(metric.to_json(), allow_nan=False)


def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_the_command_ends_with_one_json_line() -> None:
    done = run_module("benchmarks", "--toy", "dp_balance")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["missed"] == []
    assert [report["benchmark"] for report in summary["benchmarks"]] == ["dp_balance"]


def test_unknown_names_are_refused() -> None:
    done = run_module("benchmarks", "nothing")
    assert done.returncode == 2
    assert "stream_vs_recompute" in done.stderr


def test_the_gpu_script_works_at_toy_size() -> None:
    done = run_module("benchmarks.gpu", "--toy")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    names = {metric["name"] for metric in summary["metrics"]}
    assert {"parity_float32", "parity_bfloat16", "mfu_8b_L64", "decode_300m_batch1", "prefill_300m_1m"} <= names


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_the_baseline_computes_the_equations(tmp_path, kv_heads: int) -> None:
    checkpoint = Checkpoint(write_tiny_checkpoint(tmp_path / "1", tiny_config(num_key_value_heads=kv_heads)))
    ids = torch.arange(2 * 37).view(2, 37) % 96
    weights = {name: checkpoint.read(name) for name in checkpoint.specs}
    config = checkpoint.config
    expected = naive_logits(weights, config, ids, memory=config.memory, memory_query=config.memory_query)
    model = NativeModel.load(checkpoint, ModelSettings(device="cpu"))
    torch.testing.assert_close(_recompute.whole_sequence_logits(model.llama, ids), expected, atol=1e-4, rtol=0)


def test_a_wrong_answer_is_refused() -> None:
    model = _models.demo_model()
    prompt = _models.random_prompts(model, 40)[0]
    best = model.generate([prompt], 1, stop_ids=())[0][0]
    _models.check_against_recompute(model, prompt, [best])
    with pytest.raises(_harness.WrongAnswer):
        _models.check_against_recompute(model, prompt, [(best + 1) % model.config.vocab_size])


def test_floors_name_metrics_and_targets_are_judged() -> None:
    floors = json.loads(command.FLOORS.read_text())
    assert "stream_vs_recompute" in floors
    metric = _harness.Metric("x", 2.0, "x", "<=", 1.5)
    report = {"metrics": [metric.to_json()]}
    assert command.missing(report, None) == ["x"]
    assert command.missing(report, {"x": 3.0}) == []
    assert command.missing(report, {}) == []
