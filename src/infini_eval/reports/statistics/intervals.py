"""95 % intervals: Wilson for a proportion, at the number of independent samples that correlated ones are worth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
FEW_CLUSTERS = 10  # below it nothing is certain
DOUBT = 2.0  # wrong answers' worth of doubt that answers of one haystack stand and fall together
# 5 % quantiles of Gamma(1), Gamma(2), Gamma(3): the least expected wrong answers with which 1, 2, 3 are not too many
_LEAST_EXPECTED = (0.051293, 0.355361, 0.817691)
_ANGLES = 4_001


def wilson(correct: float, n: float, quantile: float = Z) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927), as fractions; (0, 1) where n is 0.

    Equals scipy.stats.binomtest(...).proportion_ci(method="wilson") for whole numbers (tested); written out because it
    must also take fractional counts and Student's quantiles, and because importing scipy.stats costs most of a second.
    """
    if n <= 0:
        return 0.0, 1.0
    p = min(1.0, max(0.0, correct / n))
    centre = (p + quantile**2 / (2 * n)) / (1 + quantile**2 / n)
    half = quantile / (1 + quantile**2 / n) * (p * (1 - p) / n + quantile**2 / (4 * n * n)) ** 0.5
    low = 0.0 if correct <= 0 else max(0.0, centre - half)
    high = 1.0 if correct >= n else min(1.0, centre + half)
    return low, high


def share_interval(correct: float, n: float, quantile: float = Z) -> tuple[float, float]:
    """Wilson's interval with the ends near 0 and 1 mended (Brown, Cai and DasGupta 2001, section 4.1.1).

    With one to three answers of the rarer kind (two up to n = 50) Wilson's bound lies too far from the end: 49 right of
    50 would exclude 99.7 %, which gives that often. There the Poisson bound is taken; never narrower than Wilson.
    """
    low, high = wilson(correct, n, quantile)
    most = 2 if n <= 50 else 3
    return min(low, _poisson_end(correct, n, most, low)), max(high, 1 - _poisson_end(n - correct, n, most, 1 - high))


def _poisson_end(count: float, n: float, most: int, otherwise: float) -> float:
    """The least share that gives so many of n; counts between whole ones take the lower, which is wider."""
    if count <= 0 or count > most:
        return otherwise
    whole = int(count + 1e-9)
    return _LEAST_EXPECTED[whole - 1] / n if whole else 0.0


@lru_cache(maxsize=1024)
def t_quantile(df: float) -> float:
    """The quantile of Student's t that leaves 2.5 % above it; `df` >= 1, whole or not.

    With t = sqrt(df) tan a the density is cos(a)^(df - 1) up to a factor: summed over angles and read off. Equals
    scipy.stats.t.ppf to four digits (tested).
    """
    import numpy as np

    angle = np.linspace(0, min(np.pi / 2, 10 / df**0.5), _ANGLES)
    density = np.cos(angle) ** (df - 1)
    below = np.r_[0, np.cumsum(density[1:] + density[:-1])]
    return float(df**0.5 * np.tan(np.interp(LEVEL * below[-1], below, angle)))


@dataclass(frozen=True)
class Proportion:
    """Right answers of n samples (fractional under partial credit), and the interval of the accuracy.

    `bounds` is the interval over haystacks, of which there are `clusters`; None: that of independent samples.
    """

    correct: float
    n: int
    bounds: tuple[float, float] | None = None
    clusters: int | None = None

    @property
    def accuracy(self) -> float | None:
        return self.correct / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        return share_interval(self.correct, self.n) if self.bounds is None else self.bounds


@dataclass(frozen=True)
class Average:
    """An average accuracy as a fraction, its interval, and how the interval was made."""

    value: float
    low: float
    high: float
    method: str
    clusters: int | None = None

    @property
    def few(self) -> bool:
        """Whether so few haystacks were seen that nothing is certain; False where nobody knows their number."""
        return self.clusters is not None and self.clusters < FEW_CLUSTERS


@dataclass(frozen=True)
class Worth:
    """What correlated samples are worth: the number of independent ones, and the quantile to use with it."""

    samples: float
    quantile: float


def average_over(group: np.ndarray, correct: np.ndarray, cluster: np.ndarray | None) -> Average:
    """The mean over groups (depths) of each group's accuracy, with its interval.

    `group` and `cluster` are int64 [samples] from 0 upwards, `correct` float64 [samples] in 0..1; `cluster` None means
    that the data do not say which samples share a haystack. Wilson's interval at the samples' worth (Korn and Graubard
    1998 do so with Clopper and Pearson's): never narrower than for independent samples. One haystack has no spread:
    then the interval speaks of that haystack only.
    """
    value = mean_over(group, correct)
    weight = even_weights(group)
    clusters = None if cluster is None else int(cluster.max()) + 1
    worth = worth_of(weight, correct - value, value * (1 - value), min(correct.sum(), (1 - correct).sum()), cluster)
    low, high = share_interval(value * worth.samples, worth.samples, worth.quantile)
    return Average(value, low, high, _method(len(correct), clusters, worth), clusters)


def _method(n: int, clusters: int | None, worth: Worth) -> str:
    if clusters is None:
        return "Wilson; clusters unknown"
    if clusters == 1:
        return "Wilson; one haystack only, so nothing is known about others"
    if clusters == n:
        return "Wilson; every sample has its own haystack"
    few = "; few haystacks, so nothing is certain" if clusters < FEW_CLUSTERS else ""
    return f"Wilson over {clusters} haystacks, worth {worth.samples:.3g} independent samples{few}"


def proportion(correct: np.ndarray, cluster: np.ndarray | None) -> Proportion:
    """Right answers among these scores [samples], with the interval over haystacks (`cluster` int64 [samples] or None)."""
    import numpy as np

    if cluster is None or not len(correct):
        return Proportion(float(correct.sum()), len(correct))
    if len(correct) == 1:
        return _of_one(float(correct[0]))
    own = np.unique(cluster, return_inverse=True)[1]
    found = average_over(np.zeros(len(correct), np.int64), correct, own)
    return Proportion(float(correct.sum()), len(correct), (found.low, found.high), found.clusters)


@lru_cache(maxsize=1024)
def _of_one(correct: float) -> Proportion:
    """The same for a single sample: a run of many cells has thousands of them, and few different scores."""
    import numpy as np

    found = average_over(np.zeros(1, np.int64), np.array([correct]), np.zeros(1, np.int64))
    return Proportion(correct, 1, (found.low, found.high), found.clusters)


def proportions(group: np.ndarray, correct: np.ndarray, cluster: np.ndarray | None, groups: int) -> list[Proportion]:
    """The proportion of each of `groups` groups, some of which may be empty."""
    import numpy as np

    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(group, minlength=groups))[:-1])
    return [proportion(correct[part], None if cluster is None else cluster[part]) for part in parts]


def mean_over(group: np.ndarray, values: np.ndarray) -> float:
    """The mean over groups of the groups' means; exactly 1 where every value is."""
    import numpy as np

    n = np.bincount(group)
    return float((np.bincount(group, values)[n > 0] / n[n > 0]).mean())


def even_weights(group: np.ndarray) -> np.ndarray:
    """Weights float64 [samples] that sum to 1 and make the weighted mean the mean over groups of the groups' means."""
    import numpy as np

    n = np.bincount(group)
    weights: np.ndarray = 1 / (n[group] * np.count_nonzero(n))
    return weights


def worth_of(
    weight: np.ndarray, residual: np.ndarray, variance: float, evidence: float, cluster: np.ndarray | None
) -> Worth:
    """What samples [samples] of these weights (sum 1) are worth for their weighted mean.

    `residual` is each value less the mean, `variance` that of one sample, `cluster` int64 from 0 upwards. The spread of
    haystacks gives the intraclass correlation (Kish 1965: design effect 1 + (m - 1) rho). `evidence` is the number of
    answers that could have shown it (the wrong ones, say), those that come together counted once: as a few show next
    to nothing, the correlation is drawn towards 1 by DOUBT of them, and is 1 where there are none or where a few
    haystacks agree exactly. Where a spread was estimated Student's t is taken, with one degree of freedom less than
    haystacks (by their weight: Kish's effective number).
    """
    import numpy as np

    independent = 1 / float(weight @ weight)
    if cluster is None or cluster.max() == 0 or cluster.max() + 1 == len(weight):
        return Worth(independent, Z)
    share = np.bincount(cluster, weight)
    clusters, even = len(share), 1 / float(share @ share)
    sums = np.bincount(cluster, weight * residual)
    spread = float(sums @ sums) * clusters / (clusters - 1)
    most = independent / even  # the design effect of samples that stand and fall with their haystack
    agree = spread <= 1e-12 * variance / independent
    if variance <= 0 or most <= 1:
        return Worth(even, Z)
    if agree and clusters < FEW_CLUSTERS:
        rho = 1.0
    else:
        seen = min(1.0, max(0.0, (spread * independent / variance - 1) / (most - 1)))
        evidence /= 1 + (most - 1) * seen  # those that come together show it once
        rho = (evidence * seen + DOUBT) / (evidence + DOUBT)
    return Worth(independent / (1 + (most - 1) * rho), t_quantile(round(max(1.0, even - 1), 2)))
