"""Intervals against scipy, and the bootstrap against cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from infini_eval.reports.statistics.intervals import average_over, wilson


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


def test_all_right_in_every_haystack_still_leaves_room_for_doubt():
    cluster, group = np.repeat(np.arange(10), 5), np.tile(np.arange(5), 10)
    found = average_over(group, np.ones(50), cluster)
    assert (found.low, found.high) == pytest.approx(wilson(50, 50))


def test_one_haystack_is_said_and_many_are_pooled():
    group = np.zeros(50, int)
    assert "one haystack" in average_over(group, np.ones(50), group).method
    many = np.arange(5000) // 2
    found = average_over(np.zeros(5000, int), (many % 2).astype(float), many)
    assert found.clusters == 2500
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5 / 2500**0.5, rel=0.12)


def test_the_same_data_give_the_same_interval():
    cluster, group = np.repeat(np.arange(30), 4), np.tile(np.arange(4), 30)
    correct = (np.arange(120) % 7 > 1).astype(float)
    assert average_over(group, correct, cluster) == average_over(group, correct, cluster)
