"""Models that the planner does not know: one clear message, and --no-plan runs them (a real GPT-2, tiny and random)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infini_eval.testing.limits import PROCESS_S

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
TOKENIZER = ROOT / "checkpoints/infini-demo/tokenizer"


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("gpt2")
    config = transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=1024, n_positions=2048)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def run(model: Path, save_path: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infini_eval", "run", "--task", "passkey", "--backend", "transformers"]
    command += [
        "--model",
        str(model),
        "--tokenizer",
        str(TOKENIZER),
        "--eval_dataset_path",
        str(DATA),
        "--device",
        "cpu",
    ]
    command += ["--num_samples", "1", "--depths", "50", "--max-new-tokens", "2", "--save_path", str(save_path), *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PROCESS_S)


def test_an_unknown_architecture_is_said_to_be_one(gpt2: Path, tmp_path: Path):
    done = run(gpt2, tmp_path / "run")
    assert done.returncode == 2
    assert "no memory plan can be made" in done.stderr
    assert "'gpt2'" in done.stderr
    assert "--no-plan runs it without a plan" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_plan_runs_it_and_measures(gpt2: Path, tmp_path: Path):
    done = run(gpt2, tmp_path / "run", "--no-plan")
    assert done.returncode == 0, done.stderr
    assert "no memory plan can be made" in done.stderr
    memory = json.loads((tmp_path / "run/manifest.json").read_text())["environment"]["memory"]
    assert memory["measured_bytes"] > 0
    assert "planned_bytes" not in memory
    assert "not planned, " in done.stdout
