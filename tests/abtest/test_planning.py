from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from statsmodels.stats.power import TTestIndPower

from abtest.aggregates import Aggregates
from abtest.group_sequential import inflation
from abtest.plan_plot import plan_svg
from abtest.planning import Setup, plan, plans, ratio_variance
from abtest.stats import Estimate, Ratio, estimate
from tests.abtest.test_simulate import METRICS, users

CURVE = (900, 700, 600, 500, 450, 400, 380, 350)


def test_users_are_those_of_statsmodels() -> None:
    found = plan("pay", Estimate(50.0, 400.0, 2), Setup(), 0.04)
    wanted = 2 * TTestIndPower().solve_power(2.0 / 20.0, power=0.8, alpha=0.05)
    assert found.users == pytest.approx(wanted, abs=2)


def test_days_come_from_the_curve_and_are_never_extrapolated() -> None:
    near = plan("x", Estimate(1.0, 1.0, 2), Setup(), 0.1, CURVE)
    assert near.users is not None
    assert near.days == 1 + int(np.sum(np.cumsum(CURVE) < near.users))
    assert plan("x", Estimate(1.0, 1.0, 2), Setup(), 0.01, CURVE).days is None
    assert plan("x", Estimate(1.0, 1.0, 2), Setup(), 0.1).days is None


def test_the_smallest_effect_of_a_day_is_found_by_its_users() -> None:
    measured = Estimate(2.0, 9.0, 2)
    found = plan("x", measured, Setup(), None, CURVE)
    assert [day.users for day in found.by_day] == list(np.cumsum(CURVE))
    smallest = [day.mde for day in found.by_day]
    assert smallest == sorted(smallest, reverse=True)
    last = found.by_day[-1]
    assert last.mde is not None
    assert plan("x", measured, Setup(), last.mde).users == pytest.approx(last.users, abs=2)
    assert plan("x", measured, Setup(), None, (1, 5_000)).by_day[0].mde is None


def test_covariates_comparisons_and_looks_change_the_users() -> None:
    everybody = Aggregates.from_arrays(users(4_000))
    plain, with_cuped = plans(everybody, "ctr", METRICS["ctr"], Setup(), 0.02)
    assert plain.users is not None
    assert with_cuped.users == pytest.approx(plain.users * (1 - with_cuped.variance_saved), abs=4)
    two = plans(everybody, "ctr", METRICS["ctr"], Setup(comparisons=2), 0.02)[0]
    assert two.users is not None
    assert two.users > 1.15 * plain.users
    looks = plans(everybody, "ctr", METRICS["ctr"], Setup(looks=4), 0.02)[0]
    assert looks.users == pytest.approx(plain.users * inflation([0.25, 0.5, 0.75, 1.0]), abs=4)


def test_looks_cost_what_they_cost_at_the_level_that_comparisons_leave() -> None:
    measured, fractions = Estimate(1.0, 1.0, 2), [0.25, 0.5, 0.75, 1.0]
    once, often = (plan("x", measured, Setup(comparisons=6, looks=n), 0.02).users for n in (1, 4))
    assert once is not None
    assert often == pytest.approx(once * inflation(fractions, alpha=0.05 / 6), rel=1e-4)
    assert often != pytest.approx(once * inflation(fractions), rel=1e-4)


def test_typed_in_moments_of_a_ratio_are_the_delta_method() -> None:
    columns = users(3_000)
    top, bottom = columns["clicks"], columns["impressions"]
    typed = ratio_variance(
        top.mean(),
        top.std(ddof=1),
        bottom.mean(),
        bottom.std(ddof=1),
        float(np.corrcoef(top, bottom)[0, 1]),
    )
    measured = estimate(Aggregates.from_arrays(columns), Ratio("clicks", "impressions"))
    assert typed.value == pytest.approx(measured.value)
    assert typed.variance == pytest.approx(measured.variance)


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(ValueError, match="its value is 0"):
        plan("x", Estimate(0.0, 1.0, 2), Setup(), 0.1)
    with pytest.raises(ValueError, match="effect"):
        plan("x", Estimate(1.0, 1.0, 2), Setup(), 0.0)
    with pytest.raises(ValueError, match="denominator mean: 0"):
        ratio_variance(1, 1, 0, 1, 0)
    with pytest.raises(ValueError, match="-1 to 1"):
        ratio_variance(1, 1, 1, 1, 2)
    with pytest.raises(ValueError, match="nothing to draw"):
        plan_svg([plan("x", Estimate(1.0, 1.0, 2), Setup(), 0.1)])


def test_the_drawing_is_xml_and_escapes_names() -> None:
    everybody = Aggregates.from_arrays(users(1_000))
    found = plans(everybody, "<ctr>", METRICS["ctr"], Setup(), None, CURVE)
    drawn = ET.fromstring(plan_svg(found))
    assert len(drawn.findall("{*}polyline")) == 2
    assert any(text.text == "<ctr> with CUPED" for text in drawn.findall("{*}text"))
