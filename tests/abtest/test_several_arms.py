from __future__ import annotations

import pytest

from abtest.several_arms import compare_arms
from abtest.stats import Estimate, compare

ARMS = {
    "control": Estimate(10, 25, 1000),
    "a": Estimate(10.6, 25, 1000),
    "b": Estimate(10.5, 25, 1000),
    "c": Estimate(10.1, 25, 1000),
}


def test_each_is_compared_with_the_first() -> None:
    pairs = [(pair.control, pair.treatment) for pair in compare_arms(ARMS)]
    assert pairs == [("control", "a"), ("control", "b"), ("control", "c")]


def test_all_pairs_are_compared_on_request() -> None:
    assert len(compare_arms(ARMS, is_all_pairs=True)) == 6


@pytest.mark.parametrize("is_all_pairs", [True, False])
def test_an_interval_excludes_no_effect_where_holm_does(is_all_pairs: bool) -> None:
    found = compare_arms(ARMS, is_all_pairs=is_all_pairs)
    assert any(pair.adjusted_pvalue <= 0.05 for pair in found)
    for pair in found:
        inside = pair.comparison.ci_low <= 0 <= pair.comparison.ci_high
        assert inside == (pair.adjusted_pvalue > 0.05)


def test_two_arms_are_a_plain_comparison() -> None:
    arms = {name: ARMS[name] for name in ("control", "a")}
    (pair,) = compare_arms(arms)
    assert pair.comparison == compare(arms["control"], arms["a"])
    assert pair.adjusted_pvalue == pair.comparison.pvalue


@pytest.mark.parametrize("count", [1, 7])
def test_other_numbers_of_arms_raise(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} arms"):
        compare_arms({str(arm): Estimate(1, 1, 10) for arm in range(count)})
