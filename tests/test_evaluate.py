"""Whole evaluations of the shipped checkpoint through the real script: every topology, resuming, kills, bad input."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infini_eval.testing.limits import PROCESS_S

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "examples/infinite-context-length/scripts/run_passkey_eval.py"
CHECKPOINT = ROOT / "checkpoints/infini-demo"
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
TIMES = {"seconds", "replica"}
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_DEVICE_MAX_CONNECTIONS": "1"}


def command(save_path: Path, *flags: str, processes: int = 1, ckpt: Path = CHECKPOINT, data: Path = DATA) -> list[str]:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    given = ["--ckpt-path", str(ckpt), "--save_path", str(save_path), "--eval_dataset_path", str(data)]
    return [*launcher, str(SCRIPT), *given, "--depths", "0,50,100", "--num_samples", "4", "--device", "cpu", *flags]


def run(*args, expect: int = 0, **options) -> subprocess.CompletedProcess:
    done = subprocess.run(
        command(*args, **options), capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT, timeout=PROCESS_S
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def records(folder: Path) -> dict[str, dict]:
    """Every sample's record by key, without times and replica; a key that appears twice fails."""
    found: dict[str, dict] = {}
    for path in sorted((folder / "samples").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            assert record["sample_key"] not in found, "a sample appears twice"
            found[record["sample_key"]] = {key: value for key, value in record.items() if key not in TIMES}
    return found


def summary(folder: Path) -> dict:
    """summary.json without times and places."""
    whole = json.loads((folder / "summary.json").read_text())
    return {key: whole[key] for key in ("total_samples", "results_by_depth", "summary_stats", "segment_analysis")}


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "run"
    run(folder, "--results_file", str(folder.parent / "results" / "summary.json"))
    return folder


def test_one_process_leaves_a_complete_run_folder(reference: Path) -> None:
    assert {"manifest.json", "samples", "samples.parquet", "summary.json", "report.txt"} <= {
        p.name for p in reference.iterdir()
    }
    found = records(reference)
    assert len(found) == 12
    for record in found.values():
        assert "prompt" not in record and record["needle_token_end"] > record["needle_token_start"]
        assert record["compressions"] == record["question_segment"] - record["needle_segment"]
        assert record["answer"] in record["excerpt"]
        assert record["correct"] == record["exact_digits"]
    old = json.loads((reference.parent / "results" / "summary.json").read_text())
    assert old["evaluation_summary"]["total_samples"] == 12
    assert [entry["depth"] for entry in old["depth_results"]] == [0, 50, 100]


@pytest.mark.distributed
@pytest.mark.parametrize(
    "flags", ["--dp 2", "--dp 4", "--tp 2", "--tp 4", "--pp 2", "--pp 3", "--tp 2 --pp 2", "--dp 2 --tp 2"]
)
def test_records_are_the_same_at_every_topology(reference: Path, tmp_path, flags: str) -> None:
    sizes = dict(zip(flags.split()[::2], map(int, flags.split()[1::2]), strict=True))
    processes = sizes.get("--dp", 1) * sizes.get("--tp", 1) * sizes.get("--pp", 1)
    run(tmp_path / "run", *flags.split(), processes=processes)
    assert records(tmp_path / "run") == records(reference)
    assert summary(tmp_path / "run") == summary(reference)


def test_a_finished_run_is_not_computed_again(reference: Path) -> None:
    kept = [reference / "manifest.json", *sorted((reference / "samples").glob("*.jsonl"))]
    before = [path.read_bytes() for path in kept]
    done = run(reference)
    assert "12 of 12 are done" in done.stderr
    assert [path.read_bytes() for path in kept] == before


@pytest.mark.distributed
def test_killed_runs_continue_at_other_topologies(reference: Path, tmp_path) -> None:
    """SIGKILL at random moments, each time resumed with another mesh: nothing lost, nothing twice, the same summary."""
    folder, rng = tmp_path / "run", random.Random(0)
    for flags, processes in ((["--dp", "2"], 2), (["--pp", "2"], 2), (["--batch_size", "1"], 1)):
        started = command(folder, *flags, processes=processes)
        with subprocess.Popen(
            started, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT, start_new_session=True
        ) as process:
            deadline = time.monotonic() + PROCESS_S
            before = _lines(folder)
            while process.poll() is None and _lines(folder) == before and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(rng.random() * 0.3)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    run(folder, "--tp", "2", processes=2)
    assert records(folder) == records(reference)
    assert summary(folder) == summary(reference)


def _lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("samples/*.jsonl"))


BAD_INPUT = {
    "checkpoint": (["--ckpt-path", "nowhere/1"], "checkpoint not found: nowhere/1"),
    "data": (["--eval_dataset_path", "nowhere.parquet"], "nowhere.parquet"),
    "scorer": (["--scorer", "nearly"], "unknown scorer 'nearly'"),
    "empty filter": (["--num_digits", "9"], "num_digits"),
    "topology": (["--tp", "8"], "tp=8"),
    "depths": (["--depths", "0,101"], "outside 0..100"),
    "memory": (["--memory", "maybe"], "maybe"),
    "flash": (["--attn-implementation", "flash_attn"], "flash-attn"),
    "temperature": (["--temperature", "-1"], "temperature"),
    "tokenizer": (["--tokenizer", "./nowhere"], "./nowhere"),
    "prefix cache": (["--prefix-cache-gb", "lots"], "'lots' is not a number of gigabytes"),
    "abbreviation": (["--num_samp", "3"], "--num_samp"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gives_one_error_and_status_2(tmp_path, case: str) -> None:
    flags, message = BAD_INPUT[case]
    done = run(tmp_path / "run", *flags, expect=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "samples.parquet").exists()


def test_another_setting_in_the_same_folder_is_refused(reference: Path) -> None:
    done = run(reference, "--memory", "ablate", expect=2)
    assert "model.memory" in done.stderr and "ablate" in done.stderr


HELP = """
import sys
from infini_eval.cli.main import run_command
try:
    run_command("passkey", ["--help"])
except SystemExit:
    print("torch" in sys.modules)
"""


def test_help_does_not_import_torch() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, timeout=PROCESS_S)
    assert done.stdout.strip().endswith("False")


REUSED = {"reused_tokens"}


@pytest.fixture(scope="module")
def shared_haystack(tmp_path_factory) -> tuple[Path, dict[str, dict]]:
    """A data set whose prompts share one haystack, and its records where each prompt is read whole."""
    from infini_eval.cli.main import run_command

    folder = tmp_path_factory.mktemp("shared")
    flags = ["--tokenizer", str(CHECKPOINT), "--context_length", "1020", "--depth_percent", "0", "50", "100"]
    flags += ["--num_prompts", "4", "--num_digits", "4", "--haystack-per", "run", "--quiet"]
    assert run_command("generate", [*flags, "--save_path", str(folder / "data")]) == 0
    run(folder / "cold", "--prefix-cache-gb", "0", data=folder / "data")
    cold = records(folder / "cold")
    assert len(cold) == 12 and all(record["reused_tokens"] == 0 for record in cold.values())
    return folder / "data", cold


def answered(found: dict[str, dict]) -> dict[str, dict]:
    return {key: {name: record[name] for name in record.keys() - REUSED} for key, record in found.items()}


@pytest.mark.distributed
@pytest.mark.parametrize("flags", ["--batch_size 4", "--dp 2", "--tp 2", "--pp 2"])
def test_shared_prefixes_leave_the_records_of_whole_prompts(shared_haystack, tmp_path, flags: str) -> None:
    data, cold = shared_haystack
    done = run(tmp_path / "run", *flags.split(), processes=1 if "batch" in flags else 2, data=data)
    warm = records(tmp_path / "run")
    assert answered(warm) == answered(cold)
    assert sum(record["reused_tokens"] for record in warm.values()) > 3000
    assert "samples with shared prefixes at" in done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["timing"]
    assert summary["warm"]["samples"] + summary["cold"]["samples"] == 12
    assert summary["warm"]["reused_tokens"] == sum(record["reused_tokens"] for record in warm.values())


@pytest.mark.distributed
def test_a_run_continues_with_and_without_shared_prefixes(shared_haystack, tmp_path) -> None:
    data, cold = shared_haystack
    folder = tmp_path / "run"
    run(folder, data=data)
    kept = 5
    for path in sorted((folder / "samples").glob("*.jsonl")):
        path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines()[:kept]))
    run(folder, "--prefix-cache-gb", "0", "--dp", "2", processes=2, data=data)
    assert answered(records(folder)) == answered(cold)
    environment = json.loads((folder / "manifest.json").read_text())["environment"]
    assert environment["prefix_cache_gb"] == 0
