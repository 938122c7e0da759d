"""Intervals against scipy, and the bootstrap against cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from scipy.stats import t as student

from infini_eval.reports.statistics.intervals import (
    average_over,
    proportion,
    proportions,
    share_interval,
    t_quantile,
    wilson,
)


@given(st.integers(1, 5000), st.floats(0, 1))
def test_wilson_equals_scipy(n, share):
    correct = round(n * share)
    expected = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert wilson(correct, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_without_samples_knows_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


def test_equal_cells_without_clusters_give_the_pooled_wilson_interval():
    group = np.repeat([0, 1, 2, 3], 25)
    correct = np.tile(np.r_[np.ones(20), np.zeros(5)], 4)
    found = average_over(group, correct, None)
    assert found.value == pytest.approx(0.8)
    assert (found.low, found.high) == pytest.approx(wilson(80, 100))
    assert "clusters unknown" in found.method


def test_the_average_is_over_depths_not_over_samples():
    group = np.r_[np.zeros(90, int), np.ones(10, int)]
    correct = np.r_[np.ones(90), np.zeros(10)]
    assert average_over(group, correct, None).value == 0.5


def test_haystacks_that_decide_everything_widen_the_interval_to_their_number():
    """10 haystacks, each right or wrong at all 20 depths: 200 samples know no more than 10."""
    cluster = np.repeat(np.arange(10), 20)
    group = np.tile(np.arange(20), 10)
    correct = (cluster < 7).astype(float)
    found = average_over(group, correct, cluster)
    alone = wilson(140, 200)
    se = (0.7 * 0.3 / 9) ** 0.5  # standard error of the mean of ten haystacks
    assert found.clusters == 10
    assert found.high - found.low > 2 * (alone[1] - alone[0])
    assert found.low == pytest.approx(0.7 - 1.96 * se, abs=0.06)


def test_independent_samples_are_never_narrower_than_wilson():
    rng = np.random.default_rng(3)
    cluster, group = np.repeat(np.arange(40), 10), np.tile(np.arange(10), 40)
    found = average_over(group, (rng.random(400) < 0.9).astype(float), cluster)
    low, high = wilson(found.value * 400, 400)
    assert found.low <= low
    assert found.high >= high
    assert found.high - found.low < 1.5 * (high - low)


@pytest.mark.parametrize("df", [1, 1.5, 2, 3, 9, 19.4, 60, 999, 1e6])
def test_t_quantiles_equal_scipy(df):
    assert t_quantile(df) == pytest.approx(student.ppf(0.975, df), rel=1e-4)


def exact_coverage(n: int, p: float) -> float:
    covered = [k for k in range(n + 1) if share_interval(k, n)[0] <= p <= share_interval(k, n)[1]]
    return float(binom.pmf(covered, n, p).sum())


@pytest.mark.parametrize("n", [5, 10, 20, 50, 105, 210])
def test_shares_near_the_end_are_covered(n):
    """Wilson's own interval covers 0.99 with 50 samples in 91 % of cases."""
    coverage = [exact_coverage(n, p) for p in np.r_[np.linspace(0.5, 0.98, 60), 0.985, 0.99, 0.995, 0.999]]
    assert min(coverage) > 0.92
    assert np.mean(coverage) == pytest.approx(0.955, abs=0.015)


@given(st.integers(1, 300), st.floats(0, 1))
def test_the_mended_ends_are_never_narrower_than_wilson(n, share):
    correct = share * n
    low, high = share_interval(correct, n)
    assert 0 <= low <= wilson(correct, n)[0] and wilson(correct, n)[1] <= high <= 1


def test_haystacks_that_agree_entirely_are_no_more_than_their_number():
    """All right in each: whether a wrong answer would have come alone nobody knows."""
    cluster, group = np.repeat(np.arange(10), 5), np.tile(np.arange(5), 10)
    for correct in (np.ones(50), np.zeros(50)):
        found = average_over(group, correct, cluster)
        low, high = wilson(found.value * 10, 10)
        assert (found.low, found.high) == pytest.approx((low, high))


@pytest.mark.parametrize("right", [10, 18, 20])
def test_few_haystacks_of_one_accuracy_are_no_more_than_their_number(right):
    correct = np.tile(np.r_[np.ones(right), np.zeros(20 - right)], 5)
    found = average_over(np.zeros(100, int), correct, np.repeat(np.arange(5), 20))
    low, high = wilson(5 * right / 20, 5)
    assert found.low <= low and found.high >= high
    assert found.few


def test_a_single_wrong_answer_proves_no_independence():
    """One of 210 wrong: were the haystacks alike in luck, nine of ten might still be spared."""
    correct = np.ones(210)
    correct[17] = 0
    found = average_over(np.zeros(210, int), correct, np.repeat(np.arange(10), 21))
    assert found.low < 0.85 < wilson(209, 210)[0]


def test_one_haystack_is_said_and_ten_are_not_few():
    group = np.zeros(50, int)
    alone = average_over(group, np.ones(50), group)
    assert "one haystack" in alone.method and alone.few and alone.clusters == 1
    assert not average_over(group, np.ones(50), np.arange(50) % 10).few
    assert average_over(group[:1], np.ones(1), group[:1]).few


def test_many_pairs_of_one_text_count_as_half_as_many_samples():
    many = np.arange(5000) // 2
    found = average_over(np.zeros(5000, int), (many % 2).astype(float), many)
    assert found.clusters == 2500
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5 / 2500**0.5, rel=0.02)


def test_a_haystack_that_holds_nearly_all_samples_is_not_one_of_ten():
    cluster = np.r_[np.zeros(91, int), np.arange(1, 10)]
    correct = (np.arange(100) % 5 > 0).astype(float)
    found = average_over(np.zeros(100, int), correct, cluster)
    assert found.high - found.low > 0.6


@pytest.mark.parametrize("cluster", [None, np.zeros(0, int)])
def test_nothing_measured_nothing_known(cluster):
    assert proportion(np.zeros(0), cluster).interval == (0, 1)


def test_groups_count_haystacks_too():
    """Two groups, each of five haystacks that are right or wrong all over: five answers, not fifty."""
    cluster = np.tile(np.repeat(np.arange(5), 10), 2)
    group = np.repeat([0, 1], 50)
    correct = (cluster < 3).astype(float)
    first, second = proportions(group, correct, cluster, 2)
    assert (first.n, first.correct, first.clusters) == (50, 30, 5)
    assert first == second == proportion(correct[:50], cluster[:50] + 7)
    low, high = wilson(3, 5)
    assert first.interval[0] <= low and first.interval[1] >= high
    assert proportions(group, correct, None, 3)[0].interval == pytest.approx(wilson(30, 50))
    assert proportions(group, correct, None, 3)[2].n == 0


def test_the_same_data_give_the_same_interval():
    cluster, group = np.repeat(np.arange(30), 4), np.tile(np.arange(4), 30)
    correct = (np.arange(120) % 7 > 1).astype(float)
    assert average_over(group, correct, cluster) == average_over(group, correct, cluster)
