"""Comparisons against scipy, statsmodels and tea-tasting, and against one another."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
import tea_tasting as tt
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from abtest.aggregates import Aggregates
from abtest.stats import (
    Estimate,
    Ratio,
    compare,
    estimate,
    intervals,
    log_ratio_interval,
    non_inferior,
    normal_statistic,
    student_bound,
)

CTR = Ratio("clicks", "impressions")


def make_arm(seed: int, n: int = 900, lift: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    taste = rng.beta(2, 8, n)
    impressions = rng.poisson(9, n) + 1
    clicks = rng.binomial(impressions, np.minimum(taste * lift, 1))
    pay = rng.lognormal(2, 1, n) * (rng.random(n) < 0.3) * lift
    return {"clicks": clicks * 1.0, "impressions": impressions * 1.0, "pay": pay}


def from_plain_sums(columns: dict[str, np.ndarray]) -> Aggregates:
    return Aggregates.from_sums(
        len(columns["clicks"]),
        {name: float(values.sum()) for name, values in columns.items()},
        {(a, b): float(columns[a] @ columns[b]) for a in columns for b in columns},
    )


def both(lift: float = 1.1, n: int = 900):
    return make_arm(1, n), make_arm(2, n + 200, lift)


def compared(metric: Ratio, alpha: float = 0.05, lift: float = 1.1):
    control, treatment = (Aggregates.from_arrays(arm) for arm in both(lift))
    return compare(estimate(control, metric), estimate(treatment, metric), alpha)


class TestAgainstOtherLibraries:
    @pytest.mark.parametrize("alpha", [0.05, 0.2])
    def test_means_are_scipys_welch_test(self, alpha):
        control, treatment = both()
        expected = stats.ttest_ind(treatment["pay"], control["pay"], equal_var=False)
        interval = expected.confidence_interval(1 - alpha)
        found = compared(Ratio("pay"), alpha)
        assert found.pvalue == pytest.approx(expected.pvalue, abs=1e-9)
        assert found.statistic == pytest.approx(expected.statistic, rel=1e-9)
        assert found.df == pytest.approx(expected.df, rel=1e-9)
        assert (found.ci_low, found.ci_high) == pytest.approx(tuple(interval), rel=1e-9)

    def test_means_are_statsmodels(self):
        control, treatment = both()
        means = CompareMeans(DescrStatsW(treatment["pay"]), DescrStatsW(control["pay"]))
        found = compared(Ratio("pay"))
        expected = means.tconfint_diff(usevar="unequal")
        assert (found.ci_low, found.ci_high) == pytest.approx(expected, rel=1e-9)
        assert found.pvalue == pytest.approx(means.ttest_ind(usevar="unequal")[1], abs=1e-9)

    @pytest.mark.parametrize("lift", [1.0, 1.1, 1.5])
    def test_ratios_are_tea_tastings(self, lift):
        expected = tea(tt.RatioOfMeans("clicks", "impressions"), *both(lift))
        found = compared(CTR, lift=lift)
        assert found.effect == pytest.approx(expected.effect_size, rel=1e-9)
        assert found.ci_low == pytest.approx(expected.effect_size_ci_lower, rel=1e-6)
        assert found.ci_high == pytest.approx(expected.effect_size_ci_upper, rel=1e-6)
        assert found.rel_effect == pytest.approx(expected.rel_effect_size, rel=1e-9)
        assert found.pvalue == pytest.approx(expected.pvalue, abs=1e-9)

    def test_log_ratio_is_near_tea_tastings_for_small_effects(self):
        # theirs takes each arm's error over its own value, so its p-value may contradict it
        expected = tea(tt.RatioOfMeans("clicks", "impressions"), *both(1.05))
        low, high = log_ratio_interval(compared(CTR, lift=1.05))
        assert low == pytest.approx(expected.rel_effect_size_ci_lower, abs=0.002)
        assert high == pytest.approx(expected.rel_effect_size_ci_upper, abs=0.002)

    @pytest.mark.parametrize("metric", [CTR, Ratio("pay")])
    def test_fieller_ends_where_the_scaled_test_does(self, metric):
        found = compared(metric)
        critical = stats.t.isf(0.025, found.df)

        def excess(scale: float) -> float:
            gap = found.treatment.value - scale * found.control.value
            error = found.treatment.squared_error + scale**2 * found.control.squared_error
            return abs(gap) / math.sqrt(error) - critical

        middle = 1 + found.rel_effect
        low = optimize.brentq(excess, 0, middle, xtol=1e-14) - 1
        high = optimize.brentq(excess, middle, 9, xtol=1e-14) - 1
        assert (found.rel_ci_low, found.rel_ci_high) == pytest.approx((low, high), rel=1e-9)

    def test_absolute_non_inferiority_is_statsmodels_shifted_test(self):
        control, treatment = both(1.0)
        means = CompareMeans(DescrStatsW(treatment["pay"]), DescrStatsW(control["pay"]))
        _, expected, _ = means.ttest_ind("larger", "unequal", value=-0.5)
        found = non_inferior(compared(Ratio("pay"), lift=1.0), 0.5, is_relative=False)
        assert found.pvalue == pytest.approx(expected, abs=1e-9)

    @pytest.mark.parametrize("is_higher_better", [True, False])
    def test_relative_non_inferiority_is_scipys_test_against_the_scaled_control(
        self, is_higher_better
    ):
        control, treatment = both(1.0)
        scale, side = (0.9, "greater") if is_higher_better else (1.1, "less")
        expected = stats.ttest_ind(
            treatment["pay"], scale * control["pay"], equal_var=False, alternative=side
        )
        comparison = compared(Ratio("pay"), lift=1.0)
        found = non_inferior(comparison, 0.1, is_higher_better=is_higher_better)
        # the degrees of freedom are those of the comparison: a difference in the sixth digit
        assert found.pvalue == pytest.approx(expected.pvalue, abs=1e-5)


def tea(metric, control, treatment):
    table = pa.table(
        {
            "variant": [0] * len(control["pay"]) + [1] * len(treatment["pay"]),
            **{name: np.concatenate([control[name], treatment[name]]) for name in control},
        }
    )
    return tt.Experiment({"metric": metric}).analyze(table)["metric"]


values = st.floats(-100, 100).map(lambda value: round(value, 3))
estimates = st.builds(
    Estimate, values, st.floats(1e-4, 1e4), st.integers(2, 100_000)
)  # fmt: skip


class TestIntervalsAndPvaluesAgree:
    @given(estimates, estimates, st.sampled_from([0.001, 0.05, 0.2]))
    @settings(max_examples=200, deadline=None)
    def test_whatever_the_data(self, control, treatment, alpha):
        found = compare(control, treatment, alpha)
        assume(abs(found.pvalue - alpha) > 1e-9)
        is_significant = found.pvalue <= alpha
        assert (found.ci_low > 0 or found.ci_high < 0) == is_significant
        if not math.isnan(found.rel_ci_low):
            assert (found.rel_ci_low > 0 or found.rel_ci_high < 0) == is_significant
            assert found.rel_ci_low <= found.rel_effect <= found.rel_ci_high
        low, high = log_ratio_interval(found)
        if not math.isnan(low):
            assert (low > 0 or high < 0) == is_significant

    @given(estimates, estimates, st.floats(0.01, 0.9), st.booleans(), st.booleans())
    @settings(max_examples=200, deadline=None)
    def test_non_inferior_is_an_interval_before_the_margin(
        self, control, treatment, margin, is_higher_better, is_relative
    ):
        assume(control.value)
        comparison = compare(control, treatment)
        found = non_inferior(
            comparison, margin, is_relative=is_relative, is_higher_better=is_higher_better
        )
        assume(abs(found.pvalue - 0.025) > 1e-9)
        low, high = (
            (comparison.rel_ci_low, comparison.rel_ci_high)
            if is_relative
            else (comparison.ci_low, comparison.ci_high)
        )
        assume(not math.isnan(low))
        assert found.is_non_inferior == (low > -margin if is_higher_better else high < margin)

    def test_signs_of_both_effects_agree_below_zero(self):
        found = compare(Estimate(-10, 1, 100), Estimate(-12, 1, 100))
        assert found.effect < 0
        assert found.rel_effect == pytest.approx(-0.2)
        assert found.rel_ci_low < -0.2 < found.rel_ci_high < 0

    def test_swapping_the_arms_swaps_the_interval(self):
        control, treatment = Estimate(5, 9, 50), Estimate(6, 4, 80)
        one, other = compare(control, treatment), compare(treatment, control)
        assert (one.ci_low, one.ci_high) == pytest.approx((-other.ci_high, -other.ci_low))
        assert one.pvalue == pytest.approx(other.pvalue)


class TestWhatCannotBeSaid:
    def test_no_relative_interval_where_the_control_may_be_zero(self):
        found = compare(Estimate(0.1, 100, 100), Estimate(5, 100, 100))
        assert math.isnan(found.rel_ci_low)
        assert math.isnan(found.rel_ci_high)
        assert found.rel_effect == pytest.approx(49)

    def test_no_relative_effect_of_a_control_at_zero(self):
        assert math.isnan(compare(Estimate(0, 1, 10), Estimate(1, 1, 10)).rel_effect)

    def test_no_log_ratio_below_zero(self):
        low, high = log_ratio_interval(compare(Estimate(-1, 1, 10), Estimate(1, 1, 10)))
        assert math.isnan(low)
        assert math.isnan(high)

    @pytest.mark.parametrize("df", [1.0, 1.7, 9.0, 400.0, 1e7])
    @pytest.mark.parametrize("bound", [0.5, 1.96, 3.0, 8.0, 25.0, 700.0])
    def test_a_bound_of_students_is_crossed_where_the_normal_one_is(self, bound, df):
        wide = student_bound(bound, df)
        assert bound * (1 - 1e-9) <= wide < math.inf
        if bound < 8:
            chance = stats.t.sf(wide, df)
            assert chance == pytest.approx(stats.norm.sf(bound), rel=1e-6)
        plain = compare(Estimate(1, 1, 10), Estimate(2, 1, 10))
        for share, is_crossed in ((1 - 1e-6, False), (1 + 1e-6, True)):
            statistic = normal_statistic(plain._replace(statistic=-share * wide, df=df))
            assert (statistic >= bound) == is_crossed

    def test_an_infinite_critical_value_says_nothing(self):
        found = intervals(Estimate(1, 1, 10), Estimate(2, 1, 10), math.inf)
        assert (found.ci_low, found.ci_high) == (-math.inf, math.inf)
        assert math.isnan(found.rel_ci_low)

    @pytest.mark.parametrize(
        ("control", "message"),
        [
            (Estimate(1, 0, 10), "no variance"),
            (Estimate(math.nan, 1, 10), "value of an arm: nan"),
            (Estimate(1, math.inf, 10), "variance of an arm: inf"),
            (Estimate(1, -1, 10), "want 0 or more"),
            (Estimate(1, 1, 1), "1 units in an arm"),
            (Estimate(1, 1, 0), "0 units in an arm"),
        ],
    )
    def test_a_bad_arm_raises(self, control, message):
        with pytest.raises(ValueError, match=message):
            compare(control, Estimate(1, 0, 10))

    def test_an_alpha_outside_0_to_1_raises(self):
        with pytest.raises(ValueError, match="alpha: 5"):
            compare(Estimate(1, 1, 10), Estimate(1, 1, 10), 5)

    def test_a_denominator_of_zero_raises(self):
        arm = Aggregates.from_arrays({"clicks": [1.0, 0.0], "impressions": [0.0, 0.0]})
        with pytest.raises(ValueError, match="denominator 'impressions' sums to 0"):
            estimate(arm, CTR)

    @pytest.mark.parametrize("make", [Aggregates.from_arrays, from_plain_sums])
    def test_a_ratio_that_is_the_same_for_all_units_has_no_variance(self, make):
        # its terms cancel but for rounding: a standard error of 1e-9, and anything significant
        for seed in range(50):
            impressions = make_arm(seed)["impressions"]
            arm = make({"clicks": 0.3 * impressions, "impressions": impressions})
            assert estimate(arm, CTR).variance == 0

    @pytest.mark.parametrize("units", [0, 1])
    def test_fewer_than_two_units_raise(self, units):
        arm = Aggregates.from_arrays({"pay": [1.0] * units})
        with pytest.raises(ValueError, match="2 or more"):
            estimate(arm, Ratio("pay"))

    @pytest.mark.parametrize(
        ("margin", "is_relative"), [(0.0, True), (-0.1, False), (1.0, True), (math.nan, True)]
    )
    def test_a_bad_margin_raises(self, margin, is_relative):
        comparison = compare(Estimate(1, 1, 10), Estimate(1, 1, 10))
        with pytest.raises(ValueError, match="margin"):
            non_inferior(comparison, margin, is_relative=is_relative)

    def test_a_relative_margin_of_nothing_raises(self):
        with pytest.raises(ValueError, match="want an absolute margin"):
            non_inferior(compare(Estimate(0, 1, 10), Estimate(1, 1, 10)), 0.1)
