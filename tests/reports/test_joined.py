"""Runs that differ only in length or depth are one run to every report; of others is said what differs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infini_eval.reports.analyze import analyze_run
from infini_eval.reports.joined import NotJoined, brief, join_runs
from infini_eval.reports.model import to_text
from infini_eval.reports.page import page
from infini_eval.reports.payload import RunFiles, run_row
from infini_eval.testing.fake_runs import FakeRun, write_fake_run

WHOLE = FakeRun(lengths=(512, 1024, 4096), depths=(0, 50, 100), per_cell=6, accuracy=1.0, haystacks=6, seed=3)


def parts(root: Path, key: str, values, **changes) -> list:
    """One run for each of the values of `key`, in folders of their own."""
    runs = []
    for value in values:
        settings = {**vars(WHOLE), **changes, key: (value,)}
        runs.append(analyze_run(write_fake_run(root / f"{value:g}", FakeRun(**settings)), ascii_only=False))
    return runs


def test_runs_of_one_length_each_make_the_summary_of_their_union(tmp_path):
    runs = parts(tmp_path, "lengths", WHOLE.lengths)
    joined = join_runs(runs, tmp_path)
    assert [block.context_length for block in joined.summary.by_context_length] == [512, 1024, 4096]
    assert list(joined.summary.by_context_length) == [run.summary.by_context_length[0] for run in runs]
    assert joined.summary.total_samples == 54 and joined.summary.samples_planned == 54 and joined.summary.complete
    assert joined.summary.effective_context_length.relative is not None, "a bar that needs several lengths"
    assert "ALL CONTEXT LENGTHS" in joined.text
    assert any("3 runs joined: 512, 1024, 4096" in note for note in joined.summary.notes)


def test_runs_of_one_depth_each_make_one_length(tmp_path):
    runs = parts(tmp_path, "depths", (0, 50, 100), lengths=(1024,))
    joined = join_runs(runs, tmp_path)
    assert joined.summary.context_length == 1024
    assert [cell.depth_percent for cell in joined.summary.results_by_depth] == [0, 50, 100]


def test_the_joined_run_is_written_and_shown_like_any_other(tmp_path):
    joined = join_runs(parts(tmp_path, "lengths", (512, 1024)), tmp_path)
    assert [path.name for path in joined.write()] == ["summary.json", "report.txt"]
    assert json.loads((tmp_path / "summary.json").read_text())["run"]["folder"] == tmp_path.name
    files = RunFiles(joined, run_row(joined, "run", "both"), limit=100)
    assert len(files.table) == 36
    assert all(text["excerpt"] for text in files.table.texts([0, 35])), "the samples of every run have their words"
    assert "PASSKEY" in page(joined).upper()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"memory": "ablate"}}, "memory: on (a); ablate (b)"),
        ({"identity": {"seed": 7}}, "seed: 42 (a); 7 (b)"),
        ({"name": "another model"}, "model: 0.7M Infini-Attention (a); another model (b)"),
    ],
)
def test_what_differs_is_said(tmp_path, changes, said):
    a = analyze_run(write_fake_run(tmp_path / "a", FakeRun(lengths=(512,), per_cell=2)))
    b = analyze_run(write_fake_run(tmp_path / "b", FakeRun(lengths=(1024,), per_cell=2, **changes)))
    found = join_runs([a, b], tmp_path)
    assert isinstance(found, NotJoined)
    assert said in found.reasons


def test_two_runs_of_one_length_and_depth_are_not_added_up(tmp_path):
    runs = [
        analyze_run(write_fake_run(tmp_path / name, FakeRun(depths=(0, 50), per_cell=2, seed=seed)))
        for seed, name in enumerate("ab")
    ]
    found = join_runs(runs, tmp_path)
    assert isinstance(found, NotJoined)
    assert found.reasons == ("1024 tokens at depth 0 % is in several runs: a, b",)


def test_the_number_of_samples_may_differ(tmp_path):
    a = analyze_run(write_fake_run(tmp_path / "a", FakeRun(lengths=(512,), per_cell=5)))
    b = analyze_run(write_fake_run(tmp_path / "b", FakeRun(lengths=(1024,), per_cell=2)))
    assert join_runs([a, b], tmp_path).summary.total_samples == 7 * 21


def test_an_unfinished_part_makes_an_unfinished_whole(tmp_path):
    a = analyze_run(write_fake_run(tmp_path / "a", FakeRun(lengths=(512,), per_cell=2)))
    b = analyze_run(write_fake_run(tmp_path / "b", FakeRun(lengths=(1024,), per_cell=2), keep=40))
    joined = join_runs([a, b], tmp_path)
    assert joined.summary.complete is False
    assert "INCOMPLETE: 82 of 84" in joined.text


def test_a_run_in_brief(tmp_path):
    run = analyze_run(write_fake_run(tmp_path / "a", WHOLE))
    short = json.loads(to_text(brief(run)))
    assert short["folder"] == str(tmp_path / "a")
    assert [line["context_length"] for line in short["by_context_length"]] == [512, 1024, 4096]
    first, block = short["by_context_length"][0], run.summary.by_context_length[0]
    assert first["accuracy"] == block.summary_stats.average_accuracy
    assert (first["num_samples"], first["failed"], first["verdict"]) == (18, 0, block.headline.category)
    assert "results_by_depth" not in to_text(brief(run))
