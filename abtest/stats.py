"""Means and ratios of arms, and what differs between two arms: numbers in, numbers out.

Everything here takes ``Aggregates`` over units of randomisation, and everything that compares
takes ``Estimate``: a value with its variance between units. A mean, a ratio, a value adjusted by
a covariate and a quantile are all estimates, so there is one comparison for them all.

An interval is the effect give or take a number of standard errors. A *bound* says how many: 1.96
for one look at the end, what ``group_sequential`` and ``confidence_sequences`` give for many. It
is that of a normal statistic. Ours are Student's, whose tails are heavier where units are few, so
one is translated into the other: what is as unlikely is as far.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import stats as distributions

from abtest.aggregates import Aggregates, FloatArray, rounding
from abtest.checks import between, finite

_TAIL = 1e-100
"""Chances are translated down to this one: Student's bounds of smaller ones have no square."""


class Ratio(NamedTuple):
    """A metric: sum of one column over sum of another; without a denominator a mean per unit."""

    numerator: str
    denominator: str | None = None


class Estimate(NamedTuple):
    """A number measured in one arm."""

    value: float
    variance: float
    """Between units: that of the value itself is this over ``units``."""
    units: int

    @property
    def squared_error(self) -> float:
        """Squared standard error of the value."""
        return self.variance / self.units


class Intervals(NamedTuple):
    """Where the absolute and the relative effect may lie."""

    ci_low: float
    ci_high: float
    rel_ci_low: float
    rel_ci_high: float


class Comparison(NamedTuple):
    """Treatment against control. The p-value is at most ``alpha`` where the intervals exclude 0."""

    control: Estimate
    treatment: Estimate
    effect: float
    ci_low: float
    ci_high: float
    rel_effect: float
    """Effect over the size of the control's value; NaN where that is 0."""
    rel_ci_low: float
    """Both are NaN where the control's value cannot be told from 0."""
    rel_ci_high: float
    pvalue: float
    """Two-sided, of no difference."""
    statistic: float
    std_error: float
    df: float
    alpha: float


class NonInferiority(NamedTuple):
    """Whether the treatment is worse by less than the margin."""

    is_non_inferior: bool
    pvalue: float
    """One-sided, of being worse by the margin or more."""
    statistic: float


def influence(arm: Aggregates, metric: Ratio) -> FloatArray:
    """Weights that make a unit's columns its pull on the metric. [columns]

    For a ratio this is the delta method: (num - ratio · den) / mean(den).

    Raises:
        ValueError: Unknown column, or a denominator that sums to 0.

    Source:
        Deng, Knoblich & Lu, KDD 2018. We divide by n - 1.
    """
    weights = np.zeros(len(arm.names))
    weights[arm.column(metric.numerator)] = 1.0
    if metric.denominator is not None:
        weights[arm.column(metric.denominator)] -= value(arm, metric)
        weights /= arm.mean(metric.denominator)
    return weights


def spread(arm: Aggregates, pull: FloatArray) -> float:
    """Variance between units of their pull, divided by n - 1; 0 where it is lost in rounding.

    Where a ratio is the same for all units its terms cancel, and what rounding leaves of them
    would be a tiny standard error: an effect of any size would be significant.

    Raises:
        ValueError: Fewer than two units.
    """
    variance = float(pull @ arm.covariances @ pull)
    size = float(np.abs(pull) @ np.abs(arm.covariances) @ np.abs(pull))
    return variance if variance > rounding(arm.count) * size else 0.0


def value(arm: Aggregates, metric: Ratio) -> float:
    """The metric in an arm.

    Raises:
        ValueError: Unknown column, no units, or a denominator that sums to 0.
    """
    if not arm.count:
        raise ValueError(f"{metric.numerator!r}: no units in an arm, want 2 or more")
    if metric.denominator is None:
        return arm.mean(metric.numerator)
    denominator = arm.mean(metric.denominator)
    if denominator == 0:
        raise ValueError(f"denominator {metric.denominator!r} sums to 0 over {arm.count} units")
    return arm.mean(metric.numerator) / denominator


def effective_units(arm: Aggregates, metric: Ratio) -> float:
    """How many units that are all alike would say as much: (sum)² / sum of squares.

    Where a few units have most of the total, value and error are too small together in arms that
    lack them, and a normal statistic rejects too often. Of a ratio the fewer of both its columns.

    Raises:
        ValueError: Unknown column.

    >>> effective_units(Aggregates.from_arrays({"amount": [0, 0, 0, 9]}), Ratio("amount"))
    1.0
    """
    return min(_effective(arm, column) for column in metric if column is not None)


def estimate(arm: Aggregates, metric: Ratio) -> Estimate:
    """The metric in an arm with its variance between units.

    Raises:
        ValueError: Unknown column, fewer than two units, or a denominator that sums to 0.

    >>> arm = Aggregates.from_arrays({"clicks": [1, 0, 2, 1], "impressions": [4, 2, 5, 5]})
    >>> round(estimate(arm, Ratio("clicks", "impressions")).squared_error, 6)
    0.004557
    """
    return Estimate(value(arm, metric), spread(arm, influence(arm, metric)), arm.count)


def compare(control: Estimate, treatment: Estimate, alpha: float = 0.05) -> Comparison:
    """Welch's test of no difference, with intervals that never contradict its p-value.

    Raises:
        ValueError: An arm of fewer than two units, a number that is not finite, no variance in
            either arm, or an alpha outside 0 to 1.
    """
    between("alpha", alpha)
    for arm in (control, treatment):
        _check(arm)
    std_error = _std_error(control, treatment)
    if std_error == 0:
        raise ValueError("both arms: no variance, so nothing to test")
    effect = treatment.value - control.value
    df = _welch_df(control, treatment)
    found = intervals(control, treatment, float(distributions.norm.isf(alpha / 2)))
    return Comparison(
        control=control,
        treatment=treatment,
        effect=effect,
        rel_effect=effect / abs(control.value) if control.value else math.nan,
        pvalue=float(2 * distributions.t.sf(abs(effect) / std_error, df)),
        statistic=effect / std_error,
        std_error=std_error,
        df=df,
        alpha=alpha,
        **found._asdict(),
    )


def intervals(control: Estimate, treatment: Estimate, bound: float) -> Intervals:
    """Intervals of the absolute and the relative effect, as wide as a bound of the test says.

    The relative one is Fieller's: every relative effect d that the same test would not reject,
    |effect - d · control| ≤ critical · its standard error. At d = 0 that *is* the test of no
    difference, so the two intervals and the p-value always agree.

    Args:
        control: Of the comparison.
        treatment: Of the comparison.
        bound: Of a normal statistic, as 1.96 or what ``group_sequential`` and
            ``confidence_sequences`` give; ``student_bound`` makes it that of Student's.

    Source:
        Fieller 1954; Franz 2007, arXiv:0710.2024.
    """
    critical = student_bound(bound, _welch_df(control, treatment))
    effect, size = treatment.value - control.value, abs(control.value)
    half = critical * _std_error(control, treatment)
    spread = critical**2 * control.squared_error
    curve = size**2 - spread
    if curve <= 0:  # 0 is among the plausible values of the control: any relative effect is
        return Intervals(effect - half, effect + half, math.nan, math.nan)
    middle = effect * size + math.copysign(spread, control.value)
    # the discriminant middle² - curve · (effect² - half²), without its cancelling terms
    other = critical**2 * treatment.squared_error
    root = math.sqrt(max(spread * treatment.value**2 + other * curve, 0.0))
    # the far root first, the near one from their product: no digits lost when 0 is close by
    far = middle + math.copysign(root, middle)
    near = (effect - half) * (effect + half) / far if far else 0.0
    low, high = sorted((far / curve, near))
    return Intervals(effect - half, effect + half, low, high)


def student_bound(bound: float, df: float) -> float:
    """The bound of Student's statistic that is crossed as rarely as that of a normal one.

    >>> round(student_bound(1.959964, 9), 3)
    2.262
    """
    tail = float(distributions.norm.sf(bound))
    if tail < _TAIL:
        return max(float(distributions.t.isf(_TAIL, df)), bound)
    return float(distributions.t.isf(tail, df))


def normal_statistic(comparison: Comparison) -> float:
    """The size of the normal statistic that is as unlikely as the comparison's.

    It is at least a bound exactly where the comparison's is at least ``student_bound`` of it.
    """
    size = abs(comparison.statistic)
    tail = float(distributions.t.sf(size, comparison.df))
    if tail < _TAIL:
        return max(float(distributions.norm.isf(_TAIL)), size)
    return float(distributions.norm.isf(tail))


def log_ratio_interval(comparison: Comparison) -> tuple[float, float]:
    """Interval of the relative effect that is symmetric in the logarithm of the ratio.

    The standard error of log(treatment / control) is taken as that of the difference over the
    logarithmic mean of both values, so that the interval excludes 0 exactly where the p-value is
    at most alpha. For small effects it is the usual delta method; from about 30 % on use
    Fieller's, which needs no such approximation.

    Returns:
        Low and high; NaN unless both values are positive.

    Source:
        Test-based limits, Miettinen 1976.
    """
    control, treatment = comparison.control.value, comparison.treatment.value
    if min(control, treatment) <= 0:
        return math.nan, math.nan
    middle = math.log1p(comparison.effect / control)
    log_mean = comparison.effect / middle if middle else control
    critical = float(distributions.t.isf(comparison.alpha / 2, comparison.df))
    half = critical * comparison.std_error / log_mean
    high = middle + half
    return math.expm1(middle - half), math.expm1(high) if high < 700 else math.inf


def non_inferior(
    comparison: Comparison,
    margin: float,
    *,
    is_relative: bool = True,
    is_higher_better: bool = True,
) -> NonInferiority:
    """Test that the treatment is worse by the margin or more, one-sided at half of alpha.

    It passes exactly when the comparison's interval ends before the margin.

    Args:
        comparison: Of the guardrail.
        margin: Above 0: how much worse is still fine.
        is_relative: A share of the control's value, as 0.1; else in the metric's own unit.
        is_higher_better: Of the metric. Latency is not.

    Raises:
        ValueError: A margin of 0 or less, a relative one of 1 or more, or a relative one where
            the control's value is 0.
    """
    between("margin", margin, 0, 1 if is_relative else math.inf)
    control, treatment = comparison.control, comparison.treatment
    if is_relative and control.value == 0:
        raise ValueError("relative margin: the control's value is 0, want an absolute margin")
    direction = 1.0 if is_higher_better else -1.0
    scale = 1 - direction * math.copysign(margin, control.value) if is_relative else 1.0
    slack = 0.0 if is_relative else margin
    gain = direction * (treatment.value - scale * control.value) + slack
    statistic = gain / math.sqrt(treatment.squared_error + scale**2 * control.squared_error)
    pvalue = float(distributions.t.sf(statistic, comparison.df))
    return NonInferiority(pvalue <= comparison.alpha / 2, pvalue, statistic)


def _effective(arm: Aggregates, column: str) -> float:
    place, total = arm.column(column), arm.count * arm.mean(column)
    squares = total * arm.mean(column) + float(arm.comoments[place, place])
    return total**2 / squares if squares else 0.0


def _check(arm: Estimate) -> None:
    finite("value of an arm", arm.value)
    finite("variance of an arm", arm.variance)
    if arm.units < 2:
        raise ValueError(f"{arm.units} units in an arm, want 2 or more")
    if arm.variance < 0:
        raise ValueError(f"variance of an arm: {arm.variance}, want 0 or more")


def _std_error(control: Estimate, treatment: Estimate) -> float:
    return math.sqrt(control.squared_error + treatment.squared_error)


def _welch_df(control: Estimate, treatment: Estimate) -> float:
    """Degrees of freedom by Welch and Satterthwaite."""
    share = control.squared_error / (control.squared_error + treatment.squared_error)
    return 1 / (share**2 / (control.units - 1) + (1 - share) ** 2 / (treatment.units - 1))
