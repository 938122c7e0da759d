"""Paired tests against hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest

from infini_eval.reports.statistics.paired import holm, mcnemar, paired_difference


def test_mcnemar_by_hand():
    # 1 against 9 discordant pairs: 2 * (C(10, 0) + C(10, 1)) / 2**10
    assert mcnemar(1, 9) == pytest.approx(22 / 1024)
    assert mcnemar(0, 0) == 1.0


def test_independent_samples():
    a = np.r_[np.ones(40), np.zeros(10)]
    b = np.r_[np.ones(31), np.zeros(9), np.ones(1), np.zeros(9)]
    found = paired_difference(np.zeros(50, int), a, b, np.arange(50))
    assert (found.a, found.b, found.difference) == pytest.approx((0.8, 0.64, -0.16))
    assert (found.only_a, found.only_b, found.n) == (9, 1, 50)
    assert found.p == pytest.approx(22 / 1024)
    assert found.test == "McNemar, exact"
    assert found.low < -0.16 < found.high < 0


def test_unknown_clusters_are_said():
    found = paired_difference(np.zeros(4, int), np.ones(4), np.zeros(4), None)
    assert "clusters unknown" in found.test
    assert found.clusters is None


def test_shared_haystacks_flip_the_signs_of_whole_haystacks():
    """Five haystacks, each better by the same amount: 2 of the 2**5 sign patterns are as extreme."""
    cluster = np.repeat(np.arange(5), 20)
    a, b = np.zeros(100), np.tile(np.r_[np.ones(5), np.zeros(15)], 5)
    found = paired_difference(np.zeros(100, int), a, b, cluster)
    assert found.p == pytest.approx(2 / 32)
    assert found.clusters == 5
    assert mcnemar(0, 25) < 1e-6  # what ignoring the haystacks would have claimed


def test_one_haystack_gives_no_p_value():
    found = paired_difference(np.zeros(50, int), np.zeros(50), np.ones(50), np.zeros(50, int))
    assert found.p is None and found.clusters == 1
    assert "one haystack" in found.test
    assert 0 < found.low < found.difference == found.high == 1
    assert paired_difference(np.zeros(1, int), np.zeros(1), np.ones(1), np.zeros(1, int)).p is None


def test_a_difference_that_hangs_on_haystacks_is_no_surer_than_they_are():
    """B is better by half in 5 of 10 haystacks and as good in the others, at 20 samples each."""
    cluster = np.repeat(np.arange(10), 20)
    b = ((cluster % 2 == 0) & (np.arange(200) % 2 == 0)).astype(float)
    found = paired_difference(np.zeros(200, int), np.zeros(200), b, cluster)
    alone = paired_difference(np.zeros(200, int), np.zeros(200), b, None)
    assert found.high - found.low > 1.6 * (alone.high - alone.low)


def test_haystacks_without_any_difference_are_no_more_than_their_number():
    scores = np.ones(210)
    found = paired_difference(np.zeros(210, int), scores, scores, np.repeat(np.arange(10), 21))
    assert found.high - found.low > 0.25


def test_the_same_scores_do_not_differ():
    scores = (np.arange(60) % 3 > 0).astype(float)
    found = paired_difference(np.zeros(60, int), scores, scores, np.repeat(np.arange(10), 6))
    assert (found.difference, found.p) == (0, 1)
    assert found.low < 0 < found.high


def test_partial_credit_uses_sign_flips():
    a = np.linspace(0, 0.5, 30)
    found = paired_difference(np.zeros(30, int), a, a + 0.3, None)
    assert found.test == "sign-flip over samples"
    assert found.p < 0.001


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(8)
    inside = 0
    for _ in range(80):
        a = (rng.random(60) < 0.7).astype(float)
        b = np.where(rng.random(60) < 0.3, (rng.random(60) < 0.4).astype(float), a)
        found = paired_difference(np.zeros(60, int), a, b, None)
        inside += found.low <= 0.3 * (0.4 - 0.7) <= found.high
    assert inside >= 73


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.02, None, 0.03]) == [pytest.approx(0.04), None, pytest.approx(0.04)]
