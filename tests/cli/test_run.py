"""`infini-eval run`: any backend from the command line, continued after a kill, wrong flags refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from infini_eval.cli.main import main
from support.limits import PROCESS_S
from support.scripted_server import ScriptedServer, ScriptedStep, prompt_of
from support.tiny_aa_lcr import write_tiny_aa_lcr

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
CHECKPOINT = ROOT / "checkpoints/infini-demo"


def arguments(backend: str, save_path: Path, *more: str, model: str = "scripted") -> list[str]:
    given = ["run", "--task", "passkey", "--backend", backend, "--model", model, "--save_path", str(save_path)]
    return [*given, "--eval_dataset_path", str(DATA), "--depths", "0,50,100", "--num_samples", "2", "--quiet", *more]


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for path in (folder / "samples").glob("*.jsonl") for line in path.read_text().splitlines()]


def test_the_whole_command_line_without_a_model(tmp_path, capsys) -> None:
    assert main(arguments("fake", tmp_path / "run", "--fake-near-miss-rate", "1")) == 0
    assert "fake (scripted)" in capsys.readouterr().out
    assert summary(tmp_path / "run")["summary_stats"]["average_accuracy"] == 0
    assert main(arguments("fake", tmp_path / "right")) == 0
    assert summary(tmp_path / "right")["total_samples"] == 6
    assert all(record["correct"] == 1 for record in records(tmp_path / "right"))


def test_own_rows_and_a_model_without_files(tmp_path, capsys) -> None:
    data = tmp_path / "own.csv"
    data.write_text("question,target,topic\nWho wrote it?,Ibsen,plays\nWhen?,1879,plays\n")
    given = ["run", "--task", "qa", "--model", "fake:any", "--save_path", str(tmp_path / "run"), "--quiet"]
    assert main([*given, "--eval_dataset_path", str(data)]) == 0
    said = capsys.readouterr()
    assert "were guessed: --columns prompt=question,answer=target" in said.err
    assert "all samples stand in one group" in said.out  # no depths are made up
    found = records(tmp_path / "run")
    assert [(r["answer"], r["topic"], r["correct"]) for r in sorted(found, key=lambda r: r["id"])] == [
        ("Ibsen", "plays", 1.0),
        ("1879", "plays", 1.0),
    ]
    assert main([*given, "--eval_dataset_path", str(data), "--columns", "prompt=question,answer=target"]) == 0
    assert len(records(tmp_path / "run")) == 2  # the guess and the flag are one run
    assert main([*given, "--eval_dataset_path", str(data), "--columns", "prompt=question,answer=topic"]) == 2
    assert main([*given, "--eval_dataset_path", str(tmp_path / "run")]) == 2
    assert "holds the results of a run, not data" in capsys.readouterr().err


def test_a_model_that_names_no_backend_is_a_message(tmp_path, capsys) -> None:
    given = ["run", "--task", "qa", "--model", "nobody", "--save_path", str(tmp_path), "--eval_dataset_path", str(DATA)]
    assert main(given) == 2
    assert "fake:any" in capsys.readouterr().err


def test_failed_samples_are_tried_again(tmp_path) -> None:
    assert main(arguments("fake", tmp_path / "run", "--fake-failure-rate", "0.5")) == 0
    failed = Counter(record["status"] for record in records(tmp_path / "run"))["failed"]
    assert 0 < failed < 6
    assert main(arguments("fake", tmp_path / "run")) == 0
    assert Counter(record["status"] for record in records(tmp_path / "run")) == {"failed": failed, "ok": 6}
    assert summary(tmp_path / "run")["total_samples"] == 6


def test_nanotron_through_the_general_command_is_the_passkey_command(tmp_path) -> None:
    assert main(arguments("nanotron", tmp_path / "general", "--device", "cpu", model=str(CHECKPOINT))) == 0
    passkey = ["passkey", "--ckpt-path", str(CHECKPOINT), *arguments("", tmp_path / "passkey")[7:], "--device", "cpu"]
    assert main(passkey) == 0
    texts = [
        sorted((r["sample_key"], r["generation_text"]) for r in records(tmp_path / name))
        for name in ("general", "passkey")
    ]
    assert texts[0] == texts[1]


def test_a_killed_run_asks_nothing_twice_that_was_answered(tmp_path) -> None:
    pytest.importorskip("openai")
    with ScriptedServer([ScriptedStep(), ScriptedStep()], otherwise=ScriptedStep(slow_s=3600.0)) as server:
        flags = ["--base-url", f"{server.address}/v1", "--concurrency", "2"]
        command = [sys.executable, "-m", "infini_eval", *arguments("openai", tmp_path / "run", *flags)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1", "OPENAI_API_KEY": "sk-0123456789"}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PROCESS_S
        while len(server.asked) < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        answered = {path.name for path in (tmp_path / "run" / "replies").rglob("*.json")}
        before = len(server.asked)
        server.otherwise = ScriptedStep()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PROCESS_S)
        assert done.returncode == 0, done.stderr
    times = Counter(prompt_of(body) for _, _, body in server.asked)
    assert (len(answered), before) == (2, 4), "it was killed in the middle"
    assert len(times) == 6 and len(server.asked) == before + 6 - len(answered)
    assert len({record["sample_key"] for record in records(tmp_path / "run")}) == len(records(tmp_path / "run")) == 6


@pytest.mark.distributed
def test_two_processes_share_the_questions(tmp_path) -> None:
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "infini_eval",
    ]
    flags = ["--fake-near-miss-rate", "0.5", "--batch_size", "1"]
    done = subprocess.run(
        [*launcher, *arguments("fake", tmp_path / "two", *flags, "--fake-seconds", "0.05")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PROCESS_S,
    )
    assert done.returncode == 0, done.stderr
    assert main(arguments("fake", tmp_path / "one", *flags)) == 0
    both = [
        sorted((r["sample_key"], r["generation_text"]) for r in records(tmp_path / name)) for name in ("one", "two")
    ]
    assert both[0] == both[1] and {record["replica"] for record in records(tmp_path / "two")} == {0, 1}


def status(argv: list[str]) -> int:
    """The exit status, of a value that argparse refuses too."""
    try:
        return main(argv)
    except SystemExit as ended:
        return int(ended.code or 0)


BAD_INPUT = {
    "backend": (["--backend", "nobody"], "unknown backend 'nobody'"),
    "task": (["--task", "nothing"], "unknown task 'nothing'"),
    "foreign flag": (["--base-url", "http://127.0.0.1:1/v1"], "--base-url: for servers, but the backend is fake"),
    "native flag": (["--memory", "off"], "--memory: for nanotron, but the backend is fake"),
    "rate": (["--fake-failure-rate", "7"], "--fake-failure-rate: '7' is not a share (valid: 0 to 1)"),
    "topology": (["--tp", "2"], "--tp 2"),
    "model": (["--backend", "transformers", "--model", "./nowhere"], "'./nowhere' is no model"),
    "kernel": (["--backend", "nanotron", "--attn-implementation", "eager"], "--attn-implementation eager"),
    "extra": (
        ["--backend", "openai", "--base-url", "http://127.0.0.1:1/v1", "--request-extra", "{"],
        "--request-extra",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gives_one_error_and_status_2(tmp_path, capsys, monkeypatch, case) -> None:
    if case == "extra":
        pytest.importorskip("openai")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    flags, message = BAD_INPUT[case]
    assert status(arguments("fake", tmp_path / "run", *flags)) == 2
    said = capsys.readouterr().err
    assert said.count("error: ") == 1 and message in said
    assert not (tmp_path / "run" / "samples.parquet").exists()


@pytest.mark.parametrize(("backend", "module"), [("openai", "openai"), ("gemini", "google.genai"), ("vllm", "vllm")])
def test_a_missing_package_prints_its_pip_line(tmp_path, capsys, monkeypatch, backend, module) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main(arguments(backend, tmp_path / "run", model=str(CHECKPOINT))) == 2
    assert f"pip install 'infini-eval[{backend}]'" in capsys.readouterr().err


def test_a_given_scorer_beats_the_tasks_own(tmp_path) -> None:
    assert main(arguments("fake", tmp_path / "run", "--scorer", "contains", "--max-new-tokens", "3")) == 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (manifest["identity"]["scorer"], manifest["identity"]["max_new_tokens"]) == ("contains", 3)


def test_load_reads_the_data_as_the_run_would(tmp_path, capsys) -> None:
    data = write_tiny_aa_lcr(tmp_path / "data")
    given = ["--task", "aa_lcr", "--backend", "fake", "--model", "m", "--eval_dataset_path", str(data)]
    assert main(["load", *given, "--save_path", str(tmp_path / "unused"), "--option", "repeats=2"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["prompts"] == 8
