"""From a run folder to summary and text: golden files, several lengths, damaged runs, other tools' records."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from infini_eval.errors import DataError
from infini_eval.reports.analyze import analyze_run
from infini_eval.reports.model import to_text
from infini_eval.reports.page import page
from infini_eval.reports.text import render_quiet
from infini_eval.testing.fake_runs import FakeRun, fake_records, write_fake_run

GOLDEN = Path(__file__).parent / "golden"
ONE = FakeRun(depths=(0, 25, 50, 75, 100), per_cell=8, accuracy=0.9, seed=1)
SEVERAL = FakeRun(
    lengths=(1024, 4096, 32768), depths=(0, 50, 100), per_cell=6, jitter=True,
    accuracy=lambda length, depth, compressions: 0.98 - 0.003 * compressions, seed=2,
)  # fmt: skip


def check_golden(name: str, text: str) -> None:
    """Compare with a golden file; UPDATE_GOLDEN=1 writes it."""
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "run"), [("one_length", ONE), ("several_lengths", SEVERAL)])
def test_golden_files(tmp_path, name, run):
    found = analyze_run(write_fake_run(tmp_path / "run", run), ascii_only=False)
    check_golden(f"{name}.txt", found.text + "\n")
    check_golden(f"{name}.json", to_text(found.summary))


def test_write_puts_summary_and_report_into_the_folder(tmp_path):
    found = analyze_run(write_fake_run(tmp_path, ONE))
    assert [path.name for path in found.write()] == ["summary.json", "report.txt"]
    assert json.loads((tmp_path / "summary.json").read_text()) == found.summary.to_json()
    assert (tmp_path / "report.txt").read_text() == found.text + "\n"


def test_the_keys_in_use_today_keep_their_meaning(tmp_path):
    summary = analyze_run(write_fake_run(tmp_path, ONE)).summary.to_json()
    expected: dict[float, list[float]] = {}
    for record in fake_records(ONE):
        expected.setdefault(record.sample.depth_percent, []).append(record.to_json()["correct"])
    accuracies = [100 * sum(values) / len(values) for values in expected.values()]
    mean = sum(accuracies) / 5
    stats = summary["summary_stats"]
    assert summary["model"] == "0.7M Infini-Attention"
    assert (summary["context_length"], summary["total_samples"]) == (1024, 40)
    assert [cell["accuracy"] for cell in summary["results_by_depth"]] == accuracies
    assert [(cell["num_samples"], cell["correct"]) for cell in summary["results_by_depth"]] == [
        (8, sum(values)) for values in expected.values()
    ]
    assert stats["average_accuracy"] == pytest.approx(mean)
    assert stats["std_dev"] == pytest.approx((sum((a - mean) ** 2 for a in accuracies) / 5) ** 0.5)
    assert (stats["min_accuracy"], stats["max_accuracy"]) == (min(accuracies), max(accuracies))
    assert set(summary["performance"]) >= {"category", "status", "message", "consistency", "expected_degradation"}
    assert summary["performance"]["expected_degradation"] == 20
    segments = summary["segment_analysis"]
    assert segments["within_segment_count"] + segments["cross_segment_count"] <= 40
    assert summary["by_context_length"] == [{key: summary[key] for key in summary["by_context_length"][0]}]


def test_several_lengths_give_blocks_and_an_aggregate(tmp_path):
    summary = analyze_run(write_fake_run(tmp_path, SEVERAL)).summary.to_json()
    assert [block["context_length"] for block in summary["by_context_length"]] == [1024, 4096, 32768]
    assert summary["context_length"] is None
    assert summary["total_samples"] == sum(block["total_samples"] for block in summary["by_context_length"]) == 54
    assert summary["long_context"]["measured"].keys() == {"32768"}
    worst = min(block["summary_stats"]["average_accuracy"] for block in summary["by_context_length"])
    named = summary["verdict"]["context_length"]
    assert [
        b["summary_stats"]["average_accuracy"] for b in summary["by_context_length"] if b["context_length"] == named
    ] == [worst]


def test_ascii_has_no_other_characters(tmp_path):
    text = analyze_run(write_fake_run(tmp_path, ONE), ascii_only=True).text
    assert text.isascii()
    assert "####" in text


def test_quiet_is_one_line_a_length(tmp_path):
    assert len(render_quiet(analyze_run(write_fake_run(tmp_path, SEVERAL)).summary).splitlines()) == 3


def test_an_interrupted_run_reports_what_is_there(tmp_path):
    found = analyze_run(write_fake_run(tmp_path, ONE, keep=15))
    assert "INCOMPLETE: 15 of 40 planned samples" in found.text
    assert "INCOMPLETE: 15 of 40" in render_quiet(found.summary)
    assert (
        found.summary.to_json()["complete"],
        found.summary.to_json()["samples_planned"],
        found.summary.to_json()["total_samples"],
    ) == (
        False,
        40,
        15,
    )


def test_failed_samples_are_neither_right_nor_wrong(tmp_path):
    found = analyze_run(write_fake_run(tmp_path, FakeRun(depths=(0, 50), per_cell=5, accuracy=1.0, failed=2)))
    assert found.summary.to_json()["summary_stats"]["average_accuracy"] == 100
    assert (found.summary.to_json()["total_samples"], found.summary.to_json()["failed_samples"]) == (8, 2)
    assert found.summary.to_json()["failures"] == [{"error": "out of memory", "count": 2}]
    assert "Failed Samples: 2 (2 x out of memory)" in found.text
    assert found.summary.to_json()["complete"] is True


def test_only_failed_samples_is_an_error_with_the_reason(tmp_path):
    with pytest.raises(DataError, match=r"none of the 5 samples .* out of memory"):
        analyze_run(write_fake_run(tmp_path, FakeRun(depths=(0,), per_cell=5, failed=5)))


def test_foreign_records_are_judged_by_their_first_number(tmp_path):
    rows = [(0, 42, "42."), (0, 7, "71"), (50, "0412", " 0412"), (50, 1, None)]
    records = [{"depth_percent": d, "answer": a, "generation_text": g} for d, a, g in rows]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    found = analyze_run(tmp_path)
    assert [(cell["correct"], cell["num_samples"]) for cell in found.summary.to_json()["results_by_depth"]] == [
        (1, 2),
        (1, 1),
    ]
    assert found.summary.to_json()["failed_samples"] == 1
    assert "judged by exact_digits" in found.text
    assert "unknown model" in found.summary.to_json()["model"]
    assert found.summary.to_json()["segment_analysis"]["within_segment_avg"] is None


@pytest.mark.parametrize(
    "manifest", [{}, {"model": None, "identity": []}, {"model": {"name": None}}, {"model": {"segment_length": None}}]
)
def test_a_manifest_may_lack_everything(tmp_path, manifest):
    write_fake_run(tmp_path, ONE)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert analyze_run(tmp_path).summary.to_json()["total_samples"] == 40


def test_a_model_without_segments_is_one_segment(tmp_path):
    summary = analyze_run(
        write_fake_run(tmp_path, FakeRun(segment_length=None, depths=(0,), name="Llama"))
    ).summary.to_json()
    assert summary["expected_segments"] == 1
    assert summary["segment_analysis"]["unknown_count"] == 10
    assert summary["phase_analysis"] is None


def test_freely_drawn_depths_are_rounded_and_said(tmp_path):
    depths = tuple(i / 3 for i in range(301))
    found = analyze_run(write_fake_run(tmp_path, FakeRun(depths=depths, per_cell=1)))
    assert len(found.summary.to_json()["results_by_depth"]) == 21
    assert "rounded to 5 %" in found.text


def test_control_characters_of_a_manifest_do_not_reach_the_terminal(tmp_path):
    found = analyze_run(write_fake_run(tmp_path, FakeRun(name="evil\x1b[31m\nmodel", depths=(0,))))
    assert "\x1b" not in found.text
    assert "EVIL [31M MODEL" in found.text


def test_scores_outside_0_to_1_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("depth_percent,correct\n0,97\n50,1\n")
    with pytest.raises(DataError, match=r"holds 97 \(1 record"):
        analyze_run(tmp_path)


def test_a_run_folder_may_lie_in_a_terminal_that_knows_ascii_only(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert analyze_run(write_fake_run(tmp_path, ONE)).text.isascii()


def test_failed_samples_count_as_wrong_only_where_asked(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    lines = [
        {"sample_key": str(n), "depth_percent": 0, "answer": "12", "generation_text": "12", "correct": value}
        for n, value in enumerate([1.0, 1.0, None, None])
    ]
    (folder / "replica-00000.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert analyze_run(tmp_path).summary.to_json()["summary_stats"]["average_accuracy"] == 100
    counted = analyze_run(tmp_path, failed_as_wrong=True).summary.to_json()
    assert counted["summary_stats"]["average_accuracy"] == 50
    assert counted["total_samples"] == 4 and "--failed-as-wrong" in counted["notes"][-1]


def test_scorers_that_disagree_are_counted_in_the_report(tmp_path: Path) -> None:
    replies = ["1,234", "1. 1234", "The 1st is 1234", "1234", "1234,567", "9"]
    rows = [{"depth_percent": 0, "answer": "1234", "generation_text": reply} for reply in replies]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = analyze_run(tmp_path)
    assert found.summary.to_json()["scorer_disagreements"] == {
        "chat_digits": {"compared": 6, "only_main": 0, "only_other": 3}
    }
    assert found.summary.to_json()["results_by_depth"][0]["correct"] == 2
    words = "exact_digits and chat_digits disagree on 3 of 6 answers: 3 pass chat_digits only, 0 pass exact_digits only"
    assert words in found.text
    assert "chat_digits" in page(found)
