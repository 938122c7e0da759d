"""vLLM itself with the shipped plain Llama, served and in its own process. Opt-in: it wants an environment of its own.

INFINI_EVAL_VLLM_PYTHON=/path/to/vllm-env/bin/python pytest tests/backends/test_real_vllm.py   (docs/backends.md makes one)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from infini_eval.config import EvalConfig, ModelSettings, RequestSettings
from infini_eval.testing.model_servers import vllm_serve

PYTHON = os.environ.get("INFINI_EVAL_VLLM_PYTHON") or (sys.executable if find_spec("vllm") else None)
ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "checkpoints/llama-demo"
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="vllm is not importable here and INFINI_EVAL_VLLM_PYTHON names no other"),
]
pytest.importorskip("openai")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    assert PYTHON is not None
    log = tmp_path_factory.mktemp("vllm") / "log"
    with vllm_serve(PYTHON, MODEL, log, "--dtype", "float32", "--generation-config", "vllm") as url:
        yield url


def asked(backend: str, save_path: Path, **requests) -> EvalConfig:
    settings = (RequestSettings(concurrency=4, attempts=2, timeout_s=120, **requests),)
    own = {
        "backend": backend,
        "backend_settings": settings,
        "model": ModelSettings(device="cpu"),
        "tokenizer": str(MODEL),
    }
    return EvalConfig(str(MODEL), str(save_path), str(DATA), **own)


def test_served_by_vllm_it_answers_as_transformers_does(server, answers, tmp_path) -> None:
    served = answers(asked("openai", tmp_path / "served", base_url=server), 9)
    loaded = answers(asked("transformers", tmp_path / "loaded"), 9)
    assert [one.error for one in served] == [None] * 9
    assert [one.text for one in served] == [one.text for one in loaded]
    assert [one.prompt_tokens for one in served] == [one.prompt_tokens for one in loaded] == [1008] * 9
    assert all(one.details["completion_tokens"] == len(one.token_ids) + 1 for one in served)  # the stop token


def test_a_prompt_that_vllm_cuts_is_an_error(server, answers, tmp_path) -> None:
    cut = asked("openai", tmp_path / "cut", base_url=server, extra='{"truncate_prompt_tokens": 500}')
    (response,) = answers(cut, 1)
    assert response.finish_reason == "error" and "read 500 of 1,008" in response.error


def test_a_prompt_beyond_max_model_len_is_an_error(server, answers, opened, in_order, tmp_path) -> None:
    with opened(asked("openai", tmp_path / "long", base_url=server), 1) as it:
        it.backend.load(it.plan)
        prompt = it.samples[0].prompt
        sample = replace(it.samples[0], prompt=prompt * 3)
        (response,) = in_order(it.backend, [it.backend.prepare(sample, None)])
    assert response.finish_reason == "error" and "too long" in response.error


def test_an_answer_that_vllms_window_cuts_is_an_error(server, answers, tmp_path) -> None:
    """vLLM lowers max_tokens without a word where prompt and budget exceed its window."""
    extra = {"ignore_eos": True, "max_tokens": 1100}  # 1,008 + 1,100 > 2,048
    (response,) = answers(asked("openai", tmp_path / "window", base_url=server, extra=json.dumps(extra)), 1)
    assert response.finish_reason == "error" and "of 1,100" in response.error


def run_of(python: str, backend: str, folder: Path) -> dict[str, tuple[str, int]]:
    """Text and number of tokens of each answer, from a whole run of the command line."""
    command = [python, "-m", "infini_eval", "run", "--task", "passkey", "--backend", backend, "--model", str(MODEL)]
    command += ["--eval_dataset_path", str(DATA), "--save_path", str(folder), "--num_samples", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "vLLM" not in done.stdout and "EngineCore" not in done.stdout, "stdout is for results"
    rows = [json.loads(line) for path in (folder / "samples").glob("*.jsonl") for line in path.open()]
    return {row["sample_key"]: (row["generation_text"], row["generation_tokens"]) for row in rows}


def test_in_vllms_process_the_greedy_tokens_are_those_of_transformers(tmp_path) -> None:
    assert PYTHON is not None
    here = run_of(PYTHON, "vllm", tmp_path / "vllm")
    assert here == run_of(sys.executable, "transformers", tmp_path / "transformers") and len(here) == 21
    manifest = json.loads((tmp_path / "vllm/manifest.json").read_text())
    assert manifest["model"]["dtype"] == "float32" and manifest["environment"]["packages"]["vllm"]
