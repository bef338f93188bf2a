"""Intervals by resampling queries: pairs of one query are no independent witnesses."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from relevance.metrics import Estimator, FloatArray, IntArray

Key = TypeVar("Key", bound=Hashable)

CONFIDENCE = 0.95

_BLOCK = 2**21  # numbers of one block of counts: 16 MB


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % percentile interval."""

    value: float
    low: float
    """NaN, as ``high``, when fewer than half of the resamples define the value."""
    high: float
    skipped: int
    """Resamples that left the value undefined, for example with only one class."""


@dataclass(frozen=True)
class Draws:
    """A value and what the resamples made of it."""

    value: float
    resampled: FloatArray
    """NaN where a resample leaves it undefined. [resamples]"""

    def __sub__(self, other: Draws) -> Draws:
        """The paired difference: both sides saw the same resamples."""
        return Draws(self.value - other.value, self.resampled - other.resampled)

    def interval(self) -> Interval:
        """Percentile interval over the resamples that define the value."""
        defined = self.resampled[~np.isnan(self.resampled)]
        skipped = len(self.resampled) - len(defined)
        if np.isnan(self.value) or 2 * skipped > len(self.resampled):
            return Interval(self.value, np.nan, np.nan, skipped)
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(defined, [tail, 1 - tail])
        return Interval(self.value, float(low), float(high), skipped)


def bootstrap(
    estimators: Mapping[Key, Estimator], strata: IntArray, *, resamples: int, seed: int
) -> dict[Key, Draws]:
    """Evaluate every estimator on the same resamples of queries.

    Args:
        estimators: What to estimate; see ``relevance.metrics``.
        strata: Number of each query's stratum, from 0. [queries] Queries are drawn with
            replacement within their stratum, so every resample keeps the mix of sources,
            which is a choice of whoever made the dataset and not chance.
        resamples: How many.
        seed: Same seed, same resamples.

    Returns:
        Value and resampled values under each key.
    """
    once = np.ones((1, len(strata)))
    values = {key: float(estimate(once)[0]) for key, estimate in estimators.items()}
    drawn: dict[Key, list[FloatArray]] = {key: [] for key in estimators}
    for counts in resample_counts(strata, resamples=resamples, seed=seed):
        for key, estimate in estimators.items():
            drawn[key].append(estimate(counts))
    return {key: Draws(values[key], np.concatenate(drawn[key])) for key in estimators}


def resample_counts(strata: IntArray, *, resamples: int, seed: int) -> Iterator[FloatArray]:
    """How often each resample drew each query, in blocks. [some resamples, queries]"""
    groups = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    generators = [np.random.default_rng([seed, stratum]) for stratum in range(len(groups))]
    rows = max(1, _BLOCK // max(1, len(strata)))
    for start in range(0, resamples, rows):
        n = min(rows, resamples - start)
        counts = np.zeros((n, len(strata)))
        for group, generator in zip(groups, generators, strict=True):
            size = len(group)
            drawn = generator.integers(size, size=(n, size)) + size * np.arange(n)[:, None]
            counts[:, group] = np.bincount(drawn.ravel(), minlength=n * size).reshape(n, size)
        yield counts
