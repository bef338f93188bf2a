"""Several tests at once: adjusted p-values, and the level each test was held to."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from abtest.checks import between, pvalues


class Adjusted(NamedTuple):
    """A family of tests in the order they were given."""

    pvalues: tuple[float, ...]
    """Adjusted: a test is significant where this is at most alpha."""
    alphas: tuple[float, ...]
    """An interval of confidence 1 - this excludes no effect exactly where the test is."""


def holm(given: ArrayLike, alpha: float = 0.05) -> Adjusted:
    """Holm's step-down method: the chance of one or more false findings is at most alpha.

    Args:
        given: p-values. [tests]
        alpha: Of the whole family.

    Raises:
        ValueError: A p-value or alpha outside 0 to 1, or no p-value.

    Source:
        Holm 1979.

    >>> holm([0.01, 0.04, 0.03]).pvalues
    (0.03, 0.06, 0.06)
    """
    between("alpha", alpha)
    raw = pvalues(given)
    order = np.argsort(raw, kind="stable")
    left = np.arange(len(raw), 0, -1)  # tests not yet rejected, at each step
    adjusted = np.minimum(np.maximum.accumulate(raw[order] * left), 1)
    steps = np.cumsum(adjusted <= alpha)  # the first failure and all after it share its level
    found = int(steps[-1])
    levels = alpha / np.where(adjusted <= alpha, left, left[min(found, len(raw) - 1)])
    return _in_given_order(order, adjusted, levels)


def benjamini_hochberg(given: ArrayLike, alpha: float = 0.05) -> Adjusted:
    """Benjamini and Hochberg's step-up method: the false share of findings is at most alpha.

    Holds for tests that are independent or rise together, as segments of one metric do.

    Args:
        given: p-values. [tests]
        alpha: Share of findings that may be false.

    Raises:
        ValueError: A p-value or alpha outside 0 to 1, or no p-value.

    Source:
        Benjamini & Hochberg 1995; the level of the intervals is Benjamini & Yekutieli's, 2005.

    >>> benjamini_hochberg([0.01, 0.04, 0.03]).pvalues
    (0.03, 0.04, 0.04)
    """
    between("alpha", alpha)
    raw = pvalues(given)
    order = np.argsort(raw, kind="stable")
    rank = np.arange(1, len(raw) + 1)
    scaled = raw[order] * len(raw) / rank
    adjusted = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1)
    found = max(int(np.sum(adjusted <= alpha)), 1)
    return _in_given_order(order, adjusted, np.full(len(raw), alpha * found / len(raw)))


def _in_given_order(order: np.ndarray, adjusted: np.ndarray, levels: np.ndarray) -> Adjusted:
    back = np.argsort(order, kind="stable")
    return Adjusted(tuple(adjusted[back].tolist()), tuple(levels[back].tolist()))
