"""Two runs on the same samples: the difference, its interval, and the chance of seeing it between equals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infini_eval.reports.statistics.intervals import Worth, even_weights, mean_over, worth_of

if TYPE_CHECKING:
    import numpy as np

_FLIPS = 9999


@dataclass(frozen=True)
class PairedDifference:
    """`difference` is B - A as a fraction, averaged over groups (depths); `p` is two-sided, `test` says which test.

    `p` is None where all samples stand in one haystack: of others nothing is known, and the interval is for this one.

    `only_a` and `only_b` count the samples that only one of them got right (scores above 0.5 count as right),
    `clusters` the haystacks (None where unknown).
    """

    n: int
    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float | None
    test: str
    only_a: int
    only_b: int
    clusters: int | None


def paired_difference(group: np.ndarray, a: np.ndarray, b: np.ndarray, cluster: np.ndarray | None) -> PairedDifference:
    """Compare scores `a` and `b`, float64 [samples] in 0..1, of the same samples; `group` and `cluster` from 0 upwards.

    McNemar's exact test where samples are independent or nobody says which share a haystack; else the signs of whole
    haystacks' differences are flipped (scipy.stats), because samples of one haystack do not vary independently.
    """
    import numpy as np

    difference = b - a
    clusters = None if cluster is None else int(cluster.max()) + 1
    value, low, high = difference_interval(group, difference, cluster)
    right_a, right_b = a > 0.5, b > 0.5
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p: float | None
    if clusters == 1:
        p, test = None, "no test: one haystack only"
    elif cluster is not None and clusters is not None and clusters < len(a):
        p, test = _flip(np.bincount(cluster, even_weights(group) * difference)), f"sign-flip over {clusters} haystacks"
    elif np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all():
        p, test = mcnemar(only_a, only_b), "McNemar, exact" + ("" if cluster is not None else "; clusters unknown")
    else:
        p, test = _flip(difference), "sign-flip over samples"
    return PairedDifference(
        len(a), mean_over(group, a), mean_over(group, b), value, low, high, p, test, only_a, only_b, clusters
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided p-value of McNemar's test from the two discordant counts."""
    from scipy.stats import binomtest

    discordant = only_a + only_b
    return float(binomtest(only_a, discordant, 0.5).pvalue) if discordant else 1.0


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjustment for several comparisons, in the given order; where there is no p-value there stays none."""
    known = {index: p for index, p in enumerate(p_values) if p is not None}
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(known, key=lambda i: known[i])):
        highest = max(highest, min(1.0, (len(known) - rank) * known[index]))
        adjusted[index] = highest
    return adjusted


def difference_interval(
    group: np.ndarray, difference: np.ndarray, cluster: np.ndarray | None
) -> tuple[float, float, float]:
    """The mean over groups of paired differences, float64 [samples] in -1..1, with the ends of its interval.

    It counts what the pairs are worth (see `worth_of`); the evidence are the pairs that differ.
    """
    value, squares = mean_over(group, difference), mean_over(group, difference**2)
    evidence = float(abs(difference).sum())
    worth = worth_of(even_weights(group), difference - value, squares - value**2, evidence, cluster)
    return value, *_interval(value, squares, worth)


def _interval(value: float, squares: float, worth: Worth) -> tuple[float, float]:
    """The adjusted Wald interval of Agresti and Min (2005) for so many pairs; `squares` is the mean squared difference."""
    n = worth.samples
    centre = n * value / (n + 2)
    around = (n * squares + 1) / (n + 2) - centre**2  # half a pair added to each of the four kinds of pairs
    half = worth.quantile * (max(0.0, around) / (n + 2)) ** 0.5
    return max(-1.0, min(value, centre - half)), min(1.0, max(value, centre + half))


def _flip(sums: np.ndarray) -> float:
    """Two-sided p-value of a mean of zero when each unit's sign is arbitrary."""
    import numpy as np
    from scipy.stats import permutation_test

    if not sums.any():
        return 1.0
    found = permutation_test(
        (sums,), lambda x, axis: np.sum(x, axis=axis), permutation_type="samples", n_resamples=_FLIPS,
        rng=np.random.default_rng(0), vectorized=True, batch=max(1, 2_000_000 // len(sums)),
    )  # fmt: skip
    return float(found.pvalue)
