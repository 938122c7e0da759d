"""Clusters of overlapping haystacks, against every pair compared."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infini_eval.clusters import SHARED, overlap_clusters

RANGES = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 60), st.integers(1, 40)), max_size=14)


def every_pair(ranges: list[tuple[str, int, int]], share: float) -> set[frozenset[int]]:
    groups = {number: {number} for number in range(len(ranges))}
    for (i, (pool, start, end)), (j, (other, first, last)) in itertools.combinations(enumerate(ranges), 2):
        common = min(end, last) - max(start, first)
        if pool == other and common > share * min(end - start, last - first):
            groups[i] |= groups[j]
            for member in groups[i]:
                groups[member] = groups[i]
    return {frozenset(group) for group in groups.values()}


def found(ranges: list[tuple[str, int, int]], share: float) -> set[frozenset[int]]:
    cluster = overlap_clusters(*(list(column) for column in zip(*ranges, strict=True)), share)
    return {frozenset(np.flatnonzero(cluster == number).tolist()) for number in set(cluster.tolist())}


@given(RANGES.filter(bool), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]))
def test_equals_the_comparison_of_every_pair(drawn, share):
    ranges = [(pool, start, start + length) for pool, start, length in drawn]
    assert found(ranges, share) == every_pair(ranges, share)


def test_a_start_a_few_words_later_is_no_other_haystack():
    ranges = [("a", 0, 1000), ("a", 20, 1020), ("a", 950, 1950), ("b", 0, 1000)]
    assert found(ranges, SHARED) == {frozenset({0, 1}), frozenset({2}), frozenset({3})}


def test_a_short_haystack_inside_a_long_one_is_the_same_text():
    assert found([("a", 0, 100_000), ("a", 500, 600), ("a", 90_000, 90_100)], SHARED) == {frozenset({0, 1, 2})}


@pytest.mark.parametrize("n", [0, 1])
def test_no_ranges_or_a_single_one(n):
    assert overlap_clusters(["a"] * n, [3] * n, [9] * n).tolist() == [0] * n


def test_many_overlapping_ranges_are_not_compared_pair_by_pair():
    """A million ranges that all overlap would be half a million million pairs."""
    start = np.arange(200_000)
    assert overlap_clusters(np.zeros(len(start), int), start, start + 150_000).max() == 0
