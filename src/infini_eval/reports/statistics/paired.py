"""Two runs on the same samples: the difference, its interval, and the chance of seeing it between equals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from infini_eval.reports.statistics.intervals import MAX_CLUSTERS, Z, bootstrap_spread

if TYPE_CHECKING:
    import numpy as np

_FLIPS = 9999


@dataclass(frozen=True)
class PairedDifference:
    """`difference` is B - A as a fraction, averaged over groups (depths); `p` is two-sided, `test` says which test.

    `only_a` and `only_b` count the samples that only one of them got right (scores above 0.5 count as right),
    `clusters` the haystacks (None where unknown).
    """

    n: int
    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
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
    mean_a, mean_b = (float(np.mean(_by_group(group, values))) for values in (a, b))
    clusters = None if cluster is None else int(cluster.max()) + 1
    shared = clusters is not None and 1 < clusters < len(a)
    low, high = _interval(group, difference, cluster if shared else None)
    right_a, right_b = a > 0.5, b > 0.5
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    if shared and cluster is not None:
        p, test = _flip(np.bincount(cluster, difference)), f"sign-flip over {clusters} haystacks"
    elif np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all():
        p, test = mcnemar(only_a, only_b), "McNemar, exact" + ("" if cluster is not None else "; clusters unknown")
    else:
        p, test = _flip(difference), "sign-flip over samples"
    return PairedDifference(len(a), mean_a, mean_b, mean_b - mean_a, low, high, p, test, only_a, only_b, clusters)


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided p-value of McNemar's test from the two discordant counts."""
    from scipy.stats import binomtest

    discordant = only_a + only_b
    return float(binomtest(only_a, discordant, 0.5).pvalue) if discordant else 1.0


def holm(p_values: list[float]) -> list[float]:
    """Holm's adjustment for several comparisons, in the given order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _by_group(group: np.ndarray, values: np.ndarray) -> np.ndarray:
    import numpy as np

    n = np.bincount(group)
    return np.bincount(group, values)[n > 0] / n[n > 0]


def _interval(group: np.ndarray, difference: np.ndarray, cluster: np.ndarray | None) -> tuple[float, float]:
    """Bootstrap over haystacks (or samples), never narrower than Agresti and Min's adjusted Wald interval."""
    import numpy as np

    n, value = len(difference), float(_by_group(group, difference).mean())
    centre = float(difference.sum()) / (n + 2)
    squares = (float((difference**2).sum()) + 1) / (n + 2)  # half a pair added to each of the four kinds of pairs
    half = Z * (max(0.0, squares - centre**2) / (n + 2)) ** 0.5
    low, high = min(value, centre - half), max(value, centre + half)
    units = np.arange(n) if cluster is None else cluster
    if n > 1 and (cluster is not None or n <= MAX_CLUSTERS):
        below, above = bootstrap_spread(group, difference, units)
        low, high = min(low, value + below), max(high, value + above)
    return max(-1.0, low), min(1.0, high)


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
