"""Keys stay out of everything: command lines, error messages, manifests, records, replies, logs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from infini_eval.config import EvalConfig, ModelSettings
from infini_eval.errors import BackendError
from infini_eval.evaluation.run import evaluate
from infini_eval.keys import VARIABLES, hide_keys, without_keys
from support.fake_vllm import fake_vllm
from support.scripted_server import ScriptedStep

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
SECRET = "sk-secret-0123456789"


def test_key_flags_and_key_values_are_hidden_in_command_lines() -> None:
    words = ["run", "--gemini-api-key", "abc", "--x-key=abc", "--model", "m", f"--request-extra={SECRET}"]
    hidden = without_keys(words)
    assert hidden == ["run", "--gemini-api-key", "[key]", "--x-key=[key]", "--model", "m", "--request-extra=[key]"]


def test_short_placeholders_are_left_alone(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    assert hide_keys("EMPTY is a word") == "EMPTY is a word"


@pytest.mark.parametrize("backend", ["openai", "gemini"])
def test_a_whole_run_writes_and_logs_no_key(serve, remote_config, monkeypatch, capfd, tmp_path, backend) -> None:
    pytest.importorskip("openai" if backend == "openai" else "google.genai")
    monkeypatch.setattr(sys, "argv", ["infini-eval", "--gemini-api-key", SECRET, f"--note={SECRET}"])
    told = f"your key {SECRET} has had enough"
    script = [
        ScriptedStep(status=500, message=told),
        ScriptedStep(status=400, message=told),
        ScriptedStep(text=f"the key is {SECRET}"),
    ]
    server = serve(script)
    config = remote_config(server, backend)
    evaluate(config)
    sent = "".join(value for _, headers, _ in server.asked for value in headers.values())
    assert SECRET in sent, "the server was to get it"
    logged = "".join(capfd.readouterr())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "[key]" in logged and len(files) > 3
    assert SECRET not in logged
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("backend", ["fake", "nanotron", "transformers", "vllm"])
def test_keys_of_the_surroundings_stay_out_of_runs_that_need_none(
    hf_model, monkeypatch, capfd, tmp_path, backend
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm([]))
    for name in VARIABLES:
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setattr(sys, "argv", ["infini-eval", "--api-key", "a-short-one", f"--note={SECRET}"])
    model = ROOT / "checkpoints/infini-demo" if backend == "nanotron" else hf_model
    own = {"num_samples": 1, "depths": (50.0,), "model": ModelSettings(device="cpu"), "max_new_tokens": 3}
    evaluate(EvalConfig(str(model), str(tmp_path / "run"), str(DATA), backend=backend, **own))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 2 and b"[key]" in (tmp_path / "run/manifest.json").read_bytes()
    for secret in (SECRET, "a-short-one"):
        assert secret not in "".join(capfd.readouterr())
        assert not [path for path in files if secret.encode() in path.read_bytes()]


@pytest.mark.parametrize("backend", ["openai", "gemini"])
def test_a_refusal_does_not_quote_the_key(serve, remote_config, answers, backend) -> None:
    pytest.importorskip("openai" if backend == "openai" else "google.genai")
    config = remote_config(serve(otherwise=ScriptedStep(status=401, message=f"bad key {SECRET}")), backend)
    with pytest.raises(BackendError) as caught:
        answers(config)
    assert SECRET not in str(caught.value) and "[key]" in str(caught.value)
    assert Path(config.save_path).parent.exists()
