"""How long to run an experiment, for any metric: users, smallest effect, days."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from abtest import power
from abtest.aggregates import Aggregates
from abtest.checks import between, finite
from abtest.cuped import cuped
from abtest.effects import ratio_of
from abtest.group_sequential import inflation
from abtest.power import Design
from abtest.result import Definition
from abtest.stats import Estimate, Ratio, estimate


@dataclass(frozen=True)
class Setup:
    """The experiment that is planned."""

    shares: tuple[float, float] = (0.5, 0.5)
    """Of its users, in control and treatment."""
    alpha: float = 0.05
    power: float = 0.8
    comparisons: int = 1
    """Primary metrics times treatments; they share alpha."""
    looks: int = 1
    """Planned ones, equally far apart; each costs a few users."""


class Day(NamedTuple):
    """The end of a day of the experiment."""

    day: int
    users: float
    mde: float | None
    """Smallest relative effect found with the power wanted; None: too few users."""


class Plan(NamedTuple):
    """Of one metric."""

    metric: str
    is_cuped: bool
    value: float
    variance: float
    """Between users."""
    variance_saved: float
    """By covariates; 0 without."""
    effect: float | None
    """Relative, that is to be found; None: nobody said."""
    users: int | None
    """That find it, all arms together."""
    days: int | None
    """Until so many have come; None: more than the curve has, or there is no curve."""
    by_day: tuple[Day, ...]


def plans(
    users: Aggregates,
    metric: str,
    definition: Definition,
    setup: Setup,
    effect: float | None,
    new_users_by_day: Sequence[float] = (),
) -> list[Plan]:
    """A plan without covariates, and one with them where there are any.

    Args:
        users: Totals over a log as long as the experiment, of everybody in it.
        metric: Its name.
        definition: Of a mean or a ratio.
        setup: The experiment.
        effect: Relative, to be found; None: only what can be found by day.
        new_users_by_day: Users seen for the first time on each day.

    Raises:
        ValueError: A value of 0, no variance, an effect of 0, or what ``abtest.power`` refuses.
    """
    ratio = Ratio(definition.numerator, definition.denominator)
    plain = estimate(users, ratio)
    found = [plan(metric, plain, setup, effect, new_users_by_day)]
    if definition.covariates:
        covariates = [ratio_of(text) for text in definition.covariates]
        adjusted = cuped([users], ratio, covariates)
        with_cuped = plan(metric, adjusted.estimates[0], setup, effect, new_users_by_day)
        saved = adjusted.variance_saved
        found.append(with_cuped._replace(is_cuped=True, variance_saved=saved))
    return found


def plan(
    metric: str,
    measured: Estimate,
    setup: Setup,
    effect: float | None,
    new_users_by_day: Sequence[float] = (),
) -> Plan:
    """Users and days that find an effect, and the effect that each day could find.

    Raises:
        ValueError: As ``plans``.
    """
    size = abs(measured.value)
    if not size:
        raise ValueError(f"metric {metric!r}: its value is 0, so no relative effect can be planned")
    design = _design(measured.variance, setup)
    needed = None if effect is None else power.sample_size(design, effect * size, setup.power)
    days = None
    if needed is not None and len(new_users_by_day):
        days = power.days_needed(needed, new_users_by_day)
    by_day, users = [], 0.0
    for number, new in enumerate(new_users_by_day, start=1):
        users += new
        by_day.append(Day(number, users, _mde(design, users, size, setup)))
    return Plan(
        metric,
        False,
        measured.value,
        measured.variance,
        0.0,
        effect,
        needed,
        days,
        tuple(by_day),
    )


def ratio_variance(
    mean: float, sd: float, denominator_mean: float, denominator_sd: float, correlation: float
) -> Estimate:
    """A ratio from typed-in moments of users' totals, by the delta method.

    Raises:
        ValueError: A number that is not finite, a standard deviation below 0, a denominator that
            is not positive, or a correlation outside -1 to 1.
    """
    for name, given in (("mean", mean), ("sd", sd), ("denominator sd", denominator_sd)):
        finite(name, given)
    if min(sd, denominator_sd) < 0 or not -1 <= correlation <= 1:
        raise ValueError(
            f"standard deviations {sd}, {denominator_sd}, correlation {correlation}: want 0 or "
            "more, and -1 to 1"
        )
    between("denominator mean", denominator_mean, 0, math.inf)
    value = mean / denominator_mean
    variance = sd**2 - 2 * value * correlation * sd * denominator_sd + (value * denominator_sd) ** 2
    return Estimate(value, variance / denominator_mean**2, 2)


def _design(variance: float, setup: Setup) -> Design:
    extra = 1.0
    if setup.looks > 1:
        fractions = [(look + 1) / setup.looks for look in range(setup.looks)]
        extra = inflation(fractions, setup.power, setup.alpha / setup.comparisons)
    return Design(
        variance,
        shares=setup.shares,
        alpha=setup.alpha,
        comparisons=setup.comparisons,
        inflation=extra,
    )


def _mde(design: Design, users: float, size: float, setup: Setup) -> float | None:
    if min(design.shares) * users / design.inflation < 2:
        return None
    return power.minimal_effect(design, users, setup.power) / size
