"""Failed samples: shown in every block and cell, and every claim holds however they would have been answered."""

from __future__ import annotations

import csv
import re

import pytest
from matplotlib.text import Text

from infini_eval.reports.analyze import analyze_run
from infini_eval.reports.page import page
from infini_eval.reports.plots import draw_by_depth, draw_by_length, draw_heatmap
from infini_eval.reports.text import render_quiet
from infini_eval.testing.fake_runs import FakeRun, write_fake_run

OUT_OF_MEMORY = FakeRun(
    lengths=(4096, 16384), depths=(0, 25, 50, 75, 100), per_cell=42, haystacks=42, accuracy=1.0,
    fails=lambda length, depth, number: length == 16384 and number % 2 == 1,
)  # fmt: skip
NONE_AT_16K = FakeRun(
    lengths=(4096, 16384), depths=(0, 50, 100), per_cell=40, haystacks=40, accuracy=1.0,
    fails=lambda length, depth, number: length == 16384,
)  # fmt: skip
A_WHOLE_DEPTH = FakeRun(depths=(0, 50, 100), per_cell=5, accuracy=1.0, fails=lambda length, depth, number: depth == 50)


def analysed(tmp_path, run, **options):
    return analyze_run(write_fake_run(tmp_path / "run", run), ascii_only=False, **options)


def test_half_of_the_long_samples_failed_and_nothing_is_claimed_for_them(tmp_path):
    found = analysed(tmp_path, OUT_OF_MEMORY)
    short, long = found.summary.to_json()["by_context_length"]
    stats = long["summary_stats"]
    assert (short["failed"], long["failed"], found.summary.to_json()["failed"]) == (0, 105, 105)
    assert (stats["average_accuracy"], stats["average_failed_as_wrong"]) == (100, 50)
    assert stats["bound_low"] < 50 and stats["bound_high"] == 100
    assert {cell["failed"] for cell in long["results_by_depth"]} == {21}
    assert {cell["accuracy_failed_as_wrong"] for cell in long["results_by_depth"]} == {50}
    assert not long["verdict"]["certain"]
    assert long["verdict"]["category"] == "POOR"
    assert long["headline"]["category"] == "UNDECIDED"
    assert found.summary.to_json()["headline"]["category"] == "UNDECIDED"
    assert long["performance"]["category"] != "EXCELLENT"
    assert short["headline"]["category"] == "EXCELLENT"
    effective = found.summary.to_json()["effective_context_length"]
    for bar in ("fixed", "relative"):
        assert (effective[bar]["at_least"], effective[bar]["estimate"], effective[bar]["below"]) == (4096, 4096, None)
        (open_length,) = effective[bar]["undecided"]
        assert open_length == {"context_length": 16384, "samples_needed": None, "failed": 105}


def test_the_story_in_words(tmp_path):
    found = analysed(tmp_path, OUT_OF_MEMORY)
    assert "at least 16384" not in found.text
    assert "16384 tokens: undecided; 105 failed samples have to be answered first" in found.text
    quiet = render_quiet(found.summary).splitlines()[1]
    assert "(n=105, 105 failed: 50.00% with them wrong)" in quiet and "UNDECIDED" in quiet
    assert re.search(r"16384 tokens: .* 100.00% \(n=105, 105 failed: 50.00% with them wrong\)", found.text)
    assert "(21/21, 21 failed: 50.0% with them wrong)" in found.text
    assert "--failed-as-wrong" in found.text
    assert "SEGMENT ANALYSIS (by real token spans) (answered samples only; 105 failed):" in found.text


def test_the_page_shows_the_bound_beside_the_accuracy(tmp_path):
    html = page(analysed(tmp_path, OUT_OF_MEMORY))
    assert "105 failed: 50.0 % with them wrong" in html
    assert "UNDECIDED" in html
    assert "at least 16384" not in html


def test_plots_name_the_failed_samples(tmp_path):
    found = analysed(tmp_path, OUT_OF_MEMORY)
    titles = [axes.get_title(loc="left") for axes in draw_by_depth(found.summary).axes]
    assert titles == ["4k tokens (n=210)", "16k tokens (n=105, 105 failed)"]
    legend = [text.get_text() for text in draw_by_length(found.summary).axes[0].get_legend().get_texts()]
    assert "failed samples counted as wrong" in legend
    assert {"100", "100*"} == {
        text.get_text() for text in draw_heatmap(found.summary).axes[0].texts if type(text) is Text
    }
    assert "* some samples failed" in draw_heatmap(found.summary).axes[0].get_xlabel()
    found.write_page()
    with (tmp_path / "run/plots/heatmap.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["failed"] for row in rows] == ["0"] * 5 + ["21"] * 5
    assert rows[-1]["accuracy_failed_as_wrong"] == "50"


def test_a_length_without_any_answer_is_a_block_of_its_own(tmp_path):
    found = analysed(tmp_path, NONE_AT_16K)
    short, long = found.summary.to_json()["by_context_length"]
    assert (long["context_length"], long["total_samples"], long["failed"]) == (16384, 0, 120)
    assert long["summary_stats"]["average_accuracy"] is None
    assert long["summary_stats"]["average_failed_as_wrong"] == 0
    assert (long["headline"]["category"], short["headline"]["category"]) == ("UNDECIDED", "EXCELLENT")
    fixed = found.summary.to_json()["effective_context_length"]["fixed"]
    assert (fixed["estimate"], fixed["below"], fixed["undecided"][0]["failed"]) == (4096, None, 120)
    assert "16384 tokens: no sample was answered (120 failed)" in render_quiet(found.summary)
    assert "no sample was answered (120 failed)" in found.text
    assert "no sample was answered" in page(found)
    found.write_page()


def test_a_depth_without_any_answer_is_a_cell(tmp_path):
    found = analysed(tmp_path, A_WHOLE_DEPTH)
    cell = found.summary.to_json()["results_by_depth"][1]
    assert (cell["depth_percent"], cell["num_samples"], cell["failed"], cell["accuracy"]) == (50, 0, 5, None)
    assert cell["accuracy_failed_as_wrong"] == 0
    stats = found.summary.to_json()["summary_stats"]
    assert (stats["average_accuracy"], stats["average_failed_as_wrong"]) == (100, pytest.approx(66.666667))
    assert "no answer (5 failed)" in found.text
    page(found)
    found.write_page()


def test_without_failures_the_bound_is_the_accuracy(tmp_path):
    stats = analysed(tmp_path, FakeRun(depths=(0, 50), per_cell=5, accuracy=0.6)).summary.to_json()["summary_stats"]
    assert stats["average_failed_as_wrong"] == stats["average_accuracy"]
    assert (stats["bound_low"], stats["bound_high"]) == (stats["average_ci_low"], stats["average_ci_high"])


def test_failures_counted_as_wrong_by_wish_are_wrong_answers(tmp_path):
    found = analysed(tmp_path, OUT_OF_MEMORY, failed_as_wrong=True)
    long = found.summary.to_json()["by_context_length"][1]
    assert (long["total_samples"], long["failed"], long["summary_stats"]["average_accuracy"]) == (210, 0, 50)
    assert found.summary.to_json()["effective_context_length"]["fixed"]["below"] == 16384
    assert "105 failed sample(s) are counted as wrong (--failed-as-wrong)" in found.text
