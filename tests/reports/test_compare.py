"""Comparing runs: pairing, refusal of different data, output."""

from __future__ import annotations

import json

import pytest

from infini_eval.errors import ConfigError, DataError
from infini_eval.reports.compare import compare_runs, render, write
from infini_eval.testing.fake_runs import FakeRun, write_fake_run

DATA = {"lengths": (1024, 2048), "depths": (0, 50, 100), "per_cell": 8, "haystacks": 8, "seed": 6}


def no_memory(length: int, depth: float, compressions: int) -> float:
    return 0.95 if compressions == 0 else 0.0


@pytest.fixture
def runs(tmp_path):
    on = write_fake_run(tmp_path / "on", FakeRun(accuracy=0.95, **DATA))
    off = write_fake_run(
        tmp_path / "ablate", FakeRun(accuracy=no_memory, model={"memory": "ablate"}, model_seed=1, **DATA)
    )
    return on, off


def test_memory_on_against_ablated(runs):
    found = compare_runs(runs)
    (comparison,) = found.comparisons
    overall = comparison.overall
    assert overall.n == 48
    assert overall.high < -30
    assert overall.p == pytest.approx(2 / 2**8)
    assert "B is worse than A" in comparison.conclusion
    assert [row.context_length for row in comparison.by_context_length] == [1024, 2048]
    assert abs(comparison.by_depth[-1].difference) < 40
    text = render(found)
    assert "memory ablate" in text
    assert "sign-flip over 8 haystacks" in text


def test_a_run_does_not_differ_from_itself(runs):
    (comparison,) = compare_runs([runs[0], runs[0]]).comparisons
    assert comparison.overall.difference == 0
    assert comparison.conclusion == "no clear difference between A and B"


def test_on_one_haystack_nothing_is_better(tmp_path):
    data = {**DATA, "haystacks": 1}
    one = write_fake_run(tmp_path / "one", FakeRun(accuracy=0.95, **data))
    other = write_fake_run(tmp_path / "other", FakeRun(accuracy=0.1, model_seed=1, **data))
    found = compare_runs([one, other, one])
    first, second = found.comparisons
    assert first.overall.p is None and first.overall.p_holm is None
    assert first.overall.high < -50
    assert first.conclusion.startswith("on this haystack only: B - A is -")
    assert second.conclusion.startswith("on this haystack only: C - A is +0.0")
    text = render(found)
    assert "better" not in text and "worse" not in text
    assert "None" not in text
    write(found, tmp_path / "out")


def test_an_interrupted_run_is_paired_on_what_it_has(tmp_path, runs):
    part = write_fake_run(tmp_path / "part", FakeRun(accuracy=0.9, model_seed=2, **DATA), keep=20)
    (comparison,) = compare_runs([runs[0], part]).comparisons
    assert comparison.overall.n == 20
    assert "28 sample(s)" in comparison.notes[0]


def test_different_data_are_refused_and_the_difference_is_named(tmp_path, runs):
    other = write_fake_run(tmp_path / "other", FakeRun(lengths=(1024,), depths=(0, 25), per_cell=8, seed=7))
    with pytest.raises(DataError) as caught:
        compare_runs([runs[0], other])
    problem = caught.value.problem
    assert "samples in common: 0 of 48 and 16" in problem
    assert "context lengths: 1024, 2048 -> 1024" in problem
    assert "depths: 0, 50, 100 -> 0, 25" in problem
    assert "data.fingerprint" in problem


def test_different_scorers_are_refused(tmp_path, runs):
    other = write_fake_run(tmp_path / "other", FakeRun(identity={"scorer": "contains"}, **DATA))
    with pytest.raises(DataError, match="judged by exact_digits"):
        compare_runs([runs[0], other])


def test_records_without_keys_are_refused(tmp_path, runs):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "a.csv").write_text("depth_percent,answer,generation_text\n0,12,12\n")
    with pytest.raises(DataError, match="nothing says which samples are the same"):
        compare_runs([runs[0], tmp_path / "foreign"])


def test_several_comparisons_are_adjusted(runs):
    comparisons = compare_runs([runs[0], runs[1], runs[1]]).comparisons
    assert [c.overall.p_holm for c in comparisons] == [2 * c.overall.p for c in comparisons]


def test_one_folder_is_not_enough(runs):
    with pytest.raises(ConfigError):
        compare_runs(runs[:1])


def test_write(tmp_path, runs):
    found = compare_runs(runs)
    names = [path.name for path in write(found, tmp_path / "out")]
    assert names == ["compare.json", "compare.txt", "compare.png", "compare.csv"]
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == found.to_json()
    assert (tmp_path / "out/plots/compare.csv").read_text().count("\n") == 4
