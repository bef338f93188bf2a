"""Users dealt to two arms at random, many times at once, and the moments of each arm.

The formulas are those of ``abtest.stats`` and ``abtest.cuped``. Sums of columns and of their
products over the users of an arm are one matrix product for many deals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from abtest.aggregates import FloatArray, rounding
from abtest.checks import between, shares
from abtest.effects import ratio_of
from abtest.result import Definition
from abtest.stats import Ratio

DEALS_AT_ONCE = 64
"""With 100,000 users 50 MB of arms."""


@dataclass(frozen=True)
class Deals:
    """How users are dealt to arms."""

    runs: int = 4_000
    share: float = 0.5
    """Of users in the treatment."""
    alpha: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        shares("shares", [1 - self.share, self.share])
        between("alpha", self.alpha)
        if self.runs < 1:
            raise ValueError(f"runs {self.runs}: want 1 or more")


@dataclass(frozen=True, eq=False)
class Moments:
    """Of an arm, in many deals."""

    units: FloatArray
    """[deals]"""
    means: FloatArray
    """[deals, columns]"""
    comoments: FloatArray
    """[deals, columns, columns]"""


@dataclass(frozen=True, eq=False)
class Values:
    """A metric of an arm, in many deals. [deals]"""

    value: FloatArray
    squared_error: FloatArray
    units: FloatArray


def dealt_arms(users: int, deals: Deals) -> Iterator[NDArray[np.float64]]:
    """1 for users in the treatment, 0 for others. [deals, users]"""
    if users < 4:
        raise ValueError(f"{users} users, want 4 or more")
    generator = np.random.default_rng(deals.seed)
    for first in range(0, deals.runs, DEALS_AT_ONCE):
        size = min(DEALS_AT_ONCE, deals.runs - first)
        yield (generator.random((size, users), np.float32) < deals.share).astype(float)


@dataclass(frozen=True)
class UserTable:
    """Columns of one metric and its covariates, centred, with their products."""

    metric: Ratio
    names: tuple[str, ...]
    shift: FloatArray
    """[columns]"""
    terms: FloatArray
    """1, each column, each product of two. [users, 1 + columns + columns²]"""

    @classmethod
    def of(cls, columns: Mapping[str, NDArray[np.float64]], definition: Definition) -> UserTable:
        """The columns of a metric and its covariates."""
        metric = Ratio(definition.numerator, definition.denominator)
        ratios = [metric, *(ratio_of(text) for text in definition.covariates)]
        names = tuple(dict.fromkeys(n for ratio in ratios for n in ratio if n is not None))
        values = np.stack([columns[name] for name in names], axis=1)  # [users, columns]
        shift = values.mean(axis=0)
        centred = values - shift
        products = (centred[:, :, None] * centred[:, None, :]).reshape(len(values), -1)
        terms = np.hstack([np.ones((len(values), 1)), centred, products])
        return cls(metric, names, shift, terms)

    def arms(self, treated: NDArray[np.float64], gain: float) -> tuple[Moments, Moments]:
        """Control and treatment of each deal; the metric's numerator of the treated gains."""
        sums = treated @ self.terms  # [deals, terms]
        control, treatment = self._moments(self.terms.sum(axis=0) - sums), self._moments(sums)
        scale = np.ones(len(self.names))
        scale[self.names.index(self.metric.numerator)] = gain
        gained = replace(
            treatment,
            means=treatment.means * scale,
            comoments=treatment.comoments * np.outer(scale, scale),
        )
        return control, gained

    def _moments(self, sums: FloatArray) -> Moments:
        size = len(self.names)
        count = sums[:, 0]
        if count.min() < 2:
            raise ValueError("a deal has fewer than two users in an arm; want more users")
        means = sums[:, 1 : 1 + size] / count[:, None]
        products = sums[:, 1 + size :].reshape(-1, size, size)
        between = means[:, :, None] * means[:, None, :] * count[:, None, None]
        return Moments(count, means + self.shift, products - between)


def adjusted_values(
    arms: tuple[Moments, Moments],
    table: UserTable,
    covariates: Sequence[Ratio],
    plain: Sequence[Values],
) -> list[Values]:
    """``abtest.cuped.cuped``, for many deals."""
    pooled = _pooled(*arms)
    before = [pull_of(pooled, table, each) for each in covariates]
    sizes = np.sqrt(np.stack([_squares(pooled, pull) for pull in before], axis=1))
    scale = np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > 0)  # [deals, covariates]
    pulls = np.stack(before, axis=1) * scale[:, :, None]
    among = np.einsum("dci,dij,dkj->dck", pulls, pooled.comoments, pulls)
    own_pull = pull_of(pooled, table, table.metric)
    shared = np.einsum("dci,dij,dj->dc", pulls, pooled.comoments, own_pull)
    inverse = np.linalg.pinv(among, rcond=1e-10, hermitian=True)
    theta = np.einsum("dck,dk->dc", inverse, shared) * scale
    centre = np.stack([_value(pooled, table, each) for each in covariates], axis=1)
    found = []
    for arm, each in zip(arms, plain, strict=True):
        own = np.stack([pull_of(arm, table, covariate) for covariate in covariates], axis=1)
        pull = pull_of(arm, table, table.metric) - np.einsum("dc,dci->di", theta, own)
        values = np.stack([_value(arm, table, covariate) for covariate in covariates], axis=1)
        moved = np.einsum("dc,dc->d", theta, values - centre)
        adjusted = values_of(arm, table, pull)
        found.append(replace(adjusted, value=each.value - moved))
    return found


def _pooled(first: Moments, second: Moments) -> Moments:
    count = first.units + second.units
    apart = second.means - first.means
    weight = (first.units * second.units / count)[:, None, None]
    means = first.means + apart * (second.units / count)[:, None]
    comoments = first.comoments + second.comoments
    return Moments(count, means, comoments + apart[:, :, None] * apart[:, None, :] * weight)


def _value(arm: Moments, table: UserTable, metric: Ratio) -> FloatArray:
    top = arm.means[:, table.names.index(metric.numerator)]
    if metric.denominator is None:
        return top
    bottom = arm.means[:, table.names.index(metric.denominator)]
    if not np.all(bottom):
        raise ValueError(f"denominator {metric.denominator!r} sums to 0 in a deal")
    return top / bottom


def pull_of(arm: Moments, table: UserTable, metric: Ratio) -> FloatArray:
    """``abtest.stats.influence``. [deals, columns]"""
    pull = np.zeros_like(arm.means)
    pull[:, table.names.index(metric.numerator)] = 1.0
    if metric.denominator is not None:
        place = table.names.index(metric.denominator)
        pull[:, place] -= _value(arm, table, metric)
        pull /= arm.means[:, place, None]
    return pull


def values_of(arm: Moments, table: UserTable, pull: FloatArray) -> Values:
    """The metric of an arm; ``pull`` is that of each column on it. [deals, columns]"""
    variance = _squares(arm, pull) / (arm.units - 1)
    return Values(_value(arm, table, table.metric), variance / arm.units, arm.units)


def _squares(arm: Moments, pull: FloatArray) -> FloatArray:
    """``abtest.stats.spread`` times units - 1. [deals]"""
    squares = np.einsum("di,dij,dj->d", pull, arm.comoments, pull)
    size = np.einsum("di,dij,dj->d", np.abs(pull), np.abs(arm.comoments), np.abs(pull))
    return np.where(squares > rounding(arm.units) * size, squares, 0.0)
