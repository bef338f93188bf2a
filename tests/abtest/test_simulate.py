from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from abtest.aggregates import Aggregates
from abtest.cuped import cuped
from abtest.deals import Deals, UserTable, adjusted_values, dealt_arms, pull_of, values_of
from abtest.effects import ratio_of
from abtest.result import Definition
from abtest.simulate import Rate, simulate
from abtest.stats import Ratio, compare, estimate

Columns = dict[str, NDArray[np.float64]]


def users(count: int, seed: int = 1) -> Columns:
    """Shoppers who differ: what they did before says something about what they do."""
    rng = np.random.default_rng(seed)
    activity = rng.gamma(0.8, 1.25, count)
    taste = rng.beta(2, 30, count)
    impressions, before = (rng.poisson(activity * 20) for _ in range(2))
    clicks, clicked = (rng.binomial(shown, taste) for shown in (impressions + 1, before))
    orders = rng.binomial(clicks, 0.15)
    spent, earlier = (
        np.where(rng.random(count) < 0.3, rng.lognormal(3, 0.7, count), 0) * activity
        for _ in range(2)
    )
    made = {
        "impressions": impressions + 1,
        "clicks": clicks,
        "orders": orders,
        "amount": spent,
        "pre_impressions": before,
        "pre_clicks": clicked,
        "pre_amount": earlier,
        "has_pre": before > 0,
    }
    return {name: np.asarray(values, float) for name, values in made.items()}


def a_metric(text: str, *covariates: str) -> Definition:
    top, bottom = ratio_of(text)
    return Definition(
        role="primary", numerator=top, denominator=bottom, text=text, covariates=covariates
    )


METRICS = {
    "ctr": a_metric("clicks/impressions", "pre_clicks/pre_impressions"),
    "cvr": a_metric("orders/clicks", "pre_clicks/pre_impressions"),
    "pay": a_metric("amount", "pre_amount", "has_pre"),
}


def by_hand(columns: Columns, definition: Definition, is_treated: Any, gain: float) -> Any:
    changed = dict(columns)
    top = columns[definition.numerator]
    changed[definition.numerator] = np.where(is_treated, top * gain, top)
    arms = [
        Aggregates.from_arrays({name: values[mask] for name, values in changed.items()})
        for mask in (~is_treated, is_treated)
    ]
    metric = Ratio(definition.numerator, definition.denominator)
    covariates = [ratio_of(text) for text in definition.covariates]
    adjusted = cuped(arms, metric, covariates).estimates if covariates else None
    return compare(*(adjusted or (estimate(arm, metric) for arm in arms)))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("effect", [0.0, 0.1])
@pytest.mark.parametrize("with_covariates", [False, True])
def test_a_deal_is_what_the_statistics_of_one_experiment_say(
    metric: str, effect: float, with_covariates: bool
) -> None:
    columns = users(2_000)
    covariates = METRICS[metric].covariates if with_covariates else ()
    definition = a_metric(
        "/".join(n for n in (METRICS[metric].numerator, METRICS[metric].denominator) if n),
        *covariates,
    )
    deals = Deals(runs=1, share=0.4, seed=7)
    rate = simulate(columns, {metric: definition}, deals, {metric: effect})[-1]
    (treated,) = next(dealt_arms(2_000, deals))
    wanted = by_hand(columns, definition, treated == 1, 1 + effect)
    assert rate.mean_effect == pytest.approx(wanted.rel_effect, rel=1e-9)
    assert rate.rejected == (wanted.pvalue <= 0.05)
    assert rate.covered == (wanted.rel_ci_low <= effect <= wanted.rel_ci_high)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("with_covariates", [False, True])
def test_values_and_errors_of_deals_are_those_of_estimates(
    metric: str, with_covariates: bool
) -> None:
    columns, definition, deals = users(200), METRICS[metric], Deals(runs=3, share=0.2)
    if not with_covariates:
        definition = replace(definition, covariates=())
    table = UserTable.of(columns, definition)
    (treated,) = dealt_arms(200, deals)
    assert 0.1 < treated.mean() < 0.3
    arms = table.arms(treated, 1.1)
    found = [values_of(arm, table, pull_of(arm, table, table.metric)) for arm in arms]
    if with_covariates:
        covariates = [ratio_of(text) for text in definition.covariates]
        found = adjusted_values(arms, table, covariates, found)
    for deal, mask in enumerate(treated == 1):
        wanted = by_hand(columns, definition, mask, 1.1)
        for arm, expected in zip(found, (wanted.control, wanted.treatment), strict=True):
            assert arm.units[deal] == expected.units
            assert arm.value[deal] == pytest.approx(expected.value, rel=1e-9)
            assert arm.squared_error[deal] == pytest.approx(expected.squared_error, rel=1e-9)


def test_products_of_columns_keep_their_digits_at_an_offset() -> None:
    columns = {"x": 1e6 + np.random.default_rng(0).normal(size=500)}
    table = UserTable.of(columns, a_metric("x"))
    treated = next(dealt_arms(500, Deals(runs=3)))
    _, arm = table.arms(treated, 1.0)
    wanted = [columns["x"][mask == 1].var(ddof=1) for mask in treated]
    assert arm.comoments[:, 0, 0] / (arm.units - 1) == pytest.approx(wanted, rel=1e-8)


def test_a_covariate_that_was_the_same_for_all_changes_no_deal() -> None:
    columns = users(300)
    columns["pre_clicks"] = 0.3 * columns["pre_impressions"]
    plain, adjusted = simulate(columns, {"ctr": METRICS["ctr"]}, Deals(runs=50))
    assert adjusted._replace(is_cuped=False) == plain


def of(rates: list[Rate]) -> dict[tuple[str, bool], Rate]:
    return {(rate.metric, rate.is_cuped): rate for rate in rates}


def test_without_an_effect_tests_reject_at_alpha_with_and_without_covariates() -> None:
    rates = of(simulate(users(20_000), METRICS, Deals(runs=4_000, seed=2)))
    assert set(rates) == {(metric, which) for metric in METRICS for which in (False, True)}
    for rate in rates.values():
        assert 0.04 <= rate.rejected <= 0.06, rate
        assert rate.ci_low < rate.rejected < rate.ci_high


def test_an_injected_effect_is_recovered_and_intervals_hold_it() -> None:
    effects = {"ctr": 0.05, "cvr": -0.05, "pay": 0.1}
    rates = of(simulate(users(20_000), METRICS, Deals(runs=4_000, seed=3), effects))
    for (metric, is_cuped), rate in rates.items():
        assert 0.94 <= rate.covered <= 0.96, rate
        assert rate.mean_effect == pytest.approx(effects[metric], abs=0.012)
        assert rate.variance_saved > -0.001 if is_cuped else rate.variance_saved == 0
    assert rates["ctr", True].rejected > rates["ctr", False].rejected + 0.05
    assert rates["ctr", True].variance_saved > 0.2


def test_the_same_seed_gives_the_same_rates() -> None:
    columns = users(400)
    first, again, other = (
        simulate(columns, METRICS, Deals(runs=50, seed=seed)) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_what_cannot_be_simulated_is_refused() -> None:
    columns = users(100)
    few = Deals(runs=2)
    with pytest.raises(ValueError, match="effect of 'cr': no such metric"):
        simulate(columns, METRICS, few, {"cr": 0.1})
    with pytest.raises(ValueError, match="no variance"):
        simulate({"x": np.ones(100)}, {"x": a_metric("x")}, few)
    with pytest.raises(ValueError, match="3 users, want 4"):
        simulate({"x": np.arange(3.0)}, {"x": a_metric("x")}, few)
    with pytest.raises(ValueError, match="want 1 or more"):
        Deals(runs=0)
    with pytest.raises(ValueError, match="shares"):
        Deals(share=1.0)
