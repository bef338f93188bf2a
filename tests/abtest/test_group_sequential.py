"""Bounds against published tables and an independent integration."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from abtest.group_sequential import (
    MAX_BOUND,
    SPENDING,
    bounds,
    crossing,
    drift,
    inflation,
    sequential_test,
)

FIVE = (0.2, 0.4, 0.6, 0.8, 1.0)
FOURTEEN = tuple(np.arange(1, 15) / 14)


class TestPublishedTables:
    @pytest.mark.parametrize(
        ("spending", "expected"),
        [
            # Lan & DeMets' program (Reboussin et al. 2000; R packages ldbounds and gsDesign),
            # two-sided 0.05, five equal looks; the last of its four digits is rounding
            ("obrien-fleming", (4.8769, 3.3569, 2.6803, 2.2898, 2.0310)),
            ("pocock", (2.4380, 2.4268, 2.4101, 2.3966, 2.3859)),
        ],
    )
    def test_five_looks(self, spending, expected):
        assert bounds(FIVE, spending=spending) == pytest.approx(expected, abs=2e-4)

    def test_four_one_sided_looks(self):
        # README of PharmCat/SeqBounds.jl: one-sided 0.05, so two-sided 0.1 here. The other side
        # takes away less than its rounding
        expected = (3.74955, 2.53993, 2.01604, 1.72014)
        assert bounds((0.25, 0.5, 0.75, 1.0), 0.1) == pytest.approx(expected, abs=1e-4)

    @pytest.mark.parametrize(
        ("looks", "constant"),
        # Jennison & Turnbull 2000, table 2.1: Pocock's constants, two-sided 0.05
        [(2, 2.178), (3, 2.289), (4, 2.361), (5, 2.413), (10, 2.555)],
    )
    def test_constants_of_pocock_spend_alpha(self, looks, constant):
        fractions = np.arange(1, looks + 1) / looks
        assert crossing(fractions, [constant] * looks).sum() == pytest.approx(0.05, abs=1e-4)

    @pytest.mark.parametrize(
        ("looks", "constant"),
        # the same, table 2.3: O'Brien & Fleming's
        [(2, 1.977), (3, 2.004), (4, 2.024), (5, 2.040), (10, 2.087)],
    )
    def test_constants_of_obrien_and_fleming_spend_alpha(self, looks, constant):
        fractions = np.arange(1, looks + 1) / looks
        found = crossing(fractions, constant / np.sqrt(fractions)).sum()
        assert found == pytest.approx(0.05, abs=1e-4)

    def test_fourteen_daily_peeks_at_1_96_reject_a_fifth(self):
        assert crossing(FOURTEEN, [1.96] * 14).sum() == pytest.approx(0.218, abs=0.01)


class TestAgainstOtherIntegration:
    @pytest.mark.parametrize("spending", SPENDING)
    @pytest.mark.parametrize("fractions", [(0.3, 1.0), (0.1, 0.6, 1.2)])
    def test_what_is_spent_is_scipys_multivariate_normal(self, spending, fractions):
        limits, times = np.array(bounds(fractions, spending=spending)), np.array(fractions)
        correlation = np.sqrt(np.minimum.outer(times, times) / np.maximum.outer(times, times))
        inside = stats.multivariate_normal.cdf(
            limits, cov=correlation, lower_limit=-limits, abseps=1e-7, maxpts=500_000, rng=1
        )
        assert 1 - inside == pytest.approx(0.05, abs=1e-6)

    def test_power_under_drift_is_that_of_simulated_paths(self):
        limits = bounds(FIVE)
        steps = np.random.default_rng(0).normal(2.5 / 5, math.sqrt(0.2), (200_000, 5))
        paths = np.cumsum(steps, axis=1) / np.sqrt(FIVE)
        simulated = np.mean(np.any(np.abs(paths) >= limits, axis=1))
        assert crossing(FIVE, limits, 2.5).sum() == pytest.approx(simulated, abs=0.004)

    def test_looks_close_together_are_as_exact(self):
        fractions = (0.5, 0.501, 0.502, 1.0)
        assert crossing(fractions, bounds(fractions)).sum() == pytest.approx(0.05, abs=1e-10)


class TestBounds:
    def test_one_look_is_the_plain_test(self):
        assert bounds([1.0]) == pytest.approx([stats.norm.isf(0.025)])

    @given(
        st.lists(st.floats(0.01, 1), min_size=1, max_size=5, unique_by=lambda x: round(x, 2)),
        st.sampled_from([0.01, 0.05, 0.2]),
        st.sampled_from(sorted(SPENDING)),
    )
    @settings(max_examples=40, deadline=None)
    def test_alpha_is_spent_whatever_the_looks(self, fractions, alpha, spending):
        looks = sorted(fractions)
        limits = bounds(looks, alpha, spending, is_final=True)
        assert crossing(looks, limits).sum() == pytest.approx(alpha, abs=1e-9)

    def test_bounds_of_past_looks_do_not_depend_on_later_ones(self):
        assert bounds(FIVE)[:2] == pytest.approx(bounds([0.2, 0.4]), abs=1e-7)

    def test_a_bound_that_chance_never_reaches_stops_at_the_largest(self):
        assert bounds([0.01, 1.0])[0] == MAX_BOUND

    def test_a_last_look_too_early_spends_what_is_left(self):
        assert bounds([0.5, 0.8], is_final=True)[1] < bounds([0.5, 0.8])[1]

    @pytest.mark.parametrize(
        "fractions", [[], [0.0, 1.0], [0.5, 0.5], [0.6, 0.4], [1.0, 1.2], [math.nan]]
    )
    def test_bad_fractions_raise(self, fractions):
        with pytest.raises(ValueError, match="fractions"):
            bounds(fractions)

    def test_an_unknown_spending_names_those_there_are(self):
        with pytest.raises(ValueError, match="there are obrien-fleming, pocock"):
            bounds([1.0], spending="haybittle")

    def test_bounds_for_other_looks_raise(self):
        with pytest.raises(ValueError, match="1 bounds for 5 looks"):
            crossing(FIVE, [2.0])


class TestVerdict:
    def test_a_test_that_goes_on_has_no_final_pvalue(self):
        found = sequential_test([1.0, 2.0], FIVE[:2])
        assert found.stopped_at is None
        assert math.isnan(found.pvalue)
        assert found.repeated_pvalue > 0.05

    def test_one_look_has_the_plain_pvalue(self):
        found = sequential_test([2.2], [1.0])
        assert found.pvalue == pytest.approx(2 * stats.norm.sf(2.2), abs=1e-9)
        assert found.repeated_pvalue == pytest.approx(found.pvalue, rel=1e-6)

    def test_stopping_at_the_first_look_has_its_plain_pvalue(self):
        found = sequential_test([0.1, 3.5], [0.2, 0.4])
        assert found.stopped_at == 1
        earlier = crossing([0.2], bounds([0.2])).sum()
        assert found.pvalue == pytest.approx(earlier + 2 * stats.norm.sf(3.5), rel=0.01)

    @given(st.lists(st.floats(-4, 4), min_size=5, max_size=5), st.sampled_from(sorted(SPENDING)))
    @settings(max_examples=40, deadline=None)
    def test_pvalues_agree_with_the_bounds(self, statistics, spending):
        found = sequential_test(statistics, FIVE, spending=spending)
        limits = bounds(FIVE, spending=spending)
        crossed = np.abs(statistics) >= limits
        assert (found.stopped_at is not None) == crossed.any()
        assert (found.pvalue <= 0.05) == crossed.any()
        if abs(abs(statistics[-1]) - limits[-1]) > 1e-5:
            assert (found.repeated_pvalue <= 0.05) == crossed[-1]

    @pytest.mark.parametrize("alpha", [0.001, 0.05, 0.2])
    @pytest.mark.parametrize("spending", SPENDING)
    @pytest.mark.parametrize("is_final", [True, False])
    def test_at_its_bound_the_repeated_pvalue_is_alpha(self, alpha, spending, is_final):
        fractions = (0.3, 0.5, 0.9)
        limit = bounds(fractions, alpha, spending, is_final=is_final)[-1]
        found = sequential_test([0, 0, -limit], fractions, 0.05, spending, is_final=is_final)
        assert found.repeated_pvalue == pytest.approx(alpha, rel=1e-6)

    def test_no_effect_at_all_has_pvalue_one(self):
        found = sequential_test([0.0, 0.0], [0.5, 1.0])
        assert (found.pvalue, found.repeated_pvalue) == pytest.approx((1, 1), abs=1e-6)

    def test_bad_statistics_raise(self):
        with pytest.raises(ValueError, match="1 statistics for 5 looks"):
            sequential_test([1.0], FIVE)
        with pytest.raises(ValueError, match="statistic: nan"):
            sequential_test([math.nan], [1.0])


class TestPlanning:
    @pytest.mark.parametrize("power", [0.8, 0.9])
    def test_drift_has_its_power(self, power):
        assert crossing(FIVE, bounds(FIVE), drift(FIVE, power)).sum() == pytest.approx(power)

    def test_published_inflation_of_pocock_and_obrien_fleming(self):
        # Jennison & Turnbull 2000, tables 2.2 and 2.4: 1.229 and 1.028 at power 0.8
        from scipy.optimize import brentq

        fixed = (stats.norm.isf(0.025) + stats.norm.ppf(0.8)) ** 2
        for limits, expected in (([2.413] * 5, 1.229), (2.040 / np.sqrt(FIVE), 1.028)):
            found = brentq(
                lambda theta, limits=limits: crossing(FIVE, limits, theta).sum() - 0.8, 1, 6
            )
            assert found**2 / fixed == pytest.approx(expected, abs=1e-3)

    def test_one_look_needs_no_more(self):
        assert inflation([1.0]) == pytest.approx(1, abs=1e-5)

    def test_looks_cost_little_with_obrien_fleming(self):
        assert 1 < inflation(FIVE) < 1.03 < inflation(FIVE, spending="pocock") < 1.25

    def test_a_power_below_alpha_raises(self):
        with pytest.raises(ValueError, match="power"):
            drift(FIVE, 0.01)
