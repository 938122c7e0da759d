"""run_evals.py: trials of exact length, one run folder, resumed by the same command; errors before anything is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from infini_eval.testing.limits import PROCESS_S

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples/infinite-context-length/run_evals.py"


def run(*flags: str, expect: int = 0, processes: int = 1) -> subprocess.CompletedProcess:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    given = ["--ckpt-path", str(ROOT / "checkpoints/infini-demo"), "--device", "cpu", *flags]
    done = subprocess.run([*launcher, str(SCRIPT), *given], capture_output=True, text=True, timeout=PROCESS_S)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def test_a_grid_is_one_run_of_exact_lengths(tmp_path: Path) -> None:
    trials = ["--context_length", "512", "1k", "--depth_percent", "25", "100", "--num_shots", "3", "--num_digits", "4"]
    done = run(*trials, "--save_path", str(tmp_path / "run"), processes=2)
    assert "input: " in done.stderr and "generation: " in done.stderr
    lines = [line for path in (tmp_path / "run/samples").glob("*.jsonl") for line in path.read_text().splitlines()]
    cells = [(record["prompt_tokens"], record["depth_percent"]) for record in map(json.loads, lines)]
    assert sorted(set(cells)) == [(512, 25), (512, 100), (1024, 25), (1024, 100)] and len(cells) == 12
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert [block["context_length"] for block in summary["by_context_length"]] == [512, 1024]
    again = run(*trials, "--save_path", str(tmp_path / "run"))
    assert "12 of 12 are done" in again.stderr


def test_a_depth_outside_the_haystack_is_refused() -> None:
    done = run("--context_length", "512", "--depth_percent", "101", "--num_shots", "1", "--num_digits", "4", expect=2)
    assert "outside 0..100" in done.stderr and "Traceback" not in done.stderr


def test_a_context_too_short_for_the_question_is_refused(tmp_path: Path) -> None:
    trials = ["--context_length", "20", "--depth_percent", "50", "--num_shots", "1", "--num_digits", "4"]
    done = run(*trials, "--save_path", str(tmp_path / "run"), expect=2)
    assert "20" in done.stderr and "Traceback" not in done.stderr
