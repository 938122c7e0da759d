"""Keys stay out of everything: command lines, error messages, manifests, records, replies, logs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from infini_eval.backends._keys import hide_keys, without_keys
from infini_eval.errors import BackendError
from infini_eval.evaluate import evaluate
from infini_eval.testing.scripted_server import Step

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
    script = [Step(status=500, message=told), Step(status=400, message=told), Step(text=f"the key is {SECRET}")]
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


@pytest.mark.parametrize("backend", ["openai", "gemini"])
def test_a_refusal_does_not_quote_the_key(serve, remote_config, answers, backend) -> None:
    pytest.importorskip("openai" if backend == "openai" else "google.genai")
    config = remote_config(serve(otherwise=Step(status=401, message=f"bad key {SECRET}")), backend)
    with pytest.raises(BackendError) as caught:
        answers(config)
    assert SECRET not in str(caught.value) and "[key]" in str(caught.value)
    assert Path(config.save_path).parent.exists()
