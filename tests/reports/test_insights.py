"""Advice appears where the evidence is, and only there."""

from __future__ import annotations

from dataclasses import replace

from infini_eval.reports.analyze import analyze_run
from infini_eval.reports.model import Errors, LengthSummary, Share
from infini_eval.reports.summary import advice as advice_of
from infini_eval.testing.fake_runs import FakeRun, write_fake_run


def advice(tmp_path, run: FakeRun) -> str:
    return " ".join(analyze_run(write_fake_run(tmp_path, run)).summary.to_json()["by_context_length"][-1]["advice"])


def weak_memory(length: int, depth: float, compressions: int) -> float:
    return 1.0 if compressions == 0 else 0.2


def test_a_weak_memory_is_named(tmp_path):
    assert "memory is the weak part" in advice(tmp_path, FakeRun(accuracy=weak_memory))


def test_advice_from_one_haystack_says_so(tmp_path):
    assert "only)" not in advice(tmp_path / "many", FakeRun(accuracy=weak_memory))
    assert "own (on this haystack only): the memory" in advice(
        tmp_path / "one", FakeRun(accuracy=weak_memory, haystacks=1)
    )


def test_no_advice_where_luck_of_few_haystacks_may_be_the_reason(tmp_path):
    """Six needles a segment in each of two haystacks: what looks like 24 answers are two."""
    assert "memory" not in advice(tmp_path, FakeRun(accuracy=weak_memory, haystacks=2, depths=(0, 50, 100), per_cell=8))


def test_an_ablated_memory_is_not_advised_on(tmp_path):
    assert "memory" not in advice(tmp_path, FakeRun(accuracy=weak_memory, model={"memory": "ablate"}))


def test_a_good_run_gets_no_advice(tmp_path):
    assert advice(tmp_path, FakeRun(accuracy=0.97)) == ""


def block(tmp_path, inside: tuple, crossing: tuple, **errors) -> LengthSummary:
    """The summary of a run whose answers inside and across segments, and kinds of errors, are these."""
    run = analyze_run(write_fake_run(tmp_path, FakeRun(accuracy=0.9, jitter=True))).summary
    unknown = Share(None, 0, 0, None, None)
    phases = replace(
        run.phase_analysis,
        answer_inside_segment=Share(None, 9, 0, *inside),
        answer_crosses_border=Share(None, 9, 0, *crossing),
    )
    return replace(
        run.by_context_length[0],
        segment_analysis=replace(run.segment_analysis, cross_segment=unknown, within_segment=unknown),
        phase_analysis=phases,
        errors=Errors(
            20, 20, **{"kinds": {}, "first_wrong_digit": {}, "cut_short_by_max_new_tokens": 0, **errors}, by_depth=()
        ),
    )


def test_a_border_is_named_only_where_the_intervals_part(tmp_path):
    assert "over a segment border" in advice_of(block(tmp_path, (95, 99), (60, 80)), "on")[0]
    assert advice_of(block(tmp_path, (75, 99), (60, 80)), "on") == []


def test_silence_and_the_token_limit_are_named(tmp_path):
    assert "tokenizer" in advice_of(block(tmp_path, (0, 9), (0, 9), kinds={"empty": 9, "no_number": 5}), "on")[0]
    assert "--max-new-tokens" in advice_of(block(tmp_path, (0, 9), (0, 9), cut_short_by_max_new_tokens=5), "on")[0]


def test_answers_over_a_border_are_not_named_where_they_are_alike(tmp_path):
    found = analyze_run(write_fake_run(tmp_path, FakeRun(accuracy=0.9, jitter=True, per_cell=20))).summary.to_json()
    assert found["phase_analysis"]["answer_inside_segment"]["num_samples"] > 0
    assert not any("over a segment border" in line for line in found["advice"])


def test_wrong_answers_are_counted_by_depth(tmp_path):
    run = FakeRun(depths=(0, 50, 100), per_cell=12, accuracy=lambda length, depth, compressions: depth / 100)
    summary = analyze_run(write_fake_run(tmp_path, run)).summary.to_json()
    by_depth = {cell["depth_percent"]: sum(cell["kinds"].values()) for cell in summary["errors"]["by_depth"]}
    cells = summary["results_by_depth"]
    expected = {c["depth_percent"]: c["num_samples"] - c["correct"] for c in cells if c["correct"] < c["num_samples"]}
    assert by_depth == expected
    assert by_depth[0] == 12
    assert 100 not in by_depth


def test_one_length_has_no_relative_bar(tmp_path):
    found = analyze_run(write_fake_run(tmp_path, FakeRun(accuracy=0.1))).summary.to_json()["effective_context_length"]
    assert found["relative"] is None
    assert found["fixed"]["below"] == 1024
