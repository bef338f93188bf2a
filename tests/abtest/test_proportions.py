"""Shares against statsmodels, a published table and a likelihood maximised by scipy."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.proportion import proportions_ztest

from abtest.proportions import compare_proportions


@pytest.mark.parametrize(
    ("control", "treatment", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 1998, table II, method 5 (Mee), 95 %
        ((48, 80), (56, 70), 0.0533, 0.3377),
        ((3, 10), (9, 10), 0.1821, 0.8370),
    ],
)
def test_intervals_are_the_published_ones(control, treatment, low, high):
    # statsmodels' own score interval has a wrong coefficient (its issue 10269)
    found = compare_proportions(control, treatment)
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("control", "treatment"), [((12, 100), (25, 100)), ((3, 40), (9, 55)), ((0, 30), (4, 30))]
)
def test_test_is_statsmodels(control, treatment):
    found = compare_proportions(control, treatment)
    expected = proportions_ztest([treatment[0], control[0]], [treatment[1], control[1]])
    assert (found.statistic, found.pvalue) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("control", "treatment"), [((12, 100), (25, 100)), ((250, 900), (3, 40)), ((2, 7), (6, 7))]
)
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_limits_are_where_the_likeliest_shares_so_far_apart_are_rejected(control, treatment, alpha):
    found, critical = compare_proportions(control, treatment, alpha), stats.norm.isf(alpha / 2)
    for gap, side in ((found.ci_low, 1), (found.ci_high, -1)):
        share = optimize.minimize_scalar(
            lambda share, gap=gap: (
                -stats.binom.logpmf(*control, share) - stats.binom.logpmf(*treatment, share + gap)
            ),
            bounds=(max(0, -gap), min(1, 1 - gap)),
            method="bounded",
            options={"xatol": 1e-12},
        ).x
        other = share + gap
        error = share * (1 - share) / control[1] + other * (1 - other) / treatment[1]
        assert (found.effect - gap) / error**0.5 == pytest.approx(side * critical, abs=1e-6)


arms = st.tuples(st.integers(0, 60), st.integers(1, 60)).filter(lambda arm: arm[0] <= arm[1])


@given(arms, arms, st.sampled_from([0.01, 0.05, 0.3]))
@settings(max_examples=200, deadline=None)
def test_interval_and_pvalue_agree(control, treatment, alpha):
    found = compare_proportions(control, treatment, alpha)
    assert -1 <= found.ci_low <= found.effect <= found.ci_high <= 1
    assume(abs(found.pvalue - alpha) > 1e-9)
    assert (found.ci_low > 0 or found.ci_high < 0) == (found.pvalue <= alpha)


@pytest.mark.parametrize("share", [0, 20])
def test_arms_that_are_all_alike_say_nothing_of_a_difference(share):
    found = compare_proportions((share, 20), (share, 20))
    assert (found.effect, found.pvalue) == (0, 1)
    assert found.ci_low < 0 < found.ci_high


@pytest.mark.parametrize("arm", [(0, 0), (-1, 5), (6, 5)])
def test_bad_counts_raise(arm):
    with pytest.raises(ValueError, match=f"{arm[0]} of {arm[1]} units"):
        compare_proportions(arm, (1, 5))
