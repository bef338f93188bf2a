"""Confidence sequences against their published formula; coverage is in test_stats_simulated."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import optimize

from abtest.confidence_sequences import always_valid_pvalue, critical


def published(t: float, rho: float, alpha: float) -> float:
    """Half-width over the standard deviation: theorem 2.2 of Waudby-Smith et al. 2024."""
    inner = 2 * (t * rho**2 + 1) / (t**2 * rho**2) * math.log(math.sqrt(t * rho**2 + 1) / alpha)
    return math.sqrt(inner)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_it_is_the_published_one_at_its_tightest(alpha):
    best = optimize.minimize_scalar(
        lambda log_rho: published(5000, math.exp(log_rho), alpha), (-6, -3)
    )
    rho = math.exp(best.x)
    for units in (100, 5000, 1_000_000):
        found = critical(units, 5000, alpha) / math.sqrt(units)
        assert found == pytest.approx(published(units, rho, alpha), rel=1e-6)


@given(st.floats(-8, 8), st.integers(1, 10**7), st.sampled_from([0.01, 0.05, 0.2]))
def test_pvalue_and_interval_agree(statistic, units, alpha):
    limit = critical(units, 10_000, alpha)
    assume(abs(abs(statistic) - limit) > 1e-9)
    pvalue = always_valid_pvalue(statistic, units, 10_000, alpha)
    assert 0 < pvalue <= 1
    assert (pvalue <= alpha) == (abs(statistic) >= limit)


@pytest.mark.parametrize(
    ("units", "tuned", "alpha", "message"),
    [(0, 10, 0.05, "units"), (10, 0, 0.05, "tuned units"), (10, 10, 1.0, "alpha")],
)
def test_bad_numbers_raise(units, tuned, alpha, message):
    with pytest.raises(ValueError, match=message):
        critical(units, tuned, alpha)


def test_a_statistic_that_is_no_number_raises():
    with pytest.raises(ValueError, match="statistic: nan"):
        always_valid_pvalue(math.nan, 10, 10)
