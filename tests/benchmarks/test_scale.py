"""The benchmarks of scale: curves, topologies, and two states of the repository, at toy size; nothing here is timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the package `benchmarks` is not installed

from benchmarks import _queue, before_after, scale, topology  # noqa: E402
from benchmarks._harness import WrongAnswer  # noqa: E402


def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_line_is_found_and_its_deviation_told() -> None:
    line = scale.fit([1, 2, 4], [5, 8, 14], relative=True)
    assert (line.slope, line.intercept) == pytest.approx((3, 2))
    assert line.r2 == pytest.approx(1)
    assert line.deviation == pytest.approx(0, abs=1e-9)
    bent = scale.fit([1, 2, 4, 8], [1, 4, 16, 64], relative=True)
    assert bent.deviation > 0.3


@pytest.mark.slow
def test_the_curves_are_measured_and_drawn(tmp_path) -> None:
    done = run_module("benchmarks.scale", "--toy", "--plot", str(tmp_path / "curves.png"))
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert [point["tokens"] for point in summary["points"]] == list(scale.TOY_LENGTHS)
    assert all(point["found"] and point["prefill_seconds"] > 0 for point in summary["points"])
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.distributed
@pytest.mark.slow
def test_topologies_answer_as_one_process() -> None:
    done = run_module("benchmarks.topology", "--toy")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    rows = {(row["model"], row["axis"]): row for row in summary["rows"]}
    assert len(rows) == 2 * len(topology.AXES)
    assert rows["shipped", "dp2"]["calls"] == 0
    assert rows["shipped", "tp2"]["calls"] > 0
    assert rows["shipped", "pp2"]["megabytes"] > 0


def test_the_queue_is_simulated() -> None:
    assert _queue.makespan([3, 3, 2, 2, 2], [0, 1, 2, 3, 4], 2) == 7
    assert _queue.makespan([4, 1, 1], [0, 1, 2], 8) == 4
    assert _queue.stretch([1.0], 4) == pytest.approx(4)
    assert _queue.stretch([1.0] * 800, 8) < 1.02


def outcome(**answers: tuple[str, float | None]) -> before_after.Outcome:
    return before_after.Outcome(1.0, 1.0, dict(answers))


def test_answers_of_two_states_are_compared() -> None:
    before = outcome(a=("123 and more", 1.0), b=("7", 0.0))
    assert before_after.compared(before, before) == 0
    assert before_after.compared(before, outcome(a=("123", 1.0), b=("7", 0.0))) == 1
    assert before.accuracy == 0.5
    for other in (
        outcome(a=("124 and more", 1.0), b=("7", 0.0)),
        outcome(a=("", 1.0), b=("7", 0.0)),
        outcome(a=("123", 0.0), b=("7", 0.0)),
        outcome(a=("123", 1.0)),
    ):
        with pytest.raises(WrongAnswer):
            before_after.compared(before, other)
    with pytest.raises(WrongAnswer):
        _ = outcome(a=("123", None)).accuracy


def test_an_unknown_reference_is_refused() -> None:
    done = run_module("benchmarks.before_after", "--before", "no-such-reference", "--toy")
    assert done.returncode == 1
    assert "no-such-reference" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_state_is_compared_with_the_working_tree() -> None:
    inside = subprocess.run(["git", "rev-parse", "--verify", "HEAD"], cwd=ROOT, capture_output=True)
    if inside.returncode:
        pytest.skip("not a git checkout")
    done = run_module("benchmarks.before_after", "--before", "HEAD", "--toy")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith(("| own", "| shared"))]
    assert len(rows) == 2
    assert all("all 11" in line for line in rows)
    listed = subprocess.run(["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True).stdout
    assert "infini-bench-" not in listed
