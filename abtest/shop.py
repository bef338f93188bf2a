"""A shop whose relevance is known: what simulated shoppers search in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

PAGE = 10
"""Items that a search shows; all of them count as impressions."""
GRADES = 4

Ints = NDArray[np.integer]
Floats = NDArray[np.float64]

_ABSENT = -1
_PRICE = 30.0
"""Median of prices; log-normal, with a standard deviation of 1 in the logarithm."""


@dataclass(frozen=True, eq=False)
class Shop:
    """Queries, the items that come up for each, and how relevant these are."""

    queries: pa.StringArray
    """Texts."""
    popularity: Floats
    """Share of searches, by query; sums to 1."""
    item_ids: pa.StringArray
    titles: pa.StringArray
    prices: Floats
    """By item."""
    pools: Ints
    """Items by query; -1 behind those of a short pool. [queries, items]"""
    grades: NDArray[np.int8]
    """0 to 3, of the pools' items; -1 behind those of a short pool. [queries, items]"""

    @classmethod
    def of(
        cls,
        queries: Sequence[str],
        popularity: ArrayLike,
        item_ids: Sequence[str],
        titles: Sequence[str],
        judged: tuple[ArrayLike, ArrayLike, ArrayLike],
    ) -> Shop:
        """A shop of the queries that fill a page. Prices are drawn, the same ones every time.

        Args:
            queries: Texts.
            popularity: How often each is searched, in any unit.
            item_ids: Of all items.
            titles: Of the same items.
            judged: Query and item by number, and grade, of each judged pair.

        Raises:
            ValueError: No query has ``PAGE`` judged items, or a grade is none of 0 to 3.
        """
        query, item, grade = (np.asarray(column) for column in judged)
        if len(grade) and not 0 <= grade.min() <= grade.max() < GRADES:
            raise ValueError(f"grades from {grade.min()} to {grade.max()}, want 0 to {GRADES - 1}")
        counts = np.bincount(query, minlength=len(queries))
        kept = np.flatnonzero(counts >= PAGE)
        if not len(kept):
            raise ValueError(f"no query has {PAGE} judged items, so that they fill a page")
        order = np.argsort(query, kind="stable")
        place = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        pools = np.full((len(queries), counts.max()), _ABSENT, np.int32)
        grades = np.full(pools.shape, _ABSENT, np.int8)
        pools[query[order], place] = item[order]
        grades[query[order], place] = grade[order]
        weights = np.asarray(popularity, np.float64)[kept]
        if not weights.sum() > 0:
            weights = np.ones(len(kept))
        return cls(
            queries=pa.array([queries[number] for number in kept.tolist()], pa.string()),
            popularity=weights / weights.sum(),
            item_ids=pa.array(item_ids, pa.string()),
            titles=pa.array(titles, pa.string()),
            prices=_PRICE * np.exp(np.random.default_rng(0).normal(size=len(item_ids))),
            pools=pools[kept],
            grades=grades[kept],
        )

    def pages(self, quality: float) -> Ints:
        """What a scorer of some quality shows: places in each query's pool. [queries, PAGE]

        Args:
            quality: Chance that an item stands where its grade puts it, and not anywhere. A better
                scorer has the same luck, so that equal ones show the same.
        """
        rng = np.random.default_rng(1)
        by_grade = rng.random(self.grades.shape) < quality
        key = np.where(
            by_grade,
            self.grades + rng.random(self.grades.shape),
            GRADES * rng.random(self.grades.shape),
        )
        key[self.grades == _ABSENT] = _ABSENT
        return np.argsort(-key, axis=1, kind="stable")[:, :PAGE]
