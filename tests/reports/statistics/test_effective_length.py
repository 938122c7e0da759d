"""Effective context length: worked cases for both bars, and the n that a firmer answer needs."""

from __future__ import annotations

import pytest

from infini_eval.reports.statistics.intervals import Average, wilson
from infini_eval.reports.statistics.verdicts import effective_length, samples_needed


def measured(length: int, right: int, n: int) -> tuple[int, Average, int]:
    return length, Average(right / n, *wilson(right, n), "Wilson"), n


def test_sure_on_both_sides():
    found = effective_length([measured(1024, 990, 1000), measured(4096, 950, 1000), measured(16384, 500, 1000)])
    assert (found.at_least, found.estimate, found.below, found.undecided) == (4096, 4096, 16384, ())


def test_a_length_in_doubt_is_undecided_with_the_n_it_needs():
    found = effective_length([measured(1024, 990, 1000), measured(4096, 18, 20), measured(16384, 2, 20)])
    assert (found.at_least, found.estimate, found.below) == (1024, 4096, 16384)
    ((length, needed),) = found.undecided
    assert length == 4096
    assert wilson(0.9 * needed, needed)[0] >= 0.856
    assert wilson(0.9 * (needed - 1), needed - 1)[0] < 0.856


def test_a_length_beyond_a_failed_one_does_not_count():
    found = effective_length([measured(1024, 99, 100), measured(4096, 10, 100), measured(16384, 99, 100)])
    assert (found.at_least, found.estimate, found.below) == (1024, 1024, 4096)


def test_the_shortest_length_may_fail_already():
    found = effective_length([measured(1024, 10, 100)])
    assert (found.at_least, found.estimate, found.below) == (None, None, 1024)


def test_the_relative_bar_is_set_by_the_shortest_length():
    found = effective_length([measured(1024, 900, 1000), measured(4096, 780, 1000), measured(16384, 100, 1000)], None)
    assert found.threshold == pytest.approx(0.765)
    assert (found.at_least, found.below) == (1024, 16384)
    assert found.undecided[0][0] == 4096


@pytest.mark.parametrize("right", [0, 500, 855])
def test_what_fails_at_the_shortest_length_has_no_relative_length(right):
    assert effective_length([measured(1024, right, 1000), measured(4096, right, 1000)], None) is None


def test_a_length_without_any_answer_needs_samples_too():
    assert samples_needed(Average(0.0, 0.0, 1.0, ""), 0, 0.856) == 2


def test_no_number_of_samples_decides_what_lies_on_the_bar():
    assert samples_needed(Average(0.856, 0.8, 0.9, ""), 100, 0.856) is None


def test_correlated_samples_need_more():
    independent = samples_needed(Average(0.9, *wilson(18, 20), ""), 20, 0.856)
    low, high = wilson(18, 20)
    wide = Average(0.9, 0.9 - 2 * (0.9 - low), 0.9 + 2 * (high - 0.9), "")
    assert samples_needed(wide, 20, 0.856) == pytest.approx(4 * independent, rel=0.01)


def test_no_lengths_no_answer():
    assert effective_length([]) is None
