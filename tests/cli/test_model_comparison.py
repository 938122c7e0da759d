"""The Llama 4 Scout scripts with models that need no download: results, test mode, plans, keys, wrong input."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from infini_eval.cli import isolated, model_comparison, niah_comparison
from infini_eval.cli.flags import make_parser
from infini_eval.cli.main import main
from infini_eval.config import FakeSettings, LoadSettings, PromptSettings, RequestSettings
from infini_eval.planning.devices import Gpu
from support.scripted_server import ScriptedServer, ScriptedStep

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "checkpoints/infini-demo"
LLAMA = ROOT / "checkpoints/llama-demo"


def compare(folder: Path, *arguments: str) -> tuple[int, list[dict]]:
    status = main(["model-comparison", "--results-dir", str(folder), "--device", "cpu", *arguments])
    return status, [json.loads(path.read_text()) for path in sorted(folder.glob("comparison_*.json"))]


def parsed(*arguments: str) -> argparse.Namespace:
    parser = make_parser()
    model_comparison.add_arguments(parser)
    return parser.parse_args(list(arguments))


def test_a_sweep_leaves_one_json_a_size_and_a_plot(tmp_path: Path):
    status, reports = compare(tmp_path, "--models", "fake:any", "--char-count", "4000,2_000")
    assert status == 0
    assert sorted(report["char_count"] for report in reports) == [2000, 4000]
    for report in reports:
        (entry,) = report["models"]
        assert entry["success"] is True
        assert "amber-falcon" in entry["reply"]
        assert entry["prompt_tokens"] == pytest.approx(
            report["context_tokens"], rel=0.5
        )  # fake counts 4 characters a token
    assert (tmp_path / "sweep.png").stat().st_size > 1000


def test_loading_and_inference_tests_stand_in_one_table(tmp_path: Path, capsys, monkeypatch):
    compare(tmp_path, "--models", f"nanotron:{DEMO}", "--char-count", "2000", "--test-mode")
    compare(tmp_path, "--models", "fake:any", "--char-count", "2000,3000")
    missing = tmp_path / "no-model"
    missing.mkdir()
    broken = ("--models", f"transformers:{missing}", "--tokenizer", str(DEMO / "tokenizer"))
    status, _ = compare(tmp_path, *broken, "--char-count", "2000", "--chat-template", "off")
    assert status == 1
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (tmp_path / "tests.md").read_text().splitlines()
    ]
    assert rows[0][:7] == ["model", "characters", "tokens", "test", "result", "phase", "error type"]
    assert [[row[0], row[1], *row[3:7]] for row in rows[2:]] == [
        ["nanotron-infini-demo", "2,000", "loading", "loaded", "loading the model", "-"],
        ["fake-any", "2,000", "inference", "needle found", "answering", "-"],
        ["fake-any", "3,000", "inference", "needle found", "answering", "-"],
        ["transformers-no-model", "2,000", "inference", "failed", "opening the model", "CheckpointError"],
    ]
    assert float(rows[2][8]) > 0, "the peak that was measured"
    assert (tmp_path / "tests.md").read_text().splitlines()[-1] in capsys.readouterr().out


def test_the_prompt_has_the_size_and_the_needle(tmp_path: Path):
    from infini_eval.cli.niah_data import NiahData
    from infini_eval.data.reading import load_samples

    data = NiahData(str(DEMO), needle="The best thing is a sandwich.", question="What is the best thing?", depth=30)
    path, tokens = data.make(6000, tmp_path)
    (sample,) = load_samples(str(path)).samples
    assert len(sample.prompt) == pytest.approx(6000, rel=0.02)
    assert sample.context_length == tokens
    assert sample.answer == "The best thing is a sandwich."
    assert sample.prompt.index("--- NEEDLE START ---") / len(sample.prompt) == pytest.approx(0.3, abs=0.05)
    assert data.make(6000, tmp_path)[0] == path  # made once


def test_test_mode_loads_and_tokenises_only(tmp_path: Path):
    status, (report,) = compare(tmp_path, "--models", f"nanotron:{DEMO}", "--char-count", "3000", "--test-mode")
    (entry,) = report["models"]
    assert status == 0, entry
    loading = entry["loading"]
    assert loading["prompt_tokens"] == report["context_tokens"]
    assert loading["planned"]["weight_bytes"] > 0
    assert loading["load_seconds"] > 0
    assert entry["success"] is None
    assert not list(tmp_path.glob("runs/*/samples"))


def test_what_the_plan_refuses_is_not_started_and_ends_the_sweep(tmp_path: Path, monkeypatch, capsys):
    def nothing_may_start(*arguments, **more):
        raise AssertionError("started")

    monkeypatch.setattr(isolated, "call", nothing_may_start)
    arguments = ("--models", "transformers:meta-llama/Llama-4-Scout-17B-16E-Instruct", "--char-count", "2000,4000")
    status, reports = compare(tmp_path, *arguments, "--tokenizer", str(DEMO / "tokenizer"))
    assert status == 0
    (report,) = reports
    (entry,) = report["models"]
    assert entry["status"] == "does not fit"
    assert entry["plan"]["weights_gb"] > 217
    assert "stopping here" in capsys.readouterr().out


def test_a_model_that_fails_is_recorded_with_its_reason(tmp_path: Path):
    status, (report,) = compare(
        tmp_path, "--models", "fake:any", "--char-count", "2000", "--tokenizer", str(DEMO), "--tp", "3"
    )
    assert status == 0  # tp is for local models
    broken = niah_comparison.Contender("fake", "any", settings=(FakeSettings(failure_rate=1.0),))
    comparison = niah_comparison.NeedleComparison([broken], [2000], report_data(report), tmp_path / "broken")
    (tmp_path / "broken").mkdir()
    (again,) = niah_comparison.compare(comparison)
    assert again["models"][0]["status"] == "failed"
    assert "as it was told to" in again["models"][0]["error"]


def report_data(report: dict):
    from infini_eval.cli.niah_data import NiahData

    return NiahData(**report["data"])


def test_the_key_is_written_nowhere(tmp_path: Path, capsys, monkeypatch):
    seen = {}

    def remember(command, environment, **more):
        seen["command"], seen["environment"] = command, dict(environment)
        seen["asked"] = Path(command[-2]).read_text()
        return "error: no network", 2

    monkeypatch.setattr(isolated, "_wait_for", remember)
    status, (report,) = compare(tmp_path, "--gemini-only", "--gemini-api-key", "sekret-123", "--char-count", "2000")
    assert status == 1
    assert report["models"][0]["error"] == "no network"
    assert seen["environment"]["GEMINI_API_KEY"] == "sekret-123"
    assert "gemini" in seen["asked"]
    assert "sekret-123" not in " ".join(seen["command"]) + seen["asked"]
    output = capsys.readouterr()
    assert "warning" in output.err
    assert "sekret-123" not in output.out + output.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"sekret-123" in path.read_bytes()]


def test_a_key_given_as_a_flag_reaches_the_service_and_nothing_else(tmp_path: Path, capfd, monkeypatch):
    """The whole path, child process included, with a service that quotes the key in its error and in its answer."""
    pytest.importorskip("google.genai")
    key = "AIza-flag-0123456789"
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ScriptedServer(
        [ScriptedStep(status=500, message=f"bad key {key}")], ScriptedStep(text=f"amber-falcon, by {key}")
    ) as server:
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.address)
        flags = (
            "--gemini-only",
            "--gemini-api-key",
            key,
            "--char-count",
            "2000",
            "--tokenizer",
            str(DEMO / "tokenizer"),
        )
        status, (report,) = compare(tmp_path, *flags)
    assert status == 0, report
    assert report["models"][0]["reply"] == "amber-falcon, by [key]"
    assert {headers["x-goog-api-key"] for _, headers, _ in server.asked} == {key}
    assert key not in "".join(capfd.readouterr())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if key.encode() in path.read_bytes()]


def test_flags_of_a_server_go_to_served_models_only():
    args = parsed("--base-url", "http://127.0.0.1:1/v1", "--chat-template", "off", "--device", "cpu")
    names = ("fake:any", "openai:m", "vllm:m", "transformers:m", "nanotron:m", "gemini:m")
    found = {name: model_comparison.named_contender(args, name) for name in names}
    off = PromptSettings(chat_template="off")
    assert found["fake:any"].settings == found["gemini:m"].settings == found["nanotron:m"].settings == ()
    assert found["openai:m"].settings == (off, RequestSettings(base_url="http://127.0.0.1:1/v1"))
    assert found["vllm:m"].settings == (off,)
    assert found["transformers:m"].settings == (off, LoadSettings())
    assert {name: one.weights.device for name, one in found.items() if one.weights.device} == {
        "transformers:m": "cpu",
        "nanotron:m": "cpu",
    }


def test_the_documents_constants(monkeypatch):
    monkeypatch.setenv("MODEL_ID", "some/model")
    monkeypatch.setenv("USE_4BIT_QUANTIZATION", "True")
    monkeypatch.setenv("ENABLE_CPU_OFFLOAD", "1")
    monkeypatch.setenv("MAX_GPU_MEMORY", "75GiB")
    args = parsed()
    contender = model_comparison.local_contender(args, args.llama_model)
    assert contender.model == "some/model"
    loading = LoadSettings(None, "75GiB", "offload_folder", "4bit")
    assert contender.settings == (PromptSettings(), loading)


@pytest.mark.parametrize(
    ("gpus", "arguments", "device_map"),
    [
        (0, [], None),
        (1, [], None),
        (2, [], "auto"),
        (2, ["--device", "cpu"], None),
        (2, ["--tp", "2"], None),
        (0, ["--device-map", "balanced"], "balanced"),
    ],
)
def test_a_device_map_where_it_is_asked_for_or_there_are_several_gpus(monkeypatch, gpus, arguments, device_map):
    found = [Gpu("H100", 81920, 0, "570")] * gpus
    monkeypatch.setattr(model_comparison, "find_gpus", lambda: found)
    args = parsed(*arguments)
    loading = model_comparison.local_contender(args, "some/model").settings[1]
    assert loading.device_map == device_map


@pytest.mark.parametrize(
    ("text", "characters"),
    [("10k", (10_000,)), ("10_000,100K", (10_000, 100_000)), ("8m", (8_000_000,)), ("2000", (2000,))],
)
def test_sizes_in_characters(monkeypatch, text, characters):
    assert model_comparison.sizes(text) == characters
    monkeypatch.setenv("TARGET_CHAR_COUNT", text)
    parser = make_parser()
    model_comparison.LONG_CONTEXT.add_arguments(parser)
    assert parser.parse_args([]).target_char_count == characters


@pytest.mark.parametrize(
    ("command", "name", "value", "valid"),
    [
        ("long-context", "TARGET_CHAR_COUNT", "10x", "10k"),
        ("long-context", "TARGET_CHAR_COUNT", "0", "10k"),
        ("model-comparison", "USE_4BIT_QUANTIZATION", "maybe", "yes, no"),
        ("long-context", "ENABLE_CPU_OFFLOAD", "2", "yes, no"),
    ],
)
def test_environment_variables_are_checked(monkeypatch, capsys, command, name, value, valid):
    monkeypatch.setenv(name, value)
    assert main([command]) == 2
    message = capsys.readouterr().err
    assert f"error: the environment variable {name}: {value!r}" in message and valid in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("arguments", "temperature"),
    [
        ([], 0.0),
        (["--do-sample"], 1.0),
        (["--temperature", "0.7"], 0.7),
        (["--do-sample", "--temperature", "0.2"], 0.2),
    ],
)
def test_how_tokens_are_drawn(arguments, temperature):
    assert model_comparison.draws(parsed(*arguments)).temperature == temperature


def test_memory_and_progress_are_shown_while_it_runs_and_recorded(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr(niah_comparison, "EVERY_S", 0.2)
    status, (report,) = compare(
        tmp_path, "--models", f"transformers:{LLAMA}", "--char-count", "2k", "--max-new-tokens", "4"
    )
    assert status == 0, report
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("comparing: 0/2,000 characters")]
    assert any("transformers-llama-demo at 2,000; " in line and "of the host's memory" in line for line in shown)
    (entry,) = report["models"]
    assert entry["watched_memory"]["host_peak_bytes"] > 50e6
    assert entry["memory"]["measured_bytes"] > 0


def test_a_model_spread_by_device_map_has_its_memory_recorded(tmp_path: Path):
    pytest.importorskip("accelerate")
    model, size = f"transformers:{LLAMA}", ("--char-count", "2k", "--device-map", "auto", "--max-new-tokens", "2")
    _, (answered,) = compare(tmp_path / "answered", "--models", model, *size)
    _, (loaded,) = compare(tmp_path / "loaded", "--models", model, *size, "--test-mode")
    (entry,), (tried,) = answered["models"], loaded["models"]
    assert entry["memory"]["measured_peak_bytes"] >= entry["memory"]["measured_bytes"] > 0
    assert "planned_bytes" not in entry["memory"]
    assert tried["loading"]["planned"] is None
    assert tried["loading"]["peak_bytes"] >= tried["loading"]["loaded_bytes"] > 0
    assert list(tried["loading"]["loaded_bytes_by_device"]) == ["cpu"]


def test_a_run_folder_without_answers_does_not_stand_in_the_way(tmp_path: Path, capsys):
    arguments = ("--models", "fake:any", "--char-count", "2000", "--tokenizer", str(DEMO))
    folder = tmp_path / "runs/fake-any-2000"
    assert compare(tmp_path, *arguments)[0] == 0
    for path in folder.glob("samples/*.jsonl"):
        path.write_text("")  # as a killed run leaves it
    status, reports = compare(tmp_path, *arguments, "--needle", "Another needle.", "--question", "Which?")
    assert status == 0, reports
    status, reports = compare(tmp_path, *arguments)  # other settings, and an answer
    assert status == 1
    assert "holds a run with other settings" in reports[-1]["models"][0]["error"]
    status, reports = compare(tmp_path, *arguments, "--overwrite")
    assert status == 0, reports


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "nobody:x"], "transformers"),
        (["--models", "fake"], "BACKEND:MODEL"),
        (["--llama-only", "--gemini-only"], "exclude"),
    ],
)
def test_wrong_input(tmp_path: Path, capsys, arguments: list[str], message: str):
    assert main(["model-comparison", "--results-dir", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err
