"""`infini-eval plan`: its JSON, its text, models by preset, config and checkpoint, and wrong input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infini_eval.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_has_the_promised_keys(capsys):
    found = plan(capsys, "--model", "llama-4-scout", "--context", "128k,1000000,10m", "--gpus", "4xH100-80GB")
    assert found["total_parameters"] == 108_641_793_536
    assert found["total_weight_bytes"] == 2 * 108_641_793_536
    assert [each["context_length"] for each in found["contexts"]] == [131_072, 10**6, 10 * 2**20]
    assert [each["fits"] for each in found["contexts"]] == [True, False, False]
    assert found["contexts"][1]["kv_cache_bytes"] == pytest.approx(50.4e9, rel=2e-3)
    for context in found["contexts"]:
        for rank in context["per_rank"]:
            parts = ("weight", "kv_cache", "activation", "logit", "reserve")
            assert sum(rank[f"{part}_bytes"] for part in parts) == rank["total_bytes"]
        assert context["fits"] == all(rank["total_bytes"] <= rank["capacity_bytes"] for rank in context["per_rank"])


def test_not_fitting_is_an_answer_and_says_what_would(capsys):
    assert main(["plan", "--model", "llama-4-scout", "--context", "10k", "--gpus", "1xH100-80GB"]) == 0
    text = capsys.readouterr().out
    assert "DOES NOT FIT" in text
    assert "one replica needs 4 of them" in text
    assert "--dp 1 --tp 4 --pp 1 (4 devices)" in text


def test_the_same_model_by_preset_config_and_yaml(capsys, tmp_path):
    flags = ("--context", "1m", "--gpus", "1xA100-40GB")
    yaml = ROOT / "configs/fineweb_local_300m_infini_4gpu_config.yaml"
    preset, file = plan(capsys, "--model", "infini-300m", *flags), plan(capsys, "--model", str(yaml), *flags)
    assert {**preset, "model": 0} == {**file, "model": 0}
    source = ROOT / "src/infini_eval/planning/presets/llama-3.1-8b.json"
    (tmp_path / "config.json").write_text(source.read_text())
    folder, named = plan(capsys, "--model", str(tmp_path), *flags), plan(capsys, "--model", "llama-3.1-8b", *flags)
    assert {**folder, "model": 0} == {**named, "model": 0}


def test_a_checkpoint_with_dtype_and_topology(capsys):
    found = plan(
        capsys, "--model", str(ROOT / "checkpoints/infini-demo"), "--context", "64k", "--gpus", "4xgpu-8GB",
        "--dp", "2", "--pp", "2", "--dtype", "bfloat16", "--batch", "3",
    )  # fmt: skip
    (context,) = found["contexts"]
    assert context["topology"] == {"dp": 2, "tp": 1, "pp": 2}
    assert len(context["per_rank"]) == 2
    assert context["any_context_fits"]
    assert context["prefill_seconds"] is None  # a gpu-8GB has no known speed
    assert found["total_weight_bytes"] == 2 * found["total_parameters"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "gpt-9"], "llama-4-scout"),
        (["--gpus", "4xTPU"], "H100-80GB"),
        (["--tp", "3"], "tp=3"),
    ],
)
def test_wrong_input_is_one_message_and_status_2(capsys, arguments: list[str], message: str):
    given = {"--model": "llama-3.1-8b", "--context": "1k", "--gpus": "1xH100-80GB"}
    given |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert main(["plan", *(word for pair in given.items() for word in pair)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--context", "ten"], ["--utilisation", "2"], ["--quantization", "2bit"]])
def test_wrong_values_are_refused_by_the_parser(capsys, arguments: list[str]):
    with pytest.raises(SystemExit) as stop:
        main(["plan", "--model", "llama-3.1-8b", "--context", "1k", *arguments])
    assert stop.value.code == 2
