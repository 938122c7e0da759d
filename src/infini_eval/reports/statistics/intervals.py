"""95 % intervals: Wilson for a proportion, bootstrap over haystacks for averages of correlated samples."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
RESAMPLES = 2000
MAX_CLUSTERS = 1000  # more haystacks than this are pooled at random into so many; the estimate stays unbiased
FEW_CLUSTERS = 10


def wilson(correct: float, n: float) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927), as fractions; (0, 1) where n is 0.

    Equals scipy.stats.binomtest(...).proportion_ci(method="wilson") for whole numbers (tested); written out because it
    must also take the fractional counts of partial credit, and because importing scipy.stats costs most of a second.
    """
    if n <= 0:
        return 0.0, 1.0
    p = min(1.0, max(0.0, correct / n))
    centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * (p * (1 - p) / n + Z * Z / (4 * n * n)) ** 0.5
    low = 0.0 if correct <= 0 else max(0.0, centre - half)
    high = 1.0 if correct >= n else min(1.0, centre + half)
    return low, high


@dataclass(frozen=True)
class Proportion:
    """Right answers of n samples (fractional under partial credit), and the Wilson interval of the accuracy."""

    correct: float
    n: int

    @property
    def accuracy(self) -> float | None:
        return self.correct / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.correct, self.n)


@dataclass(frozen=True)
class Average:
    """An average accuracy as a fraction, its interval, and how the interval was made."""

    value: float
    low: float
    high: float
    method: str
    clusters: int | None = None


def average_over(group: np.ndarray, correct: np.ndarray, cluster: np.ndarray | None) -> Average:
    """The mean over groups (depths) of each group's accuracy, with its interval.

    `group` and `cluster` are int64 [samples] from 0 upwards, `correct` float64 [samples] in 0..1; `cluster` None means
    that the data do not say which samples share a haystack. Never narrower than Wilson at the effective sample size.
    """
    import numpy as np

    n = np.bincount(group)
    accuracy = np.bincount(group, correct)[n > 0] / n[n > 0]
    value = float(accuracy.mean())
    effective = len(accuracy) ** 2 / float((1 / n[n > 0]).sum())  # equals the number of samples where cells are alike
    low, high = wilson(value * effective, effective)
    if cluster is None:
        return Average(value, low, high, "Wilson; clusters unknown")
    clusters = int(cluster.max()) + 1
    if clusters == len(cluster):
        return Average(value, low, high, "Wilson; every sample has its own haystack", clusters)
    if clusters < 2:
        return Average(value, low, high, "Wilson; one haystack only, so nothing is known about others", clusters)
    spread = bootstrap_spread(group, correct, cluster)
    few = f"; few haystacks ({clusters}), so the interval is rough" if clusters < FEW_CLUSTERS else ""
    method = f"bootstrap over {clusters} haystacks, not narrower than Wilson{few}"
    low, high = min(low, max(0.0, value + spread[0])), max(high, min(1.0, value + spread[1]))
    return Average(value, low, high, method, clusters)


def bootstrap_spread(group: np.ndarray, correct: np.ndarray, cluster: np.ndarray) -> tuple[float, float]:
    """How far below and above its value the mean over groups lies when whole haystacks are drawn anew.

    `correct` may be any number a sample has, such as a paired difference; at least two clusters.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    clusters, groups = int(cluster.max()) + 1, int(group.max()) + 1
    if clusters > MAX_CLUSTERS:
        cluster = (rng.permutation(clusters) % MAX_CLUSTERS)[cluster]
        clusters = MAX_CLUSTERS
    cell = cluster * groups + group
    right = np.bincount(cell, correct, clusters * groups).reshape(clusters, groups)
    seen = np.bincount(cell, minlength=clusters * groups).reshape(clusters, groups).astype(float)
    draws = rng.multinomial(clusters, np.full(clusters, 1 / clusters), RESAMPLES).astype(float)
    totals = draws @ seen
    with np.errstate(invalid="ignore"):
        means = np.nanmean((draws @ right) / np.where(totals > 0, totals, np.nan), axis=1)
    low, high = np.nanpercentile(means, [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2])
    value = np.nanmean(right.sum(0) / np.where(seen.sum(0) > 0, seen.sum(0), np.nan))
    widen = (clusters / (clusters - 1)) ** 0.5  # the bootstrap's variance is (C - 1) / C of the true one
    return float((low - value) * widen), float((high - value) * widen)
