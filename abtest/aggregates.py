"""Counts, means and co-moments of unit totals: all that the statistics of an experiment need.

A row behind an aggregate is a *unit of randomisation* (a user) with its totals over the window:
its clicks, its impressions, what it paid. Rows that are impressions or events are wrong here:
those of one user rise and fall together, and a test that takes them for independent rejects
far too often (19.6 % instead of 5 % in our simulation of click-through without any effect).

The square of a user's total is not the sum of the squares of its daily totals. So aggregates of
*different users* add up, and those of different days do not: sum per user first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from abtest.checks import finite

FloatArray = NDArray[np.float64]

ROUNDING = 1e-12
"""Squares are trusted down to this share of what they are the difference of."""
ROUNDING_PER_UNIT = 2.0**-52
"""And to this share times the units: databases add number by number, and round each time."""


@dataclass(frozen=True, eq=False)
class Aggregates:
    """Moments of named columns over the units of one arm. Add those of other units with ``+``."""

    count: int
    """Units."""
    names: tuple[str, ...]
    """The columns."""
    means: FloatArray
    """Mean of each column. [columns]"""
    comoments: FloatArray
    """Sums of products of deviations from the means. [columns, columns]"""

    @classmethod
    def from_arrays(cls, columns: Mapping[str, ArrayLike]) -> Aggregates:
        """Aggregates of columns with one value per unit.

        Two passes: exact to rounding whatever offset the columns have.

        Raises:
            ValueError: No column, columns of different lengths, or a value that is not finite.

        >>> arm = Aggregates.from_arrays({"clicks": [1, 0, 2, 1], "impressions": [4, 2, 5, 5]})
        >>> arm.count, arm.mean("clicks"), round(arm.cov("clicks", "impressions"), 4)
        (4, 1.0, 1.0)
        """
        if not columns:
            raise ValueError("aggregates: no columns, want one or more")
        table = [_column(name, values) for name, values in columns.items()]
        lengths = {name: len(values) for name, values in zip(columns, table, strict=True)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns have different lengths: {lengths}")
        count = len(table[0])
        # a mean of equal values may be off by a rounding, and they would seem to vary
        means = np.array(
            [np.clip(x.mean(), x.min(), x.max()) if count else 0.0 for x in table], float
        )
        centred = np.stack(table) - means[:, None]  # [columns, units]
        return cls(count, tuple(columns), means, centred @ centred.T)

    @classmethod
    def from_sums(
        cls,
        count: int,
        sums: Mapping[str, float],
        products: Mapping[tuple[str, str], float],
        shifts: Mapping[str, float] | None = None,
    ) -> Aggregates:
        """Aggregates of sums that a database made in one pass.

        Centring sums loses digits: the relative error of a variance is up to 1e-16 times the
        units times (mean / standard deviation)². Where that matters, sum ``x - shift`` with any
        shift near the mean. A variance that cannot be told from rounding counts as zero.

        Args:
            count: Units.
            sums: Σ (x - shift) of each column.
            products: Σ (x - shift_x)(y - shift_y) for every pair of columns, in one order or the
                other, squares included.
            shifts: What was taken from each column; 0 where it says nothing.

        Raises:
            ValueError: A negative count, a missing product, a number that is not finite, or
                squares too small for their sums.
        """
        names = tuple(sums)
        if count < 0 or not names:
            raise ValueError(f"aggregates: {count} units, columns {names}: want 0 or more, and one")
        totals = np.array([sums[name] for name in names], float)
        raw = np.array([[_product(products, a, b) for b in names] for a in names], float)
        shift = np.array([(shifts or {}).get(name, 0.0) for name in names], float)
        if not all(np.all(np.isfinite(part)) for part in (totals, raw, shift)):
            raise ValueError(f"sums of {', '.join(names)}: one is not finite")
        if count == 0:
            return cls(0, names, np.zeros_like(totals), np.zeros_like(raw))
        comoments = raw - np.outer(totals, totals) / count
        squares, floor = np.diag(comoments), rounding(count) * np.diag(raw)
        if np.any(squares < -floor):
            name = names[int(np.argmin(squares + floor))]
            raise ValueError(f"sum of squares of {name!r}: too small for its sum over {count}")
        constant = squares <= floor
        comoments[constant, :] = comoments[:, constant] = 0.0
        return cls(count, names, shift + totals / count, comoments)

    def __add__(self, other: Aggregates) -> Aggregates:
        """Aggregates of both sets of units, which must not share a unit.

        Source: Chan, Golub & LeVeque 1983.
        """
        if self.names != other.names:
            raise ValueError(f"aggregates of {self.names} and of {other.names} do not add up")
        count = self.count + other.count
        if not count:
            return self
        apart = other.means - self.means
        between = np.outer(apart, apart) * (self.count * other.count / count)
        return Aggregates(
            count,
            self.names,
            self.means + apart * (other.count / count),
            self.comoments + other.comoments + between,
        )

    def mean(self, name: str) -> float:
        """Mean of a column over the units."""
        return float(self.means[self.column(name)])

    def var(self, name: str) -> float:
        """Variance of a column over the units, divided by n - 1."""
        return self.cov(name, name)

    def cov(self, left: str, right: str) -> float:
        """Covariance of two columns over the units, divided by n - 1."""
        return float(self.covariances[self.column(left), self.column(right)])

    @property
    def covariances(self) -> FloatArray:
        """Covariance of every pair of columns, divided by n - 1. [columns, columns]

        Raises:
            ValueError: Fewer than two units.
        """
        if self.count < 2:
            raise ValueError(f"{self.count} units in an arm: a variance wants 2 or more")
        return self.comoments / (self.count - 1)

    def column(self, name: str) -> int:
        """Place of a column.

        Raises:
            ValueError: There is none of that name.
        """
        if name not in self.names:
            raise ValueError(f"column {name!r}: unknown; there are {', '.join(self.names)}")
        return self.names.index(name)


def rounding(units: ArrayLike) -> FloatArray:
    """Share of sums over so many units that differences of them are trusted down to. [as given]"""
    return np.maximum(ROUNDING, ROUNDING_PER_UNIT * np.asarray(units, float))


def pooled_cap(arms: Mapping[str, ArrayLike], probability: float = 0.999) -> float:
    """The value to cap unit totals at: a quantile of all arms together.

    One cap for all arms: a cap per arm would take more from the arm that pays more.

    Raises:
        ValueError: No unit, a value that is not finite, or a probability outside 0 to 1.
    """
    if not 0 < probability <= 1:
        raise ValueError(f"probability of the cap: {probability}, want above 0, at most 1")
    totals = [_column(name, values) for name, values in arms.items()]
    if not sum(map(len, totals)):
        raise ValueError("cap: no units in any arm")
    return float(np.quantile(np.concatenate(totals), probability))


def capped(values: ArrayLike, cap: float) -> FloatArray:
    """Unit totals, none above the cap (winsorised above). [units]"""
    return np.asarray(np.minimum(np.asarray(values, float), finite("cap", cap)))


def _column(name: str, values: ArrayLike) -> FloatArray:
    column = np.asarray(values, float)
    if column.ndim != 1:
        raise ValueError(f"column {name!r}: shape {column.shape}, want one value per unit")
    if not np.all(np.isfinite(column)):
        raise ValueError(f"column {name!r}: {np.sum(~np.isfinite(column))} values are not finite")
    return column


def _product(products: Mapping[tuple[str, str], float], left: str, right: str) -> float:
    for pair in ((left, right), (right, left)):
        if pair in products:
            return products[pair]
    raise ValueError(f"sum of products of {left!r} and {right!r}: missing")
