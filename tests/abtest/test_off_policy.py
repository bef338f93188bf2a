from __future__ import annotations

import numpy as np
import pytest

from abtest.off_policy import effective_size, inverse_propensity


def test_the_value_of_another_policy_is_recovered_and_its_interval_holds() -> None:
    rng = np.random.default_rng(4)
    rates, logging, other = (np.array(x) for x in ([0.02, 0.1], [0.7, 0.3], [0.2, 0.8]))
    truth, inside = float(rates @ other), 0
    for _ in range(400):
        arm = rng.choice(2, 5_000, p=logging)
        clicks = rng.random(5_000) < rates[arm]
        found = inverse_propensity(clicks, logging[arm], other[arm]).estimate
        inside += abs(found.value - truth) <= 1.96 * found.squared_error**0.5
    assert 0.92 <= inside / 400 <= 0.98


def test_the_same_policy_is_the_plain_mean() -> None:
    rewards = np.random.default_rng(1).random(500)
    found = inverse_propensity(rewards, np.full(500, 0.25), 0.25)
    assert found.estimate.value == pytest.approx(rewards.mean())
    assert found.estimate.variance == pytest.approx(rewards.var(ddof=1))
    assert found.effective_units == pytest.approx(500)


def test_only_the_proportions_of_the_weights_count() -> None:
    # as where the other policy would have chosen something else for half of all units
    rng = np.random.default_rng(2)
    rewards, logged, target = (rng.uniform(0.2, 0.9, 800) for _ in range(3))
    one, half = (inverse_propensity(rewards, logged, part * target) for part in (1, 0.5))
    assert half.estimate == pytest.approx(one.estimate)


def test_a_log_that_says_too_little_is_refused() -> None:
    weights = np.full(5_000, 0.5)
    rewards = np.zeros(5_000)
    rewards[:20] = 1
    with pytest.raises(ValueError, match="5,000 units count as 5,000, and their rewards as 20"):
        inverse_propensity(rewards, weights, 0.5)
    weights[0] = 1e-6
    with pytest.raises(ValueError, match="policies differ too much"):
        inverse_propensity(np.ones(5_000), weights, 0.5)


def test_impossible_values_are_refused() -> None:
    with pytest.raises(ValueError, match="want one for each"):
        inverse_propensity([1, 0], [0.5], 0.5)
    with pytest.raises(ValueError, match="above 0 for the log's policy"):
        inverse_propensity([1, 0], [0.5, 0.0], 0.5)
    with pytest.raises(ValueError, match="from 0 on"):
        inverse_propensity([1, -1], [0.5, 0.5], 0.5)
    assert effective_size([0, 0]) == 0
