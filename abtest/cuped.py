"""CUPED: what a unit did before the experiment takes noise out of what it did during it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

import numpy as np

from abtest.aggregates import Aggregates, FloatArray
from abtest.stats import Estimate, Ratio, estimate, influence, spread, value


class Cuped(NamedTuple):
    """A metric of every arm with the covariates' noise taken out."""

    estimates: tuple[Estimate, ...]
    """One per arm, in the order given."""
    theta: tuple[float, ...]
    """Slope of the metric on each covariate, over all arms together."""
    variance_saved: float
    """Share of the squared error of all arms' values that is gone; 0.3 is 30 % fewer users."""


def cuped(arms: Sequence[Aggregates], metric: Ratio, covariates: Sequence[Ratio]) -> Cuped:
    """Adjust a mean or ratio by covariates from before the experiment.

    θ is one for all arms and each arm's covariates are taken from their mean over all arms, so
    the effect stays what it was without the adjustment, on average.

    Units that were not there before count with zeros in the covariate's columns. For a covariate
    that is a ratio nothing more is needed: such a unit pulls neither way. For a mean add a second
    covariate that is 1 for units that were there and 0 for others, or "was not there" is taken
    for "paid nothing".

    Args:
        arms: Of the same columns, the covariates' among them.
        metric: What the experiment changes.
        covariates: What it cannot have changed: totals from before a unit's first exposure.

    Raises:
        ValueError: No arm, no covariate, fewer than two units in an arm, or a denominator that
            sums to 0.

    Source:
        Deng, Xu, Kohavi & Walker, WSDM 2013; for ratios its section 3.5.
    """
    if not arms or not covariates:
        raise ValueError(f"cuped: {len(arms)} arms, {len(covariates)} covariates: want 1 or more")
    pooled = reduce(add, arms)
    theta = _slopes(pooled, metric, covariates)
    centre = np.array([value(pooled, covariate) for covariate in covariates])
    plain = [estimate(arm, metric) for arm in arms]
    adjusted = tuple(_adjust(arm, metric, covariates, theta, centre) for arm in arms)
    before = sum(arm.squared_error for arm in plain)
    after = sum(arm.squared_error for arm in adjusted)
    if before == 0:
        raise ValueError(f"{metric.numerator!r}: no variance in any arm, so none to save")
    return Cuped(adjusted, tuple(theta.tolist()), 1 - after / before)


def _slopes(pooled: Aggregates, metric: Ratio, covariates: Sequence[Ratio]) -> FloatArray:
    """Least squares of the metric's pull on the covariates'. [covariates]"""
    pulls = np.stack([influence(pooled, covariate) for covariate in covariates])
    # correlations, so that euros and counts weigh alike where covariates repeat one another;
    # one without variance gets no slope
    sizes = np.sqrt([spread(pooled, pull) for pull in pulls])
    scale = np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    pulls *= scale[:, None]
    among = pulls @ pooled.covariances @ pulls.T  # [covariates, covariates]
    shared = pulls @ pooled.covariances @ influence(pooled, metric)  # [covariates]
    return np.asarray(np.linalg.pinv(among, rcond=1e-10, hermitian=True) @ shared * scale)


def _adjust(
    arm: Aggregates,
    metric: Ratio,
    covariates: Sequence[Ratio],
    theta: FloatArray,
    centre: FloatArray,
) -> Estimate:
    pulls = np.stack([influence(arm, covariate) for covariate in covariates])
    pull = influence(arm, metric) - theta @ pulls
    values = np.array([value(arm, covariate) for covariate in covariates])
    return Estimate(
        value(arm, metric) - float(theta @ (values - centre)),
        spread(arm, pull),
        arm.count,
    )
