"""Plans against statsmodels and tea-tasting."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
import tea_tasting as tt
from statsmodels.stats.power import TTestIndPower

from abtest.aggregates import Aggregates
from abtest.group_sequential import bounds, crossing, inflation
from abtest.power import Design, days_needed, minimal_effect, power, sample_size
from abtest.stats import Ratio, estimate

THEIRS = TTestIndPower()


class TestAgainstStatsmodels:
    @pytest.mark.parametrize("units", [40, 1000, 100_000])
    @pytest.mark.parametrize("alpha", [0.05, 0.01])
    def test_power_of_equal_arms(self, units, alpha):
        effect = 2.5 * math.sqrt(4 * 9 / units)
        expected = THEIRS.power(effect / 3, units / 2, alpha)
        assert power(Design(9, alpha=alpha), effect, units) == pytest.approx(expected, abs=1e-6)

    def test_sample_size(self):
        expected = 2 * THEIRS.solve_power(0.05, power=0.9, alpha=0.05)
        assert sample_size(Design(1), 0.05, 0.9) == math.ceil(expected)

    def test_minimal_effect(self):
        # their solver stops early; their power does not
        found = minimal_effect(Design(1), 10_000)
        assert THEIRS.power(found, 5000, 0.05) == pytest.approx(0.8, abs=1e-6)

    def test_non_inferiority_is_the_one_sided_test_from_the_margin(self):
        expected = THEIRS.power(0.1, 1000, 0.025, alternative="larger")
        found = power(Design(1, margin=0.15), -0.05, 2000)
        assert found == pytest.approx(expected, abs=1e-6)

    def test_several_comparisons_share_alpha(self):
        # four arms: each comparison has half of all units and a third of alpha
        expected = THEIRS.power(0.1, 1000, 0.05 / 3)
        found = power(Design(1, shares=(0.25, 0.25), comparisons=3), 0.1, 4000)
        assert found == pytest.approx(expected, abs=1e-6)


class TestAgainstTeaTasting:
    @pytest.mark.parametrize("ratio", [1, 0.25, 3])
    def test_ratio_metrics_and_unequal_arms(self, ratio):
        rng = np.random.default_rng(0)
        impressions = rng.poisson(9, 3000) + 1
        columns = {"impressions": impressions, "clicks": rng.binomial(impressions, 0.2)}
        arm = estimate(Aggregates.from_arrays(columns), Ratio("clicks", "impressions"))
        design = Design(arm.variance, shares=(1 / (1 + ratio), ratio / (1 + ratio)))
        theirs = tt.RatioOfMeans(
            "clicks", "impressions", rel_effect_size=0.03, n_obs=20_000, ratio=ratio
        )
        expected = theirs.solve_power(pa.table(columns), "power")[0].power
        assert power(design, 0.03 * arm.value, 20_000) == pytest.approx(expected, abs=1e-6)


class TestConsistency:
    @pytest.mark.parametrize(
        "design",
        [
            Design(4),
            Design(4, treatment_variance=9, shares=(0.8, 0.2)),
            Design(4, margin=0.2),
            Design(4, comparisons=5, inflation=1.2),
        ],
    )
    def test_size_effect_and_power_invert_one_another(self, design):
        units = sample_size(design, 0.05, 0.8)
        assert power(design, 0.05, units) >= 0.8 > power(design, 0.05, units - 2)
        assert minimal_effect(design, units, 0.8) == pytest.approx(0.05, rel=1e-3)

    def test_within_a_margin_even_a_small_harm_can_be_found_fine(self):
        design = Design(4, margin=0.2)
        units = sample_size(design, -0.05, 0.8)
        assert minimal_effect(design, units, 0.8) == pytest.approx(-0.05, rel=1e-3)

    def test_direction_does_not_matter_without_a_margin(self):
        assert power(Design(4), -0.1, 9000) == power(Design(4), 0.1, 9000)

    def test_no_effect_is_found_as_often_as_alpha(self):
        assert power(Design(4), 0.0, 9000) == pytest.approx(0.05)

    def test_planned_looks_keep_the_power(self):
        fractions = [0.25, 0.5, 0.75, 1.0]
        design = Design(4, inflation=inflation(fractions))
        units = sample_size(design, 0.1, 0.8)
        reached = crossing(fractions, bounds(fractions), 0.1 / math.sqrt(4 * 4 / units))
        assert reached.sum() == pytest.approx(0.8, abs=1e-3)


class TestDays:
    def test_fewer_new_users_come_every_day(self):
        curve = 1000 * 0.9 ** np.arange(28)
        assert days_needed(5000, curve) == 7
        assert days_needed(9000, curve) == 22

    def test_a_curve_that_ends_before_says_so(self):
        assert days_needed(11_000, 1000 * 0.9 ** np.arange(28)) is None

    @pytest.mark.parametrize("curve", [[1, -1], [math.nan], [math.inf]])
    def test_a_bad_curve_raises(self, curve):
        with pytest.raises(ValueError, match="new units by day"):
            days_needed(10, curve)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variance": 0}, "variance"),
        ({"variance": math.nan}, "variance"),
        ({"treatment_variance": -1.0}, "treatment_variance"),
        ({"alpha": 0}, "alpha"),
        ({"shares": (0.7, 0.7)}, "shares"),
        ({"shares": (0.0, 0.5)}, "shares"),
        ({"comparisons": 0}, "comparisons"),
        ({"inflation": 0.5}, "inflation"),
        ({"margin": 0.0}, "margin"),
    ],
)
def test_an_impossible_design_raises(change, message):
    with pytest.raises(ValueError, match=message):
        Design(**{"variance": 1.0, **change})


@pytest.mark.parametrize(
    ("design", "effect"), [(Design(1), 0.0), (Design(1, margin=0.1), -0.1), (Design(1), math.nan)]
)
def test_nothing_to_find_raises(design, effect):
    with pytest.raises(ValueError, match="effect"):
        sample_size(design, effect)


def test_too_few_units_raise():
    with pytest.raises(ValueError, match="1 in an arm"):
        power(Design(1), 0.1, 2)


@pytest.mark.parametrize("wanted", [0.01, 1.0])
def test_an_impossible_power_raises(wanted):
    with pytest.raises(ValueError, match="power"):
        sample_size(Design(1), 0.1, wanted)
