from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from serving.traffic import Answered, Traffic, Units, quantile_ms, ratio_pvalue


def test_units_are_counted_once_however_often_they_come() -> None:
    units = Units()
    for unit_hash in (1, 2, 3, 2, 1):
        units.add(unit_hash, "control")
    assert units.sampled == {"control": 3}
    assert units.scale == 1


def test_the_sample_is_bounded_and_knows_how_many_it_stands_for() -> None:
    draw = random.Random(0)
    units = Units(max_kept=1_000)
    for number in range(50_000):
        units.add(draw.getrandbits(64), "treatment" if number % 4 else "control")
    assert units.sampled.total() <= 1_000
    assert abs(units.sampled.total() * units.scale / 50_000 - 1) < 0.2
    assert ratio_pvalue(units.sampled, {"control": 0.25, "treatment": 0.75}) > 0.001
    assert ratio_pvalue(units.sampled, {"control": 0.5, "treatment": 0.5}) < 1e-6


def test_there_is_nothing_to_test_without_units_or_with_one_variant() -> None:
    assert ratio_pvalue({}, {"control": 0.5, "treatment": 0.5}) is None
    assert ratio_pvalue({"control": 5}, {"control": 1.0, "treatment": 0.0}) is None


@given(st.lists(st.floats(0, 10), min_size=1, max_size=300), st.integers(1, 100))
def test_a_quantile_is_one_of_the_values(seconds: list[float], per_cent: int) -> None:
    found = quantile_ms(seconds, per_cent)
    assert found in [round(1_000 * value, 3) for value in seconds]
    not_above = sum(round(1_000 * value, 3) <= found for value in seconds)
    assert not_above >= per_cent * len(seconds) / 100


def test_seconds_without_requests_are_zero() -> None:
    traffic = Traffic()
    assert traffic.per_second() == [0] * 60
    traffic.count(Answered((), "champion", "", "", 0.01), 0)
    assert traffic.answered.total() == 1
