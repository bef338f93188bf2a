"""Moments against numpy, whichever way they were added up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abtest.aggregates import Aggregates, capped, pooled_cap


def make_columns(seed: int = 0, n: int = 200, offset: float = 0.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    impressions = rng.poisson(8, n) + 1.0
    return {"clicks": rng.binomial(8, 0.2, n) + offset, "impressions": impressions + offset}


def sums_of(columns, shifts=None):
    moved = {name: values - (shifts or {}).get(name, 0.0) for name, values in columns.items()}
    names = list(moved)
    products = {(a, b): float(moved[a] @ moved[b]) for i, a in enumerate(names) for b in names[i:]}
    return {name: float(values.sum()) for name, values in moved.items()}, products


def assert_equals_numpy(arm: Aggregates, columns, rel: float = 1e-10):
    expected = np.cov(np.stack(list(columns.values())))
    assert arm.count == len(columns["clicks"])
    assert arm.mean("clicks") == pytest.approx(columns["clicks"].mean(), rel=1e-14)
    np.testing.assert_allclose(arm.covariances, expected, rtol=rel, atol=rel)


class TestMoments:
    def test_arrays_give_numpys_moments(self):
        columns = make_columns()
        assert_equals_numpy(Aggregates.from_arrays(columns), columns)

    def test_sums_give_numpys_moments(self):
        columns = make_columns()
        assert_equals_numpy(Aggregates.from_sums(200, *sums_of(columns)), columns)

    def test_one_product_of_a_pair_is_enough_in_either_order(self):
        sums, products = sums_of(make_columns())
        products[("impressions", "clicks")] = products.pop(("clicks", "impressions"))
        assert Aggregates.from_sums(200, sums, products).cov("clicks", "impressions") != 0

    @given(cut=st.integers(0, 60), seed=st.integers(0, 5))
    @settings(max_examples=40, deadline=None)
    def test_parts_add_up_to_the_whole(self, cut, seed):
        columns = make_columns(seed, 60)
        parts = [
            Aggregates.from_arrays({name: values[part] for name, values in columns.items()})
            for part in (slice(None, cut), slice(cut, None))
        ]
        assert_equals_numpy(parts[0] + parts[1], columns)


class TestLargeOffsets:
    def test_arrays_keep_their_variance(self):
        columns = make_columns(offset=1e9)
        assert_equals_numpy(Aggregates.from_arrays(columns), columns)
        near = make_columns()["clicks"].var(ddof=1)
        assert Aggregates.from_arrays(columns).var("clicks") == pytest.approx(near, rel=1e-6)

    def test_merging_keeps_the_variance(self):
        days = [Aggregates.from_arrays(make_columns(seed, offset=1e9)) for seed in range(50)]
        whole = np.concatenate([make_columns(seed)["clicks"] for seed in range(50)])
        assert sum(days[1:], days[0]).var("clicks") == pytest.approx(whole.var(ddof=1), rel=1e-6)

    def test_shifted_sums_keep_the_variance(self):
        columns, shifts = make_columns(offset=1e9), {"clicks": 1e9, "impressions": 1e9}
        arm = Aggregates.from_sums(200, *sums_of(columns, shifts), shifts)
        assert_equals_numpy(arm, columns, 1e-6)

    def test_plain_sums_lose_digits_with_the_square_of_the_offset(self):
        # mean / standard deviation is about 1e4: 8 of 16 digits go
        arm = Aggregates.from_sums(200, *sums_of(make_columns(offset=1e4)))
        assert arm.var("clicks") == pytest.approx(make_columns()["clicks"].var(ddof=1), rel=1e-6)

    def test_a_spread_lost_in_rounding_is_none(self):
        arm = Aggregates.from_sums(200, *sums_of(make_columns(offset=1e9)))
        assert arm.var("clicks") == 0

    @pytest.mark.parametrize("price", [0.1, 0.3, 19.99])
    def test_equal_values_that_a_database_added_up_do_not_vary(self, price):
        # number by number, as databases do: off by more the more there are, to either side
        count = 1_000_000
        total, squares = (float(np.full(count, x).cumsum()[-1]) for x in (price, price * price))
        arm = Aggregates.from_sums(count, {"pay": total}, {("pay", "pay"): squares})
        assert arm.var("pay") == 0
        assert arm.mean("pay") == pytest.approx(price, rel=1e-9)

    def test_equal_values_do_not_vary(self):
        for count in range(2, 50):  # the mean of three 0.1 is 0.10000000000000002
            assert Aggregates.from_arrays({"pay": [0.1] * count}).var("pay") == 0


class TestCaps:
    def test_the_cap_is_that_of_all_arms(self):
        arms = {"control": [1.0, 2.0, 3.0], "treatment": [4.0, 100.0]}
        assert pooled_cap(arms, 0.75) == 4.0
        assert capped(arms["treatment"], 4.0).tolist() == [4.0, 4.0]

    def test_one_in_a_thousand_is_capped_if_nothing_is_said(self):
        cap = pooled_cap({"control": np.arange(1_000.0), "treatment": np.arange(1_000.0, 2_000.0)})
        assert cap == pytest.approx(0.999 * 1_999)

    def test_no_units_raise(self):
        with pytest.raises(ValueError, match="no units"):
            pooled_cap({"control": []})

    def test_a_cap_that_is_no_number_raises(self):
        with pytest.raises(ValueError, match="cap: nan"):
            capped([1.0], np.nan)

    def test_a_probability_outside_0_to_1_raises(self):
        with pytest.raises(ValueError, match="probability of the cap"):
            pooled_cap({"control": [1.0]}, 1.5)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "no columns"),
        ({"clicks": [1.0, np.nan]}, "1 values are not finite"),
        ({"clicks": [1.0, np.inf]}, "not finite"),
        ({"clicks": [[1.0], [2.0]]}, "want one value per unit"),
        ({"clicks": [1.0], "impressions": [1.0, 2.0]}, "different lengths"),
    ],
)
def test_bad_columns_raise(columns, message):
    with pytest.raises(ValueError, match=message):
        Aggregates.from_arrays(columns)


@pytest.mark.parametrize(
    ("count", "sums", "products", "message"),
    [
        (-1, {"pay": 1.0}, {("pay", "pay"): 1.0}, "-1 units"),
        (2, {"pay": 1.0}, {}, "missing"),
        (2, {"pay": np.nan}, {("pay", "pay"): 1.0}, "not finite"),
        (2, {"pay": 4.0}, {("pay", "pay"): 1.0}, "too small for its sum"),
    ],
)
def test_bad_sums_raise(count, sums, products, message):
    with pytest.raises(ValueError, match=message):
        Aggregates.from_sums(count, sums, products)


def test_no_units_add_nothing():
    columns = make_columns()
    empty = Aggregates.from_sums(0, *({"clicks": 0.0, "impressions": 0.0}, {
        ("clicks", "clicks"): 0.0, ("clicks", "impressions"): 0.0,
        ("impressions", "impressions"): 0.0,
    }))  # fmt: skip
    assert_equals_numpy(empty + Aggregates.from_arrays(columns), columns)
    assert (empty + empty).count == 0


def test_one_unit_has_no_variance():
    with pytest.raises(ValueError, match="1 units in an arm"):
        Aggregates.from_arrays({"pay": [1.0]}).var("pay")


def test_an_unknown_column_names_those_there_are():
    with pytest.raises(ValueError, match="there are clicks, impressions"):
        Aggregates.from_arrays(make_columns()).mean("pay")


def test_other_columns_do_not_add_up():
    with pytest.raises(ValueError, match="do not add up"):
        Aggregates.from_arrays({"a": [1.0]}) + Aggregates.from_arrays({"b": [1.0]})
