"""How many units an experiment needs, what it can find, and for how many days it must run.

Everything starts from the variance between units of an ``Estimate`` made from a historical log:
that of a mean, of a ratio, or of either with covariates, so one set of formulas serves them all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize
from scipy import stats as distributions

from abtest.checks import between, finite


@dataclass(frozen=True)
class Design:
    """One comparison to be made."""

    variance: float
    """Of the metric between units, as ``Estimate.variance`` of a log as long as the experiment."""
    treatment_variance: float | None = None
    """The same in the treatment; None: as in the control."""
    shares: tuple[float, float] = (0.5, 0.5)
    """Of all units of the experiment, in control and treatment; other arms have the rest."""
    alpha: float = 0.05
    """Two-sided, of all comparisons together."""
    comparisons: int = 1
    """How many share alpha. Each gets an equal part; Holm's method never asks for more."""
    margin: float | None = None
    """Non-inferiority: how much worse is still fine, above 0, in the unit of the metric. The
    test is then one-sided at half of alpha, and effects above 0 are improvements."""
    inflation: float = 1.0
    """Of planned looks: ``group_sequential.inflation``."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        between("variance", self.variance, 0, math.inf)
        between("treatment_variance", self.variances[1], 0, math.inf)
        between("alpha", self.alpha)
        if min(self.shares) <= 0 or sum(self.shares) > 1 + 1e-9:
            raise ValueError(f"shares {self.shares}: want two positive ones, at most 1 together")
        if self.comparisons < 1 or self.inflation < 1:
            raise ValueError(
                f"comparisons {self.comparisons}, inflation {self.inflation}: want 1 or more"
            )
        if self.margin is not None:
            between("margin", self.margin, 0, math.inf)

    @property
    def variances(self) -> tuple[float, float]:
        """Of control and treatment."""
        other = self.treatment_variance
        return self.variance, self.variance if other is None else other


def power(design: Design, effect: float, units: float) -> float:
    """Chance that the experiment finds the effect.

    Args:
        design: The comparison.
        effect: True difference of the metric; a relative effect times the control's value.
        units: Of the whole experiment, all arms together.

    Raises:
        ValueError: An effect that is not finite, or an arm of fewer than two units.
    """
    finite("effect", effect)
    counts = np.array(design.shares) * units / design.inflation
    if not counts.min() >= 2:
        raise ValueError(f"{units:g} units: {counts.min():g} in an arm, want 2 or more")
    errors = np.array(design.variances) / counts
    df = float(errors.sum() ** 2 / (errors**2 / (counts - 1)).sum())
    level = design.alpha / design.comparisons / 2
    critical = float(distributions.t.isf(level, df))
    if design.margin is None:
        shift = abs(effect) / math.sqrt(errors.sum())
        return _beyond(critical, df, shift) + _beyond(critical, df, -shift)
    return _beyond(critical, df, (effect + design.margin) / math.sqrt(errors.sum()))


def sample_size(design: Design, effect: float, power_wanted: float = 0.8) -> int:
    """Units of the whole experiment that give this chance of finding the effect.

    Raises:
        ValueError: No effect to find, a true effect at or beyond the margin, or a power that is
            not between alpha and 1.
    """
    between("power", power_wanted, design.alpha, 1)
    finite("effect", effect)
    distance = abs(effect) if design.margin is None else effect + design.margin
    between("effect, from what is tested", distance, 0, math.inf)

    def missing(log_units: float) -> float:
        return power(design, effect, math.exp(log_units)) - power_wanted

    low = math.log(3 * design.inflation / min(design.shares))
    if missing(low) >= 0:
        return math.ceil(math.exp(low))
    high = low + 1
    while missing(high) < 0:
        high += 1
    return math.ceil(math.exp(optimize.brentq(missing, low, high, xtol=1e-12)))


def minimal_effect(design: Design, units: float, power_wanted: float = 0.8) -> float:
    """Smallest true effect that is found with this chance (mde).

    Raises:
        ValueError: Too few units, or a power that is not between alpha and 1.
    """
    between("power", power_wanted, design.alpha, 1)
    floor = -(design.margin or 0.0)

    def missing(distance: float) -> float:
        return power(design, floor + distance, units) - power_wanted

    high = math.sqrt(sum(design.variances) / units)
    while missing(high) < 0:
        high *= 2
    return floor + float(optimize.brentq(missing, 0, high, xtol=1e-12 * high, rtol=1e-12))


def days_needed(units: float, new_units_by_day: Sequence[float]) -> int | None:
    """Days until so many units have come, whole weeks not yet considered.

    Users do not grow linearly: the second week brings fewer new ones than the first. So the
    curve is one from a log, and nothing is extrapolated.

    Args:
        units: Of the whole experiment.
        new_units_by_day: Units seen for the first time on each day since the start.

    Returns:
        Days, or None if the curve ends before.

    Raises:
        ValueError: Not even one unit, or a day with a negative or non-finite count.

    >>> days_needed(250, [100, 80, 60, 50])
    4
    >>> days_needed(300, [100, 80, 60, 50]) is None
    True
    """
    between("units", units, 0, math.inf)
    curve = np.asarray(new_units_by_day, float)
    if not np.all(np.isfinite(curve)) or np.any(curve < 0):
        raise ValueError(f"new units by day: {curve.tolist()}, want numbers from 0 on")
    enough = np.flatnonzero(np.cumsum(curve) >= units)
    return int(enough[0]) + 1 if len(enough) else None


def _beyond(critical: float, df: float, shift: float) -> float:
    """Chance that a statistic expected at ``shift`` is above ``critical``."""
    return float(distributions.nct.sf(critical, df, shift))
