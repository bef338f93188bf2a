"""Covariates against tea-tasting and ordinary least squares."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
import tea_tasting as tt
from pyarrow import table

from abtest.aggregates import Aggregates
from abtest.cuped import cuped
from abtest.stats import Ratio, compare, estimate

CTR, CTR_BEFORE = Ratio("clicks", "impressions"), Ratio("clicks_before", "impressions_before")
PAY, PAY_BEFORE, WAS_THERE = Ratio("pay"), Ratio("pay_before"), Ratio("was_there")


def make_arm(seed: int, n: int = 1500, lift: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    taste, wealth = rng.beta(2, 8, n), rng.lognormal(0, 0.8, n)
    was_there = rng.random(n) < 0.7
    before, during = rng.poisson(9, n) * was_there, rng.poisson(9, n) + 1
    return {
        "clicks": rng.binomial(during, np.minimum(taste * lift, 1)) * 1.0,
        "impressions": during * 1.0,
        "clicks_before": rng.binomial(before, taste) * 1.0,
        "impressions_before": before * 1.0,
        "pay": wealth * rng.gamma(4, 1, n) * lift,
        "pay_before": wealth * rng.gamma(4, 1, n) * was_there,
        "was_there": was_there * 1.0,
    }


ARMS = make_arm(1), make_arm(2, 1200, 1.1)
CONTROL, TREATMENT = (Aggregates.from_arrays(arm) for arm in ARMS)


def tea(metric):
    columns = {name: np.concatenate([arm[name] for arm in ARMS]) for name in ARMS[0]}
    variant = np.repeat([0, 1], [1500, 1200])
    return tt.Experiment({"metric": metric}).analyze(table({"variant": variant, **columns}))[
        "metric"
    ]


@pytest.mark.parametrize(
    ("metric", "covariate", "theirs"),
    [
        (PAY, PAY_BEFORE, tt.Mean("pay", "pay_before")),
        (
            CTR,
            CTR_BEFORE,
            tt.RatioOfMeans("clicks", "impressions", "clicks_before", "impressions_before"),
        ),
    ],
)
def test_one_covariate_is_tea_tastings(metric, covariate, theirs):
    found = cuped([CONTROL, TREATMENT], metric, [covariate])
    comparison, expected = compare(*found.estimates), tea(theirs)
    assert found.estimates[0].value == pytest.approx(expected.control, rel=1e-9)
    assert comparison.effect == pytest.approx(expected.effect_size, rel=1e-9)
    assert comparison.ci_low == pytest.approx(expected.effect_size_ci_lower, rel=1e-6)
    assert comparison.ci_high == pytest.approx(expected.effect_size_ci_upper, rel=1e-6)
    assert comparison.pvalue == pytest.approx(expected.pvalue, abs=1e-9)
    assert found.variance_saved > 0.05


def test_slopes_are_those_of_least_squares():
    found = cuped([CONTROL, TREATMENT], PAY, [PAY_BEFORE, WAS_THERE])
    pooled = {name: np.concatenate([arm[name] for arm in ARMS]) for name in ARMS[0]}
    regressors = sm.add_constant(np.stack([pooled["pay_before"], pooled["was_there"]], axis=1))
    assert found.theta == pytest.approx(sm.OLS(pooled["pay"], regressors).fit().params[1:])


def test_telling_who_was_not_there_saves_more():
    one = cuped([CONTROL, TREATMENT], PAY, [PAY_BEFORE])
    two = cuped([CONTROL, TREATMENT], PAY, [PAY_BEFORE, WAS_THERE])
    assert two.variance_saved > one.variance_saved


def test_variance_saved_is_what_the_estimates_lost():
    found = cuped([CONTROL, TREATMENT], PAY, [PAY_BEFORE])
    before = sum(estimate(arm, PAY).squared_error for arm in (CONTROL, TREATMENT))
    after = sum(adjusted.squared_error for adjusted in found.estimates)
    assert found.variance_saved == pytest.approx(1 - after / before)


@pytest.mark.parametrize("repeat", [PAY_BEFORE, Ratio("constant"), Ratio("doubled")])
def test_a_covariate_that_adds_nothing_changes_nothing(repeat):
    arms = [
        Aggregates.from_arrays(
            {**arm, "constant": np.ones(len(arm["pay"])), "doubled": 2e6 * arm["pay_before"]}
        )
        for arm in ARMS
    ]
    one, two = (cuped(arms, PAY, covariates) for covariates in ([PAY_BEFORE], [PAY_BEFORE, repeat]))
    for alone, joined in zip(one.estimates, two.estimates, strict=True):
        assert joined.value == pytest.approx(alone.value, rel=1e-9)
        assert joined.variance == pytest.approx(alone.variance, rel=1e-9)


def test_a_ratio_that_was_the_same_for_all_before_changes_nothing():
    # its variance is rounding, above 0 or below
    for seed in range(40):
        arms = []
        for arm in (make_arm(2 * seed, 50), make_arm(2 * seed + 1, 50)):
            alike = {**arm, "clicks_before": 0.3 * arm["impressions_before"]}
            arms.append(Aggregates.from_arrays(alike))
        found = cuped(arms, CTR, [CTR_BEFORE])
        assert found.theta == (0,)
        assert found.estimates == tuple(estimate(arm, CTR) for arm in arms)
        assert found.variance_saved == 0


def test_no_covariate_raises():
    with pytest.raises(ValueError, match="0 covariates"):
        cuped([CONTROL, TREATMENT], PAY, [])


def test_no_arm_raises():
    with pytest.raises(ValueError, match="0 arms"):
        cuped([], PAY, [PAY_BEFORE])


def test_a_metric_without_variance_raises():
    arm = Aggregates.from_arrays({"pay": [1.0, 1.0], "pay_before": [0.0, 1.0]})
    with pytest.raises(ValueError, match="no variance in any arm"):
        cuped([arm, arm], PAY, [PAY_BEFORE])


def test_nobody_there_before_raises():
    arm = Aggregates.from_arrays(
        {
            "clicks": [0.0, 1.0],
            "impressions": [2.0, 3.0],
            "clicks_before": [0.0, 0.0],
            "impressions_before": [0.0, 0.0],
        }
    )
    with pytest.raises(ValueError, match="'impressions_before' sums to 0"):
        cuped([arm, arm], CTR, [CTR_BEFORE])
