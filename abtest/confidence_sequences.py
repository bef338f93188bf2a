"""Intervals that hold at every moment: look as often as you like, stop when you like.

For guardrails that are watched all the time. They are about one and a half times as wide as the
interval of a single look, so planned looks (``group_sequential``) decide sooner.

The guarantee is asymptotic: it starts once every arm has enough units for the central limit
theorem, some hundreds, thousands for heavy-tailed amounts. Do not look before.

Source: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and
asymptotic confidence sequences", Annals of Statistics 2024 (arXiv:2103.06476), theorem 2.2.
"""

from __future__ import annotations

import math

from scipy.special import lambertw

from abtest.checks import between, finite


def critical(units: int, tuned_units: int, alpha: float = 0.05) -> float:
    """Standard errors that the interval reaches to each side, for ``stats.intervals``.

    Args:
        units: In all arms together, now.
        tuned_units: Where the interval shall be tightest; a guess made before the first look.
            Coverage holds for any.
        alpha: Chance that the interval ever misses.

    Raises:
        ValueError: No units, or an alpha outside 0 to 1.

    >>> round(critical(10_000, 10_000), 3)
    3.035
    """
    ratio = _ratio(units, tuned_units, alpha)
    return math.sqrt((1 + ratio) / ratio * (math.log1p(ratio) - 2 * math.log(alpha)))


def always_valid_pvalue(
    statistic: float, units: int, tuned_units: int, alpha: float = 0.05
) -> float:
    """p-value at this look that is at most alpha exactly where the interval excludes 0.

    Args:
        statistic: Effect over its standard error, now.
        units: In all arms together, now.
        tuned_units: As for ``critical``.
        alpha: The level the sequence is tuned for.

    Raises:
        ValueError: A statistic that is not finite, no units, or an alpha outside 0 to 1.
    """
    finite("statistic", statistic)
    ratio = _ratio(units, tuned_units, alpha)
    log_pvalue = 0.5 * math.log1p(ratio) - 0.5 * statistic**2 * ratio / (1 + ratio)
    return math.exp(min(log_pvalue, 0.0))


def _ratio(units: int, tuned_units: int, alpha: float) -> float:
    """Units times the square of the paper's rho, which makes the interval tightest where tuned."""
    between("alpha", alpha)
    between("units", units, 0, math.inf)
    between("tuned units", tuned_units, 0, math.inf)
    tightest = -float(lambertw(-(alpha**2) / math.e, -1).real) - 1
    return tightest * units / tuned_units
