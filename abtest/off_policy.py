"""What another policy would have earned, from the log of one that chose at random."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from abtest.stats import Estimate

MIN_EFFECTIVE_UNITS = 100.0
"""Below, a few units with large weights are all there is."""
MIN_EFFECTIVE_REWARDS = 30.0
"""Below, a few rewards decide, and no interval holds what it says."""


class OffPolicy(NamedTuple):
    """An inverse-propensity estimate and how much data is behind it."""

    estimate: Estimate
    """Of the mean reward; to be compared like any other."""
    effective_units: float
    """(sum of weights)² / sum of squared weights."""
    effective_rewards: float
    """The same of weights times rewards: how many rewards carry the sum."""


def effective_size(weights: ArrayLike) -> float:
    """Kish's: as many equal weights would vary as much.

    >>> effective_size([1, 1, 1, 1]), effective_size([1, 0, 0, 0])
    (4.0, 1.0)
    """
    given = np.asarray(weights, float)
    squares = float(given @ given)
    return float(given.sum() ** 2) / squares if squares else 0.0


def inverse_propensity(
    rewards: ArrayLike, logged: ArrayLike, target: ArrayLike | float
) -> OffPolicy:
    """Mean reward of a policy that did not run, by self-normalised inverse propensity.

    Args:
        rewards: Of each unit that was randomised, 0 or more. [units]
        logged: Chance with which the log's policy chose what it chose. [units]
        target: Chance with which the other policy would have. [units]

    Raises:
        ValueError: Lengths that differ, chances outside 0 to 1 (0 itself for the log's), rewards
            below 0, or fewer effective units or rewards than mean anything: that many are named.

    Source:
        Swaminathan & Joachims, NeurIPS 2015; variance by the delta method, as of any ratio.
    """
    reward, chance = np.asarray(rewards, float), np.asarray(logged, float)
    wanted = np.broadcast_to(np.asarray(target, float), reward.shape)
    if reward.ndim != 1 or reward.shape != chance.shape:
        raise ValueError(f"rewards {reward.shape}, propensities {chance.shape}: want one for each")
    if not (np.all((chance > 0) & (chance <= 1)) and np.all((wanted >= 0) & (wanted <= 1))):
        raise ValueError("propensities: want chances, above 0 for the log's policy and at most 1")
    if not (np.all(np.isfinite(reward)) and np.all(reward >= 0)):
        raise ValueError("rewards: want finite numbers from 0 on")
    weights = wanted / chance
    units, carried = effective_size(weights), effective_size(weights * reward)
    if units < MIN_EFFECTIVE_UNITS or carried < MIN_EFFECTIVE_REWARDS:
        raise ValueError(
            f"{len(reward):,} units count as {units:,.0f}, and their rewards as {carried:,.1f}; "
            f"want {MIN_EFFECTIVE_UNITS:,.0f} and {MIN_EFFECTIVE_REWARDS:,.0f}: the policies "
            "differ too much, or the log is too short"
        )
    value = float(weights @ reward / weights.sum())
    pull = weights * (reward - value) / weights.mean()
    return OffPolicy(Estimate(value, float(pull.var(ddof=1)), len(reward)), units, carried)
