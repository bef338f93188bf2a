"""Shares of units, such as users with a purchase: for counts too small for ``stats.compare``.

With a few hundred units that have it and as many that have not, ``stats.compare`` over a 0/1
column gives the same, and covariates, ratios and relative effects besides.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy import optimize
from scipy import stats as distributions

from abtest.checks import between


class Proportions(NamedTuple):
    """Share in the treatment against share in the control."""

    control: float
    treatment: float
    effect: float
    ci_low: float
    ci_high: float
    pvalue: float
    """Two-sided; 1 where no unit or every unit has it."""
    statistic: float


def compare_proportions(
    control: tuple[int, int], treatment: tuple[int, int], alpha: float = 0.05
) -> Proportions:
    """Pooled z-test of equal shares, with the interval of all differences it would not reject.

    Args:
        control: Units that have it, and all units.
        treatment: The same of the other arm.
        alpha: Of the test; the interval has confidence 1 - alpha.

    Raises:
        ValueError: An empty arm, a negative count, or more units that have it than units.

    Source:
        Mee 1984: the score test of Miettinen & Nurminen 1985 without their factor N / (N - 1),
        so that at a difference of 0 it is the pooled z-test.

    >>> compare_proportions((12, 100), (25, 100)).pvalue < 0.05
    True
    """
    between("alpha", alpha)
    for has, units in (control, treatment):
        if units < 1 or not 0 <= has <= units:
            raise ValueError(f"proportion: {has} of {units} units, want 0 or more of 1 or more")
    critical = float(distributions.norm.isf(alpha / 2))
    effect = treatment[0] / treatment[1] - control[0] / control[1]
    statistic = _score(0.0, control, treatment)
    return Proportions(
        control=control[0] / control[1],
        treatment=treatment[0] / treatment[1],
        effect=effect,
        ci_low=_limit(-1.0, critical, effect, control, treatment),
        ci_high=_limit(1.0, -critical, effect, control, treatment),
        pvalue=float(2 * distributions.norm.sf(abs(statistic))),
        statistic=statistic,
    )


def _limit(
    end: float,
    critical: float,
    effect: float,
    control: tuple[int, int],
    treatment: tuple[int, int],
) -> float:
    """Where between the effect and ``end`` (-1 or 1) the score is ``critical``."""

    def excess(gap: float) -> float:
        return _score(gap, control, treatment) - critical

    inner = end * (1 - 1e-12)  # at the end itself nothing varies
    if effect * end >= abs(inner) or excess(inner) * end >= 0:
        return end
    return float(optimize.brentq(excess, inner, effect, xtol=1e-12))


def _score(gap: float, control: tuple[int, int], treatment: tuple[int, int]) -> float:
    """Standard errors between the observed difference and ``gap``, under shares ``gap`` apart."""
    (has_c, units_c), (has_t, units_t) = control, treatment
    share = _control_share(gap, control, treatment)
    other = min(max(share + gap, 0.0), 1.0)
    variance = share * (1 - share) / units_c + other * (1 - other) / units_t
    distance = has_t / units_t - has_c / units_c - gap
    if variance <= 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def _control_share(gap: float, control: tuple[int, int], treatment: tuple[int, int]) -> float:
    """Likeliest share of the control if the treatment's is ``gap`` higher.

    The root of a cubic, in the notation of Miettinen & Nurminen's appendix.
    """
    (has_c, units_c), (has_t, units_t) = control, treatment
    units, has = units_c + units_t, has_c + has_t
    if gap == 0:
        return has / units
    square = (units_t + 2 * units_c) * gap - units - has
    linear = (units_c * gap - units - 2 * has_c) * gap + has
    free = has_c * gap * (1 - gap)
    third = square / (3 * units)
    q = third**3 - linear * square / (6 * units**2) + free / (2 * units)
    p = math.copysign(math.sqrt(max(third**2 - linear / (3 * units), 0.0)), q)
    cosine = min(max(q / p**3, -1.0), 1.0) if p else 0.0
    angle = (math.pi + math.acos(cosine)) / 3
    return min(max(2 * p * math.cos(angle) - third, 0.0, -gap), 1.0, 1.0 - gap)
