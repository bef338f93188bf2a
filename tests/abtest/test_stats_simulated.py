"""What the statistics promise, on experiments whose truth is known. All seeds are fixed."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import stats

from abtest.aggregates import Aggregates, capped, pooled_cap
from abtest.confidence_sequences import critical
from abtest.cuped import cuped
from abtest.deals import Deals
from abtest.group_sequential import SPENDING, bounds, crossing, sequential_test
from abtest.quantiles import quantile_of_rows
from abtest.sample_ratio import sample_ratio, sequential_sample_ratio
from abtest.stats import (
    Estimate,
    Ratio,
    compare,
    estimate,
    log_ratio_interval,
    non_inferior,
    normal_statistic,
)
from benchmarks.aa_rates import definitions, rejected_at_some_look, shoppers

RUNS = 2000
UNITS = 400
CTR, PAY = Ratio("clicks", "impressions"), Ratio("pay")


def make_arm(rng: np.random.Generator, lift: float = 1.0, units: int = UNITS):
    """Users whose clicks cluster and whose pay is skewed, with what they did before."""
    taste, wealth = rng.beta(2, 8, units), rng.lognormal(0, 0.6, units)
    before, during = rng.poisson(9, units), rng.poisson(9, units) + 1
    return {
        "clicks": rng.binomial(during, np.minimum(taste * lift, 1)),
        "impressions": during,
        "clicks_before": rng.binomial(before, taste),
        "impressions_before": before,
        "pay": wealth * rng.gamma(2, 1, units) * lift,
        "pay_before": wealth * rng.gamma(2, 1, units),
    }


@cache
def experiments(lift: float) -> list[tuple[Aggregates, Aggregates]]:
    rng = np.random.default_rng(7)
    return [
        (Aggregates.from_arrays(make_arm(rng)), Aggregates.from_arrays(make_arm(rng, lift)))
        for _ in range(RUNS)
    ]


def comparisons(metric: Ratio, lift: float = 1.0, covariate: Ratio | None = None):
    for arms in experiments(lift):
        if covariate:
            yield compare(*cuped(arms, metric, [covariate]).estimates)
        else:
            yield compare(*(estimate(arm, metric) for arm in arms))


def share(facts) -> float:
    return float(np.mean(list(facts)))


def assert_rejects_at(alpha: float, rejected: float, runs: int = RUNS):
    low, high = stats.binom.interval(0.999, runs, alpha)
    assert low <= rejected * runs <= high


PLAIN_AND_ADJUSTED = [
    (CTR, None),
    (PAY, None),
    (CTR, Ratio("clicks_before", "impressions_before")),
    (PAY, Ratio("pay_before")),
]


class TestWithoutEffect:
    @pytest.mark.parametrize(("metric", "covariate"), PLAIN_AND_ADJUSTED)
    def test_tests_reject_at_alpha(self, metric, covariate):
        found = comparisons(metric, covariate=covariate)
        assert_rejects_at(0.05, share(each.pvalue <= 0.05 for each in found))

    def test_taking_impressions_for_units_would_not(self):
        rng = np.random.default_rng(3)
        rejected = []
        for _ in range(500):
            clicks, impressions = np.array(
                [[arm[name].sum() for name in CTR] for arm in (make_arm(rng), make_arm(rng))]
            ).T
            pooled = clicks.sum() / impressions.sum()
            error = np.sqrt(pooled * (1 - pooled) * (1 / impressions).sum())
            rejected.append(abs(np.diff(clicks / impressions)[0]) / error > 1.96)
        assert share(rejected) > 0.10

    def test_a_common_cap_keeps_alpha(self):
        rng, rejected = np.random.default_rng(5), []
        for _ in range(RUNS):
            arms = {name: rng.lognormal(0, 2, UNITS) for name in ("control", "treatment")}
            cap = pooled_cap(arms, 0.99)
            pay = [
                estimate(Aggregates.from_arrays({"pay": capped(arm, cap)}), PAY)
                for arm in arms.values()
            ]
            rejected.append(compare(*pay).pvalue <= 0.05)
        assert_rejects_at(0.05, share(rejected))


class TestCoverage:
    @pytest.mark.parametrize(("metric", "covariate"), PLAIN_AND_ADJUSTED)
    def test_intervals_hold_the_true_effect(self, metric, covariate):
        lift = 1.15
        truth = 0.2 if metric == CTR else 2 * np.exp(0.18)
        found = list(comparisons(metric, lift, covariate))
        covered = share(each.ci_low <= truth * (lift - 1) <= each.ci_high for each in found)
        relative = share(each.rel_ci_low <= lift - 1 <= each.rel_ci_high for each in found)
        assert 0.94 <= covered <= 0.96
        assert 0.94 <= relative <= 0.96

    def test_log_ratio_intervals_hold_small_effects(self):
        found = [log_ratio_interval(each) for each in comparisons(CTR, 1.15)]
        assert 0.94 <= share(low <= 0.15 <= high for low, high in found) <= 0.96

    def test_covariates_make_intervals_as_much_shorter_as_they_say(self):
        arms = experiments(1.0)[0]
        saved = cuped(arms, PAY, [Ratio("pay_before")]).variance_saved
        plain, adjusted = (
            next(comparisons(PAY, covariate=before)).std_error
            for before in (None, Ratio("pay_before"))
        )
        assert saved > 0.05
        assert adjusted**2 == pytest.approx((1 - saved) * plain**2)

    @pytest.mark.parametrize("probability", [0.5, 0.9])
    def test_quantiles_of_clustered_rows(self, probability):
        rng = np.random.default_rng(11)
        covered = []
        for _ in range(1000):
            arms = []
            for shift in (0.0, 0.2):
                owner = np.repeat(np.arange(300), rng.geometric(0.2, 300))
                log_ms = rng.normal(shift, 0.6, 300)[owner] + rng.normal(0, 0.8, len(owner))
                arms.append(quantile_of_rows(np.exp(log_ms), owner, probability))
            found = compare(*arms)
            # both parts are normal: one of standard deviation 1
            truth = np.exp(stats.norm.ppf(probability)) * (np.exp(0.2) - 1)
            covered.append(found.ci_low <= truth <= found.ci_high)
        assert 0.94 <= share(covered) <= 0.96


class TestNonInferiority:
    @pytest.mark.parametrize("metric", [CTR, PAY])
    def test_at_the_margin_it_passes_a_fortieth(self, metric):
        found = comparisons(metric, 0.9)
        passed = share(non_inferior(each, 0.1).is_non_inferior for each in found)
        assert_rejects_at(0.025, passed)

    def test_without_a_difference_it_passes_with_enough_units(self):
        found = comparisons(PAY, 1.0, Ratio("pay_before"))
        assert share(non_inferior(each, 0.2).is_non_inferior for each in found) > 0.75


class TestManyLooks:
    @pytest.mark.parametrize("spending", SPENDING)
    def test_fourteen_planned_looks_reject_at_alpha(self, spending):
        runs, fractions = 50_000, np.arange(1, 15) / 14
        steps = np.random.default_rng(1).normal(size=(runs, 14))
        paths = np.cumsum(steps, axis=1) / np.sqrt(np.arange(1, 15))
        rejected = np.any(np.abs(paths) >= bounds(fractions, spending=spending), axis=1)
        assert_rejects_at(0.05, share(rejected), runs)
        assert crossing(fractions, [1.96] * 14).sum() > 0.2

    def test_a_look_a_day_at_users_who_come_back_rejects_at_most_alpha(self):
        found = rejected_at_some_look(shoppers(3_000), definitions(), Deals(4_000, seed=5))
        assert len(found) == 6  # CTR, CVR and PAY, with covariates and without
        for shares in found.values():
            assert 0.03 <= shares["looks by the calendar"] <= 0.05
            assert 0.005 <= shares["confidence sequence"] <= 0.05
            # most users come early and most of what they do comes late: users are the wrong clock
            assert shares["looks by users"] > 0.06
            assert shares["peeking"] > 0.15

    @pytest.mark.parametrize("units", [2, 3, 5, 10])
    def test_planned_looks_at_a_few_units_reject_at_most_alpha(self, units):
        fractions = (0.5, 1.0)
        rng, last = np.random.default_rng(units), bounds(fractions)[-1]
        found = []
        for arms in rng.normal(size=(3_000, 2, units)):
            pay = [Estimate(arm.mean(), arm.var(ddof=1), units) for arm in arms]
            found.append(compare(*pay))
        assert share(normal_statistic(each) >= last for each in found) <= 0.055
        # what a bound of normal statistics would do
        plain = share(abs(each.statistic) >= last for each in found)
        assert plain > {2: 0.12, 3: 0.10, 5: 0.07, 10: 0.05}[units]

    def test_final_pvalues_are_uniform_without_effect(self):
        fractions = (0.25, 0.5, 0.75, 1.0)
        steps = np.random.default_rng(4).normal(0, 0.5, (100, 4))
        paths = np.cumsum(steps, axis=1) / np.sqrt(fractions)
        found = [sequential_test(path, fractions).pvalue for path in paths]
        assert stats.kstest(found, "uniform").pvalue > 0.01

    def test_a_confidence_sequence_holds_at_a_thousand_looks(self):
        rng, runs, looks, batch = np.random.default_rng(6), 500, 1000, 20
        counts = batch * np.arange(1, looks + 1)
        missed = np.zeros(runs, bool)
        width = np.array([critical(2 * count, 10_000) for count in counts])
        for run in range(runs):
            users = rng.exponential(size=(2, looks, batch))  # pay, skewed
            mean = users.sum(axis=2).cumsum(axis=1) / counts
            square = (users**2).sum(axis=2).cumsum(axis=1) / counts
            variance = (square - mean**2) * counts / (counts - 1)
            statistic = (mean[1] - mean[0]) / np.sqrt(variance.sum(axis=0) / counts)
            missed[run] = np.any(np.abs(statistic[10:]) > width[10:])  # from 220 users an arm
        assert share(missed) <= 0.05


class TestSampleRatio:
    def test_the_fixed_test_rejects_at_alpha(self):
        draws = np.random.default_rng(8).multinomial(20_000, [0.5, 0.3, 0.2], 2000)
        rejected = share(sample_ratio(row, [0.5, 0.3, 0.2]).pvalue <= 0.05 for row in draws)
        assert_rejects_at(0.05, rejected)

    def test_the_sequential_test_never_rejects_too_often(self):
        rng = np.random.default_rng(9)
        days = rng.multinomial(2000, [0.5, 0.5], (1000, 60)).cumsum(axis=1)
        rejected = share(sequential_sample_ratio(run, [0.5, 0.5])[-1] <= 0.05 for run in days)
        assert rejected <= 0.05

    def test_both_catch_51_to_49(self):
        rng = np.random.default_rng(10)
        days = rng.multinomial(10_000, [0.51, 0.49], (200, 14)).cumsum(axis=1)
        assert share(sample_ratio(run[-1], [0.5, 0.5]).pvalue < 0.001 for run in days) > 0.99
        assert share(sequential_sample_ratio(run, [0.5, 0.5])[-1] < 0.001 for run in days) > 0.99
