"""What a report claims in large: one verdict, for this task and this model, and none where nothing was measured."""

from __future__ import annotations

from infini_eval.reports.analyze import analyze_run
from infini_eval.reports.page import card, page
from infini_eval.reports.text import render_quiet
from infini_eval.testing.fake_runs import FakeRun, write_fake_run

LENGTHS = (1024, 4096, 32768)


def analysed(tmp_path, run):
    return analyze_run(write_fake_run(tmp_path / "run", run), ascii_only=False)


def test_one_sample_is_neither_excellent_nor_consistent(tmp_path):
    found = analysed(tmp_path, FakeRun(depths=(50,), per_cell=1, accuracy=1.0))
    assert found.summary.to_json()["summary_stats"]["average_accuracy"] == 100
    assert found.summary.to_json()["headline"]["words"] == "UNDECIDED (POOR to EXCELLENT)"
    assert (
        found.summary.to_json()["performance"]["category"],
        found.summary.to_json()["performance"]["consistency"],
    ) == (
        "UNDECIDED",
        "UNKNOWN",
    )
    for shown in (found.text, render_quiet(found.summary), card(found.summary)):
        assert "CONSISTENT" not in shown
        assert "UNDECIDED (POOR to EXCELLENT)" in shown
        assert "✓" not in shown


def test_a_single_depth_has_no_consistency(tmp_path):
    found = analysed(tmp_path, FakeRun(depths=(50,), per_cell=40, haystacks=40, accuracy=1.0))
    assert found.summary.to_json()["headline"]["words"] == "EXCELLENT"
    assert "CONSISTENT" not in found.text


def test_two_rules_that_disagree_are_one_headline_and_small_print(tmp_path):
    fair = FakeRun(lengths=LENGTHS, depths=(0, 50, 100), per_cell=200, haystacks=200, accuracy=0.75)
    found = analysed(tmp_path, fair)
    assert found.summary.to_json()["verdict"]["category"] == "FAIR"
    assert found.summary.to_json()["performance"]["category"] in ("EXCELLENT", "VERY_GOOD")
    marked = [line for line in found.text.splitlines() if line.startswith(("✓", "⚠", "✗", "?"))]
    assert len(marked) == 3 and all("FAIR" in line for line in marked)
    older = found.summary.to_json()["performance"]["category"]
    assert f"(older rule, bar lowered by min(20, 5 x segments) beyond one segment: {older}" in found.text
    html = card(found.summary)
    assert 'class="good"><strong>' not in html
    assert html.count(older) == 1


def test_a_model_without_segments_hears_nothing_of_them(tmp_path):
    found = analysed(tmp_path, FakeRun(segment_length=None, name="Llama", depths=(0, 50), accuracy=0.9))
    assert "segment" not in found.text.lower()
    assert "segment" not in found.summary.to_json()["performance"]["message"]
    assert "<th>segments</th>" not in card(found.summary)


def test_other_tasks_have_no_passkey_expectations(tmp_path):
    run = FakeRun(lengths=LENGTHS, depths=(0, 50), identity={"task": "ruler_vt", "scorer": "string_match_all"})
    found = analysed(tmp_path, run)
    assert all(block["verdict"]["expectation"] is None for block in found.summary.to_json()["by_context_length"])
    assert found.summary.to_json()["long_context"] is None
    html = page(found)
    for shown in (found.text, html):
        assert "Expected at this length" not in shown
        assert "older rule" not in shown
        assert "passkey" not in shown.lower()


def test_the_effective_length_names_its_task_and_its_source(tmp_path):
    found = analysed(tmp_path, FakeRun(lengths=LENGTHS, depths=(0, 50), per_cell=40, haystacks=40, accuracy=1.0))
    effective = found.summary.to_json()["effective_context_length"]
    assert effective["name"] == "effective context length of this task (passkey)"
    assert "EFFECTIVE CONTEXT LENGTH OF THIS TASK (PASSKEY):" in found.text
    for shown in (found.text, page(found)):
        assert "RULER, Hsieh et al. 2024: Llama2-7B at 4k" in shown
        assert "RULER-like" not in shown


def test_a_model_that_fails_everywhere_has_no_relative_length(tmp_path):
    found = analysed(tmp_path, FakeRun(lengths=LENGTHS, depths=(0, 50), per_cell=40, haystacks=40, accuracy=0.0))
    effective = found.summary.to_json()["effective_context_length"]
    assert effective["relative"] is None
    assert effective["fixed"]["below"] == 1024
    assert "at least" not in found.text
    assert "none relative to the shortest length: the shortest length itself is below the fixed bar" in found.text
    found.write_page()


def test_labels_that_are_off_are_grouped_by_real_depth_and_said(tmp_path):
    run = FakeRun(depths=(0, 25, 50, 75, 100), per_cell=4, accuracy=1.0, real_depth=lambda depth: 0.0)
    found = analysed(tmp_path, run)
    assert [(cell["depth_percent"], cell["num_samples"]) for cell in found.summary.to_json()["results_by_depth"]] == [
        (0, 20)
    ]
    warning = (
        "16 of 20 depth labels are more than 5 points off (at worst 100 % says the label, 0.0 % it is): "
        "these samples are grouped by their real depth"
    )
    assert warning in found.summary.to_json()["warnings"]
    assert warning in found.text
    assert warning in page(found)


def test_labels_that_are_right_within_five_points_name_their_group(tmp_path):
    run = FakeRun(depths=(0, 50, 100), per_cell=4, real_depth=lambda depth: min(100.0, depth + 4.9))
    found = analysed(tmp_path, run)
    assert [cell["depth_percent"] for cell in found.summary.to_json()["results_by_depth"]] == [0, 50, 100]
    assert not any("labels" in line for line in found.summary.to_json()["warnings"])


def test_one_haystack_says_nothing_about_others(tmp_path):
    one = FakeRun(lengths=(1024, 4096), accuracy=1.0, haystacks=1)
    found = analyze_run(write_fake_run(tmp_path / "run", one))
    assert found.summary.effective_context_length.name.endswith("(passkey), on this haystack only")
    assert "ON THIS HAYSTACK ONLY" in found.text
