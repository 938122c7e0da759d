"""Trends: how the odds of a right answer change with depth, length or compressions; a logistic fit and its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from infini_eval.reports.statistics.intervals import Z, t_quantile

if TYPE_CHECKING:
    import numpy as np

CURVE_POINTS = 25
_MAX_ODDS = 1e4
_LEAST_LEFT = 1e-6


@dataclass(frozen=True)
class Trend:
    """`odds_ratio` is what one unit of x does to the odds; `curve` is [(x, accuracy, low, high)] as fractions.

    `reason` says why there is no fit (then the numbers are None): one value of x only, or all answers alike. `clusters`
    counts the haystacks, None where unknown; with a single one the interval speaks of that haystack only.
    """

    odds_ratio: float | None = None
    low: float | None = None
    high: float | None = None
    curve: tuple[tuple[float, float, float, float], ...] = ()
    reason: str | None = None
    clusters: int | None = None

    @property
    def direction(self) -> str | None:
        """What the 95 % interval of the odds ratio allows to say."""
        if self.low is None or self.high is None:
            return None
        return "falls" if self.high < 1 else "rises" if self.low > 1 else "no clear trend"


def logistic_trend(x: np.ndarray, correct: np.ndarray, cluster: np.ndarray | None) -> Trend:
    """Fit log odds = a + b x by Newton's method; float64 [samples] each, `correct` in 0..1, x without NaN.

    With haystacks known (`cluster` int64 [samples]) the covariance is the sandwich over haystacks, never below the
    model's own, and the interval takes Student's t with one degree of freedom less than haystacks. Equals statsmodels'
    binomial GLM and its bias-reduced GEE (tested); written out because importing statsmodels takes longer than the
    whole report.
    """

    clusters = None if cluster is None or not len(x) else int(cluster.max()) + 1
    if not len(x) or x.min() == x.max():
        return Trend(reason="only one value was measured", clusters=clusters)
    if correct.min() == correct.max():
        return Trend(reason="all answers are alike", clusters=clusters)
    design, right, n, group = _grouped(x, correct, cluster)
    beta, bread = _newton(design, right, n)
    covariance, quantile = bread, Z
    if group is not None and clusters is not None and clusters > 1:
        robust = _sandwich(design, right, n, beta, bread, group)
        if robust is None:
            return Trend(reason="too few haystacks to tell a trend from their luck", clusters=clusters)
        covariance = robust if robust[1, 1] > bread[1, 1] else bread
        quantile = t_quantile(clusters - 1)
    return _trend(x, beta, covariance, quantile, clusters)


def _grouped(
    x: np.ndarray, correct: np.ndarray, cluster: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """The samples summed by (haystack, x): design [rows, 2], right and n [rows], haystack of each row."""
    import numpy as np

    values, inverse = np.unique(x, return_inverse=True)
    cell = inverse if cluster is None else cluster * len(values) + inverse
    cells, place = np.unique(cell, return_inverse=True)
    design = np.stack([np.ones(len(cells)), _scaled(values[cells % len(values)], x)], axis=1)
    group = None if cluster is None else cells // len(values)
    return design, np.bincount(place, correct), np.bincount(place).astype(float), group


def _scaled(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = (values - x.mean()) / x.std()
    return scaled


def _sigmoid(eta: np.ndarray) -> np.ndarray:
    import numpy as np

    p: np.ndarray = 1 / (1 + np.exp(-np.clip(eta, -35, 35)))
    return p


def _newton(design: np.ndarray, right: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients [2] and their model covariance [2, 2]; bounded steps let separated data end far out, not at inf."""
    import numpy as np

    beta = np.zeros(2)
    for _ in range(50):
        p = _sigmoid(design @ beta)
        weight = n * p * (1 - p)
        bread = np.linalg.inv(design.T @ (design * weight[:, None]) + 1e-9 * np.eye(2))
        step = bread @ (design.T @ (right - n * p))
        beta = beta + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-9 or np.abs(beta).max() > 30:
            break
    return beta, bread


def _sandwich(
    design: np.ndarray, right: np.ndarray, n: np.ndarray, beta: np.ndarray, bread: np.ndarray, group: np.ndarray
) -> np.ndarray | None:
    """The covariance of the coefficients [2, 2] from the spread of haystacks, without what few of them take off it.

    A haystack pulls the fit towards itself; its score is divided by what the pull leaves, (I - A_c B)^-1 (Mancl and
    DeRouen 2001, in the size of the coefficients). None where the slope rests on one haystack's pull alone.
    """
    import numpy as np

    p = _sigmoid(design @ beta)
    residual, weight = right - n * p, n * p * (1 - p)
    own = np.stack([np.bincount(group, residual * design[:, i]) for i in range(2)], axis=1)
    pairs = [[np.bincount(group, weight * design[:, i] * design[:, j]) for j in range(2)] for i in range(2)]
    left = np.eye(2) - np.moveaxis(np.array(pairs), 2, 0) @ bread
    if np.abs(np.linalg.det(left)).min() < _LEAST_LEFT:
        return None
    own = np.linalg.solve(left, own[:, :, None])[:, :, 0]
    covariance: np.ndarray = bread @ (own.T @ own) @ bread
    return covariance


def _trend(x: np.ndarray, beta: np.ndarray, covariance: np.ndarray, quantile: float, clusters: int | None) -> Trend:
    import numpy as np

    scale = float(x.std())
    half = quantile * float(covariance[1, 1]) ** 0.5
    with np.errstate(over="ignore"):
        ratio, low, high = (float(np.exp(b / scale)) for b in (beta[1], beta[1] - half, beta[1] + half))
    spread = float(np.exp(min(50.0, 2 * half)))  # of the odds over one standard deviation of x
    if not np.isfinite([ratio, low, high]).all() or spread > _MAX_ODDS:
        return Trend(reason="right and wrong answers are separated: a threshold, not a slope", clusters=clusters)
    at = np.linspace(x.min(), x.max(), CURVE_POINTS)
    design = np.stack([np.ones(len(at)), _scaled(at, x)], axis=1)
    eta = design @ beta
    band = quantile * np.sqrt(np.einsum("ij,jk,ik->i", design, covariance, design))
    columns = (at, _sigmoid(eta), _sigmoid(eta - band), _sigmoid(eta + band))
    curve = tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in zip(*columns, strict=True))
    return Trend(ratio, low, high, curve, clusters=clusters)
