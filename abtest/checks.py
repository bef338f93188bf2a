"""Refusing numbers that statistics cannot use."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def between(name: str, value: float, low: float = 0.0, high: float = 1.0) -> float:
    """The value, strictly between two limits.

    Raises:
        ValueError: It is not, or is no number.
    """
    if not low < value < high:
        raise ValueError(f"{name}: {value}, want a number between {low:g} and {high:g}")
    return value


def finite(name: str, value: float) -> float:
    """The value, neither NaN nor infinite.

    Raises:
        ValueError: It is.
    """
    if not math.isfinite(value):
        raise ValueError(f"{name}: {value}, want a finite number")
    return value


def pvalues(values: ArrayLike) -> NDArray[np.float64]:
    """The p-values as an array. [tests]

    Raises:
        ValueError: There is none, or one is outside 0 to 1.
    """
    given = np.atleast_1d(np.asarray(values, float))
    if not given.size or not np.all((given >= 0) & (given <= 1)):
        raise ValueError(f"p-values: {given.tolist()}, want one or more numbers from 0 to 1")
    return given


def shares(name: str, values: Sequence[float]) -> NDArray[np.float64]:
    """Positive weights that sum to 1, as an array. [arms]

    Raises:
        ValueError: They are fewer than two, not positive, or sum to something else.
    """
    given = np.asarray(values, float)
    if given.ndim != 1 or len(given) < 2 or not np.all(given > 0):
        raise ValueError(f"{name}: {given.tolist()}, want two or more positive numbers")
    if abs(given.sum() - 1) > 1e-9:
        raise ValueError(f"{name}: {given.tolist()} sum to {given.sum():g}, want 1")
    return given
