"""Trends: how the odds of a right answer change with depth, length or compressions; a logistic fit and its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from infini_eval.reports.statistics.intervals import Z

if TYPE_CHECKING:
    import numpy as np

CURVE_POINTS = 25
_MAX_ODDS = 1e4


@dataclass(frozen=True)
class Trend:
    """`odds_ratio` is what one unit of x does to the odds; `curve` is [(x, accuracy, low, high)] as fractions.

    `reason` says why there is no fit (then the numbers are None): one value of x only, or all answers alike.
    """

    odds_ratio: float | None = None
    low: float | None = None
    high: float | None = None
    curve: tuple[tuple[float, float, float, float], ...] = ()
    reason: str | None = None

    @property
    def direction(self) -> str | None:
        """What the 95 % interval of the odds ratio allows to say."""
        if self.low is None or self.high is None:
            return None
        return "falls" if self.high < 1 else "rises" if self.low > 1 else "no clear trend"


def logistic_trend(x: np.ndarray, correct: np.ndarray, cluster: np.ndarray | None) -> Trend:
    """Fit log odds = a + b x by Newton's method; float64 [samples] each, `correct` in 0..1, x without NaN.

    With haystacks known (`cluster` int64 [samples]) the covariance is the sandwich over haystacks, never below the
    model's own. Equals statsmodels' binomial GLM (tested); written out because importing statsmodels takes longer than
    the whole report.
    """
    import numpy as np

    if not len(x) or x.min() == x.max():
        return Trend(reason="only one value was measured")
    if correct.min() == correct.max():
        return Trend(reason="all answers are alike")
    design, right, n, group = _grouped(x, correct, cluster)
    beta, bread = _newton(design, right, n)
    covariance = bread
    if group is not None and group.max() > 0:
        residual = design * (right - n * _sigmoid(design @ beta))[:, None]
        sums = np.stack([np.bincount(group, residual[:, column]) for column in range(2)], axis=1)
        clusters = len(sums)
        robust = bread @ (sums.T @ sums) @ bread * clusters / (clusters - 1)
        covariance = robust if robust[1, 1] > bread[1, 1] else bread
    return _trend(x, beta, covariance)


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
    return (values - x.mean()) / x.std()


def _sigmoid(eta: np.ndarray) -> np.ndarray:
    import numpy as np

    return 1 / (1 + np.exp(-np.clip(eta, -35, 35)))


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


def _trend(x: np.ndarray, beta: np.ndarray, covariance: np.ndarray) -> Trend:
    import numpy as np

    scale = float(x.std())
    half = Z * float(covariance[1, 1]) ** 0.5
    with np.errstate(over="ignore"):
        ratio, low, high = (float(np.exp(b / scale)) for b in (beta[1], beta[1] - half, beta[1] + half))
    spread = float(np.exp(min(50.0, 2 * half)))  # of the odds over one standard deviation of x
    if not np.isfinite([ratio, low, high]).all() or spread > _MAX_ODDS:
        return Trend(reason="right and wrong answers are separated: a threshold, not a slope")
    at = np.linspace(x.min(), x.max(), CURVE_POINTS)
    design = np.stack([np.ones(len(at)), _scaled(at, x)], axis=1)
    eta = design @ beta
    band = Z * np.sqrt(np.einsum("ij,jk,ik->i", design, covariance, design))
    columns = (at, _sigmoid(eta), _sigmoid(eta - band), _sigmoid(eta + band))
    curve = tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in zip(*columns, strict=True))
    return Trend(ratio, low, high, curve)
