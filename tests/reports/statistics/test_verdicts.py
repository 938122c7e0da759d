"""The rule in use today and the fixed tables, at their edges."""

from __future__ import annotations

import pytest

from infini_eval.reports.statistics.intervals import Average
from infini_eval.reports.statistics.verdicts import (
    Expectation,
    consistency,
    headline,
    long_context_verdict,
    performance,
    verdict,
)


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
    found = performance(91.45, 4.23, 1.0)
    assert found.status == "✓"
    assert (found.category, found.message) == ("VERY_GOOD", "Strong performance within segment")
    assert (found.consistency, found.expected_degradation) == ("CONSISTENT", 0)


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
    assert (sure.category, sure.certain, sure.possible) == ("EXCELLENT", True, ("EXCELLENT",))
    assert sure.expectation == Expectation(95, "unclear")
    unsure = verdict(Average(0.82, 0.69, 0.91, ""), 2048)
    assert unsure.possible == ("POOR", "FAIR", "GOOD", "EXCELLENT")
    assert unsure.category == "GOOD"
    assert verdict(Average(0.5, 0.4, 0.6, ""), 8192).expectation.met == "no"
    assert verdict(Average(0.9, 0.81, 0.95, ""), 4096).expectation.met == "yes"
    assert verdict(Average(0.5, 0.4, 0.6, ""), 16384).expectation is None


def sure(percent: float) -> Average:
    return Average(percent / 100, percent / 100, percent / 100, "")


@pytest.mark.parametrize(
    ("averages", "category"),
    [
        ({131072: 76}, "EXCELLENT"), ({65536: 71, 131072: 66}, "GOOD"), ({65536: 71}, "GOOD"),
        ({65536: 71, 131072: 60}, "FAIR"),
        ({32768: 30, 65536: 25}, "POOR"), ({1024: 99, 32768: 31}, "FAIR"),
    ],
)  # fmt: skip
def test_long_context(averages, category):
    found = long_context_verdict({length: sure(percent) for length, percent in averages.items()})
    assert (found.category, found.possible) == (category, (category,))


def test_a_single_sample_beyond_32k_says_nothing():
    found = long_context_verdict({131072: Average(1.0, 0.207, 1.0, "")})
    assert (found.category, found.possible) == ("UNDECIDED", ("POOR", "FAIR", "GOOD", "EXCELLENT"))


def test_no_long_context_no_verdict():
    assert long_context_verdict({1024: sure(99), 16384: sure(80)}) is None


def test_an_interval_from_poor_to_excellent_decides_nothing():
    found = performance(100, 0.0, 8.0, interval=(20.7, 100.0))
    assert (found.category, found.consistency) == ("UNDECIDED", "UNKNOWN")
    assert performance(100, 0.0, 8.0, interval=(56.0, 100.0)).category == "EXCELLENT"


def test_a_model_without_segments_is_not_told_about_them():
    assert "segment" not in performance(95, 0, 1.0, has_segments=False).message


@pytest.mark.parametrize(
    ("low", "value", "high", "category", "words"),
    [
        (0.92, 0.95, 0.97, "EXCELLENT", "EXCELLENT"),
        (0.82, 0.95, 0.99, "EXCELLENT", "GOOD or EXCELLENT"),
        (0.78, 0.95, 0.99, "UNDECIDED", "UNDECIDED (FAIR to EXCELLENT)"),
        (0.2, 1.0, 1.0, "UNDECIDED", "UNDECIDED (POOR to EXCELLENT)"),
    ],
)
def test_the_headline_names_what_is_possible(low, value, high, category, words):
    found = headline(verdict(Average(value, low, high, "", 20), None), 20, 0)
    assert (found.category, found.words) == (category, words)


def test_few_haystacks_are_never_certain():
    few = Average(0.95, 0.92, 0.97, "", 9)
    assert not verdict(few, None).certain
    assert headline(verdict(few, None), 9, 0).why == "9 haystacks only"
    assert verdict(Average(0.95, 0.92, 0.97, "", 10), None).certain
