"""The rule in use today and the fixed tables, at their edges."""

from __future__ import annotations

import pytest

from infini_eval.reports.statistics.intervals import Average
from infini_eval.reports.statistics.verdicts import consistency, long_context_verdict, performance, verdict


@pytest.mark.parametrize(
    ("average", "category"),
    [(95, "EXCELLENT"), (94.9, "VERY_GOOD"), (90, "VERY_GOOD"), (80, "GOOD"), (70, "FAIR"), (69.9, "POOR")],
)
def test_one_segment(average, category):
    found = performance(average, 4.23, 1.0)
    assert (found.category, found.expected_degradation) == (category, 0)


@pytest.mark.parametrize(
    ("segments", "average", "category"),
    [
        (2, 85, "EXCELLENT"), (2, 84.9, "VERY_GOOD"), (2, 75, "VERY_GOOD"),
        (2, 65, "GOOD"), (2, 55, "FAIR"), (2, 54, "POOR"),
        (4, 75, "EXCELLENT"), (8, 75, "EXCELLENT"), (128, 65, "VERY_GOOD"), (128, 45, "FAIR"), (128, 44.9, "POOR"),
    ],
)  # fmt: skip
def test_more_segments_lower_the_bar_by_at_most_twenty(segments, average, category):
    assert performance(average, 0, float(segments)).category == category


def test_the_guide_s_sample_output():
    found = performance(91.45, 4.23, 1.0).to_json()
    assert found["status"] == "✓"
    assert (found["category"], found["message"]) == ("VERY_GOOD", "Strong performance within segment")
    assert (found["consistency"], found["expected_degradation"]) == ("CONSISTENT", 0)


@pytest.mark.parametrize(
    ("deviation", "word"),
    [(14.99, "CONSISTENT"), (15, "INCONSISTENT"), (24.9, "INCONSISTENT"), (25, "VERY_INCONSISTENT")],
)
def test_consistency(deviation, word):
    assert consistency(deviation) == word


def test_unknown_segments_are_judged_as_one_and_said():
    assert "unknown" in performance(95, 0, None).message


def test_the_fixed_table_takes_the_interval_into_account():
    sure = verdict(Average(0.95, 0.92, 0.97, ""), 1024)
    assert (sure["category"], sure["certain"], sure["possible"]) == ("EXCELLENT", True, ["EXCELLENT"])
    assert sure["expectation"] == {"above": 95, "met": "unclear"}
    unsure = verdict(Average(0.82, 0.69, 0.91, ""), 2048)
    assert unsure["possible"] == ["POOR", "FAIR", "GOOD", "EXCELLENT"]
    assert unsure["category"] == "GOOD"
    assert verdict(Average(0.5, 0.4, 0.6, ""), 8192)["expectation"]["met"] == "no"
    assert verdict(Average(0.9, 0.81, 0.95, ""), 4096)["expectation"]["met"] == "yes"
    assert verdict(Average(0.5, 0.4, 0.6, ""), 16384)["expectation"] is None


@pytest.mark.parametrize(
    ("averages", "category"),
    [
        ({131072: 76}, "EXCELLENT"), ({65536: 71, 131072: 66}, "GOOD"), ({65536: 71}, "GOOD"),
        ({65536: 71, 131072: 60}, "FAIR"),
        ({32768: 30, 65536: 25}, "POOR"), ({1024: 99, 32768: 31}, "FAIR"),
    ],
)  # fmt: skip
def test_long_context(averages, category):
    assert long_context_verdict(averages)["category"] == category


def test_no_long_context_no_verdict():
    assert long_context_verdict({1024: 99, 16384: 80}) is None
