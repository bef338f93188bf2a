"""Planned looks at a running experiment: how far the effect must be from 0 at each.

The statistics of successive looks are those of a Brownian motion seen at the fractions of the
planned information. A spending function says how much of alpha may be used up by each fraction; the
bound of a look is what uses up exactly that, given that no earlier bound was crossed. Neither the
number of looks nor their times need be known beforehand.

The fraction is that of the planned units if each comes once, and that of the planned days if units
come back and their totals grow. One too large early on is the dangerous mistake: alpha is spent on
a look that has little to do with the later ones (measured by ``benchmarks/aa_rates.py``).

All tests are two-sided and symmetric: half of alpha is spent on each side.

Source: Lan & DeMets 1983; recursion of Armitage, McPherson & Rowe 1969; Jennison & Turnbull,
"Group Sequential Methods", 2000, chapters 7 to 9 and 19.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.special import ndtr
from scipy.stats import norm

from abtest.checks import between, finite

Spending = Callable[[float, float], float]
"""Fraction of the information and one-sided alpha -> alpha used up by then."""

MAX_BOUND = 8.0
"""Bounds stop here, as in the authors' program: chance alone goes further once in 10^15."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_PANEL = 2.0  # width of a panel of nodes in standard deviations of the finest step


def obrien_fleming(fraction: float, alpha: float) -> float:
    """Almost nothing early, almost all at the end."""
    return float(2 * norm.sf(norm.isf(alpha / 2) / math.sqrt(fraction)))


def pocock(fraction: float, alpha: float) -> float:
    """About the same bound at every look."""
    return alpha * math.log1p((math.e - 1) * fraction)


SPENDING: Mapping[str, Spending] = {"obrien-fleming": obrien_fleming, "pocock": pocock}


class SequentialTest(NamedTuple):
    """What the looks so far say."""

    bound: float
    """At the last look: |statistic| from here on is significant. Give it to
    ``stats.intervals`` for the repeated confidence intervals."""
    alpha_spent: float
    stopped_at: int | None
    """First look, from 0, whose bound was crossed."""
    pvalue: float
    """By stages; NaN while the test goes on: neither crossed nor at its last look."""
    repeated_pvalue: float
    """At the last look, at any time: at most alpha exactly where its interval excludes 0. No
    smaller than 1e-15."""


class _Walk(NamedTuple):
    """Where the statistic may be, at a fraction, without having crossed a bound."""

    fraction: float
    z: NDArray[np.float64]
    mass: NDArray[np.float64]


_START = _Walk(0.0, np.zeros(1), np.ones(1))


def bounds(
    fractions: Sequence[float],
    alpha: float = 0.05,
    spending: str = "obrien-fleming",
    *,
    is_final: bool = False,
) -> tuple[float, ...]:
    """Bound of each look, in standard errors.

    Args:
        fractions: Information at each look over the planned information, rising. The last may
            be above 1: the experiment ran longer than planned.
        alpha: Two-sided, of all looks together.
        spending: A name in ``SPENDING``.
        is_final: The last look ends the experiment, so it spends all that is left of alpha even
            if its fraction is below 1.

    Raises:
        ValueError: Fractions that do not rise from above 0, a look after 1, an unknown name or
            an alpha outside 0 to 1.

    >>> [round(bound, 4) for bound in bounds([0.5, 1.0])]
    [2.9626, 1.9686]
    """
    spent = _spent(fractions, alpha, spending, is_final=is_final)
    finest = _finest(fractions)
    walk, found = _START, []
    for fraction, share in zip(fractions, np.diff(spent, prepend=0.0), strict=True):
        found.append(_bound(walk, fraction, share / 2))
        walk = _step(walk, fraction, found[-1], finest)
    return tuple(found)


def crossing(
    fractions: Sequence[float], bounds: Sequence[float], drift: float = 0.0
) -> NDArray[np.float64]:
    """Chance of first crossing upwards and downwards at each look. [looks, 2]

    Args:
        fractions: Information at each look over the planned information, rising.
        bounds: Of each look, in standard errors.
        drift: Expected statistic at fraction 1: effect / its standard error then.

    Raises:
        ValueError: Fractions that do not rise from above 0, or not as many bounds.
    """
    _check_fractions(fractions)
    if len(bounds) != len(fractions):
        raise ValueError(f"{len(bounds)} bounds for {len(fractions)} looks")
    finite("drift", drift)
    finest = _finest(fractions)
    walk, chances = _START, []
    for fraction, bound in zip(fractions, bounds, strict=True):
        mean, sd = _move(walk, fraction, drift)
        up, down = ndtr((mean - bound) / sd), ndtr((-bound - mean) / sd)
        chances.append((walk.mass @ up, walk.mass @ down))
        walk = _step(walk, fraction, bound, finest, drift)
    return np.array(chances)


def sequential_test(
    statistics: Sequence[float],
    fractions: Sequence[float],
    alpha: float = 0.05,
    spending: str = "obrien-fleming",
    *,
    is_final: bool = False,
) -> SequentialTest:
    """The verdict of the looks so far.

    The final p-value orders outcomes by stages: crossing earlier is more extreme than crossing
    later, and at one look a larger statistic is. It is at most alpha exactly where a bound was
    crossed.

    Args:
        statistics: Effect over its standard error at each look.
        fractions: Information at each look over the planned information, rising.
        alpha: Two-sided, of all looks together.
        spending: A name in ``SPENDING``.
        is_final: The last look ends the experiment.

    Raises:
        ValueError: Not as many statistics as fractions, one that is not finite, or what
            ``bounds`` refuses.
    """
    if len(statistics) != len(fractions):
        raise ValueError(f"{len(statistics)} statistics for {len(fractions)} looks")
    for statistic in statistics:
        finite("statistic", statistic)
    limits = bounds(fractions, alpha, spending, is_final=is_final)
    crossed = [abs(z) >= bound for z, bound in zip(statistics, limits, strict=True)]
    stopped = crossed.index(True) if any(crossed) else None
    ended = stopped is not None or is_final or fractions[-1] >= 1
    last = len(fractions) - 1 if stopped is None else stopped
    return SequentialTest(
        bound=limits[-1],
        alpha_spent=_spent(fractions, alpha, spending, is_final=is_final)[-1],
        stopped_at=stopped,
        pvalue=_stagewise(abs(statistics[last]), fractions, limits, last) if ended else math.nan,
        repeated_pvalue=_repeated(abs(statistics[-1]), fractions, spending, is_final=is_final),
    )


def drift(
    fractions: Sequence[float],
    power: float = 0.8,
    alpha: float = 0.05,
    spending: str = "obrien-fleming",
) -> float:
    """Expected statistic at fraction 1 that gives this chance of crossing any bound.

    Raises:
        ValueError: A power not between alpha and 1, or what ``bounds`` refuses.
    """
    between("power", power, alpha, 1)
    limits = bounds(fractions, alpha, spending, is_final=True)

    def missing(drift: float) -> float:
        return float(crossing(fractions, limits, drift).sum()) - power

    return float(optimize.brentq(missing, 0, 20, xtol=1e-10))


def inflation(
    fractions: Sequence[float],
    power: float = 0.8,
    alpha: float = 0.05,
    spending: str = "obrien-fleming",
) -> float:
    """Units at most, over the units of one look at the end with the same power.

    >>> round(inflation([0.2, 0.4, 0.6, 0.8, 1.0], spending="pocock"), 3)
    1.212
    """
    planned = drift(fractions, power, alpha, spending)
    return float((planned / (norm.isf(alpha / 2) + norm.ppf(power))) ** 2)


def _spent(
    fractions: Sequence[float], alpha: float, spending: str, *, is_final: bool
) -> list[float]:
    """Two-sided alpha used up by each look."""
    between("alpha", alpha)
    _check_fractions(fractions)
    if fractions[-1] > 1 and len(fractions) > 1 and fractions[-2] >= 1:
        raise ValueError(f"fractions {list(fractions)}: the look at 1 or above is the last one")
    if spending not in SPENDING:
        raise ValueError(f"spending {spending!r}: unknown; there are {', '.join(SPENDING)}")
    spent = [2 * SPENDING[spending](min(fraction, 1.0), alpha / 2) for fraction in fractions]
    return [*spent[:-1], alpha] if is_final else spent


def _check_fractions(fractions: Sequence[float]) -> None:
    given = np.asarray(fractions, float)
    if not given.size or not np.all(np.isfinite(given)) or np.any(np.diff(given, prepend=0) <= 0):
        raise ValueError(f"fractions {given.tolist()}: want numbers that rise from above 0")


def _finest(fractions: Sequence[float]) -> float:
    """Smallest standard deviation of a step from look to look, in units of the statistic."""
    given = np.asarray(fractions, float)
    return float(np.sqrt(np.diff(given, prepend=0.0) / given).min())


def _move(walk: _Walk, fraction: float, drift: float) -> tuple[NDArray[np.float64], float]:
    """Mean and standard deviation of the statistic at ``fraction``, given where it was."""
    new = fraction - walk.fraction
    mean = (walk.z * math.sqrt(walk.fraction) + drift * new) / math.sqrt(fraction)
    return mean, math.sqrt(new / fraction)


def _bound(walk: _Walk, fraction: float, share: float) -> float:
    """Bound that the walk crosses upwards with probability ``share``, without drift."""
    mean, sd = _move(walk, fraction, 0.0)

    def excess(bound: float) -> float:
        return float(walk.mass @ ndtr((mean - bound) / sd)) - share

    if excess(MAX_BOUND) >= 0:
        return MAX_BOUND
    return float(optimize.brentq(excess, 0.0, MAX_BOUND, xtol=1e-12))


def _step(walk: _Walk, fraction: float, bound: float, finest: float, drift: float = 0.0) -> _Walk:
    """The walk at the next look, on Gauss-Legendre panels between the bounds."""
    mean, sd = _move(walk, fraction, drift)
    panels = max(math.ceil(2 * bound / (_PANEL * finest)), 1)
    half = bound / panels
    centres = half * (2 * np.arange(panels) + 1) - bound
    z = (centres[:, None] + half * _NODES).ravel()
    density = np.exp(-0.5 * ((z[:, None] - mean) / sd) ** 2) @ walk.mass
    weights = np.tile(_WEIGHTS * half, panels) / (sd * math.sqrt(2 * math.pi))
    return _Walk(fraction, z, density * weights)


def _stagewise(z: float, fractions: Sequence[float], limits: Sequence[float], last: int) -> float:
    reached = [*limits[:last], z]
    return float(min(crossing(fractions[: last + 1], reached).sum(), 1.0))


def _repeated(z: float, fractions: Sequence[float], spending: str, *, is_final: bool) -> float:
    """The alpha whose bound at the last look is ``z``."""

    def excess(log_alpha: float) -> float:
        return bounds(fractions, math.exp(log_alpha), spending, is_final=is_final)[-1] - z

    low, high = math.log(1e-15), math.log(1 - 1e-9)
    if excess(high) >= 0:
        return 1.0
    if excess(low) <= 0:
        return 1e-15
    return math.exp(optimize.brentq(excess, low, high, xtol=1e-8))
