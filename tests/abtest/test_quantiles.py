"""Quantiles of clustered rows; their coverage is in test_stats_simulated."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from abtest.aggregates import Aggregates
from abtest.quantiles import quantile_estimate, quantile_of_rows
from abtest.stats import Ratio

RNG = np.random.default_rng(0)
UNITS = np.repeat(np.arange(400), 10)
VALUES = np.exp(RNG.normal(size=400)[UNITS] + RNG.normal(size=4000))


def test_the_value_is_numpys():
    assert quantile_of_rows(VALUES, UNITS, 0.95).value == np.quantile(VALUES, 0.95)


def test_one_row_per_unit_has_the_textbook_error():
    # sqrt(p (1 - p) / n) / density, of a normal distribution
    values = np.random.default_rng(1).normal(size=200_000)
    found = quantile_of_rows(values, np.arange(200_000), 0.9)
    expected = np.sqrt(0.9 * 0.1 / 200_000) / stats.norm.pdf(stats.norm.ppf(0.9))
    assert np.sqrt(found.squared_error) == pytest.approx(expected, rel=0.05)


def test_taking_rows_for_units_hides_most_of_the_error():
    honest = quantile_of_rows(VALUES, UNITS, 0.5).squared_error
    assert honest > 2 * quantile_of_rows(VALUES, np.arange(4000), 0.5).squared_error


def test_totals_of_units_give_the_same_as_rows():
    cut = np.quantile(VALUES, 0.9)
    totals = {"below": np.bincount(UNITS, cut >= VALUES), "rows": np.bincount(UNITS)}
    found = quantile_estimate(
        Aggregates.from_arrays(totals),
        Ratio("below", "rows"),
        0.9,
        lambda share: float(np.quantile(VALUES, share)),
    )
    assert found == quantile_of_rows(VALUES, UNITS, 0.9)


def test_names_of_units_do_not_matter():
    names = np.array([f"unit-{unit}" for unit in UNITS])
    assert quantile_of_rows(VALUES, names, 0.9).variance == pytest.approx(
        quantile_of_rows(VALUES, UNITS, 0.9).variance
    )


def test_too_few_units_for_a_quantile_raise():
    with pytest.raises(ValueError, match="want more units"):
        quantile_of_rows(VALUES[:200], UNITS[:200], 0.99)


@pytest.mark.parametrize(
    ("values", "units", "message"),
    [
        ([], [], "want one unit for each row"),
        ([1.0, 2.0], [1], "want one unit for each row"),
        ([1.0, np.nan, 2.0], [1, 2, 3], "1 are not finite"),
    ],
)
def test_bad_rows_raise(values, units, message):
    with pytest.raises(ValueError, match=message):
        quantile_of_rows(values, units, 0.5)


def test_a_probability_outside_0_to_1_raises():
    with pytest.raises(ValueError, match="probability: 95"):
        quantile_of_rows(VALUES, UNITS, 95)
