"""Whether units fell to the arms as configured; if not, no other number can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as distributions
from scipy.special import gammaln

from abtest.checks import between, shares

CONCENTRATION = 10_000.0
"""How closely around the weights the sequential test looks; that of the authors' ``ssrm``."""


class SampleRatio(NamedTuple):
    """Units of every arm against the configured weights."""

    expected: tuple[float, ...]
    statistic: float
    pvalue: float


def sample_ratio(counts: Sequence[int], weights: Sequence[float]) -> SampleRatio:
    """Chi-square test of the weights, for one look at the end. Stop below 0.001.

    With fewer than ten expected units in an arm a p-value below 0.001 is up to four times as
    frequent as that; the test means to be used on hundreds.

    Args:
        counts: Units of each arm.
        weights: As configured, never as observed; they sum to 1.

    Raises:
        ValueError: No units, a negative count, or weights that are not positive or do not sum
            to 1.

    >>> round(sample_ratio([5100, 4900], [0.5, 0.5]).pvalue, 4)
    0.0455
    """
    observed, expected = _counts([counts], weights)
    total = observed.sum()
    if not total:
        raise ValueError("sample ratio: no units in any arm")
    found = distributions.chisquare(observed[0], expected * total)
    return SampleRatio(
        tuple((expected * total).tolist()), float(found.statistic), float(found.pvalue)
    )


def sequential_sample_ratio(
    counts: ArrayLike, weights: Sequence[float], concentration: float = CONCENTRATION
) -> NDArray[np.float64]:
    """Test of the weights at every look, however often one looks.

    Without a mismatch the p-value ever falls to a or below in at most a share a of experiments.
    It is one over the Bayes factor of "some other weights" (Dirichlet around the configured ones)
    against the configured ones; the smallest so far counts.

    Args:
        counts: Units of each arm so far, a row per look. [looks, arms]
        weights: As configured; they sum to 1.
        concentration: Higher looks for smaller deviations, and finds large ones later.

    Returns:
        p-value at each look. [looks]

    Raises:
        ValueError: A negative count, counts that fall from look to look, or weights that are
            not positive or do not sum to 1.

    Source:
        Lindon & Malek 2022, arXiv:2011.03567.
    """
    observed, expected = _counts(counts, weights)
    between("concentration", concentration, 0, np.inf)
    if np.any(np.diff(observed, axis=0) < 0):
        raise ValueError("sample ratio: counts fall from one look to the next, want running sums")
    prior = concentration * expected
    log_factor = (
        gammaln(concentration)
        - gammaln(concentration + observed.sum(axis=1))
        + (gammaln(prior + observed) - gammaln(prior)).sum(axis=1)
        - observed @ np.log(expected)
    )
    return np.exp(-np.maximum.accumulate(np.maximum(log_factor, 0.0)))


def _counts(
    counts: ArrayLike, weights: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    expected = shares("weights", weights)
    observed = np.asarray(counts, float)
    if observed.ndim != 2 or observed.shape[1] != len(expected):
        raise ValueError(f"counts of shape {observed.shape}: want one for each of {len(expected)}")
    if not np.all(np.isfinite(observed)) or np.any(observed < 0):
        raise ValueError(f"counts: {observed.tolist()}, want numbers from 0 on")
    return observed, expected
