"""The average over tasks: only several tasks of one model give it, with an interval that holds for shared haystacks."""

from __future__ import annotations

import json

import pytest

from infini_eval.cli.main import main
from infini_eval.reports.analyze import analyze_run
from infini_eval.reports.over_tasks import over_tasks, render
from infini_eval.testing.fake_runs import FakeRun, write_fake_run

TASKS = ("ruler_niah_single_1", "ruler_vt", "ruler_cwe")
LENGTHS = (4096, 8192)


def task_run(task: str, **changes) -> FakeRun:
    settings = {"lengths": LENGTHS, "depths": (0, 50), "per_cell": 50, "haystacks": 50, "accuracy": 1.0, **changes}
    return FakeRun(identity={"task": task, **settings.pop("identity", {})}, **settings)


def analysed(tmp_path, *runs: FakeRun):
    return [analyze_run(write_fake_run(tmp_path / f"run{number}", run)) for number, run in enumerate(runs)]


def with_own_haystacks(folder, prefix):
    path = folder / "samples" / "replica0.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        record["haystack_id"] = f"{prefix}-{record['haystack_id']}"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return analyze_run(folder)


def test_the_mean_over_tasks_by_length(tmp_path):
    falls = lambda length, depth, compressions: 1.0 if length == 4096 else 0.0  # noqa: E731
    runs = analysed(tmp_path, *(task_run(task) for task in TASKS[:2]), task_run(TASKS[2], accuracy=falls))
    (found,) = over_tasks(runs)
    assert found.tasks == tuple(sorted(TASKS))
    values = [block.summary_stats.average_accuracy for block in found.by_context_length]
    assert values == pytest.approx([100, 200 / 3])
    effective = found.effective_context_length
    assert effective.name == "effective context length of the average over 3 tasks (RULER-like)"
    assert (effective.fixed.at_least, effective.fixed.below) == (4096, 8192)
    assert "RULER-like" in render(found) and "(RULER averages its 13 tasks; these are 3)" in render(found)


def test_tasks_on_their_own_haystacks_add_up_in_squares(tmp_path):
    folders = [write_fake_run(tmp_path / task, task_run(task, accuracy=0.8, seed=n)) for n, task in enumerate(TASKS)]
    shared = over_tasks([analyze_run(folder) for folder in folders])[0].by_context_length[0]
    own = over_tasks([with_own_haystacks(folder, folder.name) for folder in folders])[0].by_context_length[0]
    parts = [analyze_run(folder).summary.by_context_length[0].summary_stats for folder in folders]
    down = [part.average_accuracy - part.average_ci_low for part in parts]
    mean = sum(part.average_accuracy for part in parts) / 3
    assert own.summary_stats.bound_low == pytest.approx(mean - sum(d * d for d in down) ** 0.5 / 3, abs=1e-4)
    assert shared.summary_stats.bound_low == pytest.approx(mean - sum(down) / 3, abs=1e-4)
    assert "independent" in own.summary_stats.ci_method and "shared" in shared.summary_stats.ci_method


def test_failed_samples_widen_the_average_too(tmp_path):
    fails = {"fails": lambda length, depth, number: length == 8192}
    (found,) = over_tasks(analysed(tmp_path, task_run(TASKS[0]), task_run(TASKS[1], **fails)))
    stats = found.by_context_length[1].summary_stats
    assert stats.average_accuracy is None
    assert (stats.average_failed_as_wrong, stats.average_failed_as_right) == (50, 100)
    assert found.effective_context_length.fixed.at_least == 4096
    assert found.effective_context_length.fixed.undecided[0].failed == 100
    assert "100 failed: 50.00% with them wrong" in render(found)


def test_lengths_that_a_task_lacks_are_left_out_and_named(tmp_path):
    (found,) = over_tasks(analysed(tmp_path, task_run(TASKS[0]), task_run(TASKS[1], lengths=(4096,))))
    assert [block.context_length for block in found.by_context_length] == [4096]
    assert found.left_out == ("8192 tokens: measured for 1 of 2 tasks (ruler_niah_single_1)",)


def test_one_task_or_several_models_give_no_average(tmp_path):
    same = task_run(TASKS[0])
    other = task_run(TASKS[1], identity={"checkpoint": {"path": "checkpoints/other/200"}})
    assert over_tasks(analysed(tmp_path, same)) == []
    assert over_tasks(analysed(tmp_path, same, other)) == []


def test_which_of_two_runs_counts_is_not_chosen(tmp_path):
    (found,) = over_tasks(analysed(tmp_path, task_run(TASKS[0]), task_run(TASKS[0], seed=5), task_run(TASKS[1])))
    assert (found.by_context_length, found.effective_context_length) == ((), None)
    assert "is in 2 runs" in found.left_out[0]


def test_the_command_prints_it(tmp_path, capsys):
    analysed(tmp_path, task_run(TASKS[0]), task_run(TASKS[1]))
    assert main(["analyze", str(tmp_path), "--quiet", "--ascii"]) == 0
    assert "AVERAGE OVER 2 TASKS" in capsys.readouterr().out
    assert main(["analyze", str(tmp_path), "--json-only"]) == 0
    assert json.loads(capsys.readouterr().out)["over_tasks"][0]["tasks"] == ["ruler_niah_single_1", "ruler_vt"]
