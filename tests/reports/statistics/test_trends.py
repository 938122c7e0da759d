"""The logistic fit against statsmodels, and the cases where there is nothing to fit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from infini_eval.reports.statistics.trends import logistic_trend


def data(slope: float, haystacks: int = 40, spread: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    cluster = np.repeat(np.arange(haystacks), 20)
    x = np.tile(np.arange(20) / 2, haystacks)
    eta = 1.0 + slope * (x - 5) + rng.normal(0, spread, haystacks)[cluster]
    return x, (rng.random(len(x)) < 1 / (1 + np.exp(-eta))).astype(float), cluster


@pytest.mark.parametrize("slope", [-0.5, 0.0, 0.3])
def test_equals_statsmodels(slope):
    api = pytest.importorskip("statsmodels.api", reason="statsmodels is only needed to check the fit")
    x, correct, _ = data(slope)
    fit = api.GLM(correct, api.add_constant(x), family=api.families.Binomial()).fit()
    found = logistic_trend(x, correct, None)
    assert found.odds_ratio == pytest.approx(np.exp(fit.params[1]), rel=1e-6)
    assert (found.low, found.high) == pytest.approx(np.exp(fit.conf_int()[1]), rel=1e-5)
    at, accuracy, low, high = found.curve[0]
    expected = fit.get_prediction(np.array([[1.0, at]])).summary_frame()
    assert (accuracy, low, high) == pytest.approx(
        expected[["mean", "mean_ci_lower", "mean_ci_upper"]].iloc[0], rel=1e-5
    )


def test_the_sandwich_equals_statsmodels():
    api = pytest.importorskip("statsmodels.api", reason="statsmodels is only needed to check the fit")
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(30), 10)
    x = rng.normal(size=30)[cluster]  # constant within a haystack, so that luck and x cannot be told apart inside it
    luck = rng.normal(0, 1, 30)[cluster]
    correct = (rng.random(300) < 1 / (1 + np.exp(-x - luck))).astype(float)
    model = api.GEE(correct, api.add_constant(x), cluster, family=api.families.Binomial())
    fit = model.fit(cov_type="bias_reduced")
    found = logistic_trend(x, correct, cluster)
    width = np.diff(np.log([found.low, found.high]))[0]
    assert width == pytest.approx(2 * student.ppf(0.975, 29) * fit.bse[1], rel=1e-4)
    assert found.clusters == 30
    assert found.high / found.low > logistic_trend(x, correct, None).high / logistic_trend(x, correct, None).low


def test_few_haystacks_take_the_quantile_of_student():
    """Where haystacks add no spread of their own the covariance is the model's, the quantile that of their number."""
    x, correct, _ = data(0.3)
    widths = [np.log(t.high / t.low) for t in (logistic_trend(x, correct, c) for c in (None, np.arange(len(x)) % 4))]
    assert widths[1] / widths[0] == pytest.approx(student.ppf(0.975, 3) / 1.96, rel=1e-3)


def test_one_haystack_has_no_spread_of_its_own():
    x, correct, _ = data(0.3)
    found = logistic_trend(x, correct, np.zeros(len(x), int))
    assert found.clusters == 1
    assert (found.low, found.high) == (logistic_trend(x, correct, None).low, logistic_trend(x, correct, None).high)


def test_a_trend_that_rests_on_one_haystack_is_none():
    """Two lengths, one haystack each: whether length or luck made the difference nobody can say."""
    cluster = np.repeat([0, 1], 50)
    correct = np.r_[np.arange(50) < 45, np.arange(50) < 30].astype(float)
    found = logistic_trend(cluster.astype(float), correct, cluster)
    assert found.direction is None and "haystacks" in found.reason


def test_directions():
    assert logistic_trend(*data(-0.5)).direction == "falls"
    assert logistic_trend(*data(0.5)).direction == "rises"
    assert logistic_trend(*data(0.0)).direction == "no clear trend"


def test_nothing_to_fit_gives_a_reason():
    x = np.arange(10.0)
    assert "one value" in logistic_trend(np.ones(10), x > 4, None).reason
    assert "alike" in logistic_trend(x, np.ones(10), None).reason
    assert "separated" in logistic_trend(x, (x > 4).astype(float), None).reason
    assert logistic_trend(np.zeros(0), np.zeros(0), None).direction is None
