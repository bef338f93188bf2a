"""Sample ratios against scipy's distributions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from abtest.sample_ratio import sample_ratio, sequential_sample_ratio

WEIGHTS = [0.5, 0.3, 0.2]


def test_fixed_test_is_scipys():
    counts = [5123, 2950, 1927]
    expected = stats.chisquare(counts, np.array(WEIGHTS) * 10_000)
    found = sample_ratio(counts, WEIGHTS)
    assert found.pvalue == pytest.approx(expected.pvalue, abs=1e-12)
    assert found.expected == pytest.approx((5000, 3000, 2000))


def test_one_look_is_the_bayes_factor_of_scipys_distributions():
    # 10,000 is the concentration of the authors' package, ssrm
    counts, prior = np.array([560, 250, 190]), 10_000 * np.array(WEIGHTS)
    log_factor = stats.dirichlet_multinomial.logpmf(counts, prior, 1000) - stats.multinomial.logpmf(
        counts, 1000, WEIGHTS
    )
    found = sequential_sample_ratio([counts], WEIGHTS)
    assert found[0] == pytest.approx(min(np.exp(-log_factor), 1), abs=1e-9)


def test_units_one_by_one_give_the_published_product():
    # Lindon & Malek 2022, section 3: each unit multiplies the factor by predicted / configured
    arms = np.random.default_rng(0).choice(3, 400, p=[0.8, 0.1, 0.1])
    prior, factor, smallest = 20 * np.array(WEIGHTS), 1.0, []
    for arm in arms:
        factor *= prior[arm] / prior.sum() / WEIGHTS[arm]
        prior[arm] += 1
        smallest.append(min(1 / factor, smallest[-1] if smallest else 1))
    counts = np.cumsum(np.eye(3)[arms], axis=0)
    np.testing.assert_allclose(sequential_sample_ratio(counts, WEIGHTS, 20), smallest, rtol=1e-9)


def test_pvalues_never_rise():
    counts = np.cumsum(np.random.default_rng(1).poisson([60, 50], (30, 2)), axis=0)
    assert np.all(np.diff(sequential_sample_ratio(counts, [0.5, 0.5])) <= 0)


def test_uneven_weights_are_no_mismatch():
    assert sample_ratio([9000, 1000], [0.9, 0.1]).pvalue == 1


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.4], "sum to 0.9, want 1"),
        ([1.0], "two or more"),
        ([1.5, -0.5], "positive"),
        ([float("nan"), 0.5], "positive"),
    ],
)
def test_bad_weights_raise(weights, message):
    with pytest.raises(ValueError, match=message):
        sample_ratio([1] * len(weights), weights)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([0, 0], "no units"),
        ([-1, 5], "from 0 on"),
        ([1, float("nan")], "from 0 on"),
        ([1, 2, 3], "want one for each of 2"),
    ],
)
def test_bad_counts_raise(counts, message):
    with pytest.raises(ValueError, match=message):
        sample_ratio(counts, [0.5, 0.5])


def test_counts_that_fall_raise():
    with pytest.raises(ValueError, match="want running sums"):
        sequential_sample_ratio([[10, 10], [5, 12]], [0.5, 0.5])
