"""From raw scores to probabilities: Platt scaling, cross-fitted over queries."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relevance.metrics import FloatArray, IntArray

FOLDS = 5


@dataclass(frozen=True)
class Calibration:
    """What turns a model's raw scores into probabilities of being relevant."""

    temperature: float = 1.0
    """Divides scores."""
    offset: float = 0.0
    """Added after that: a model of grades gives an item of grade 2 of 3 a score for two thirds,
    though nobody calls it relevant."""

    def probability(self, scores: FloatArray) -> FloatArray:
        """Chance of being relevant. Any shape

        >>> Calibration(temperature=2.0, offset=-1.0).probability(np.array([2.0, 40.0])).round(4)
        array([0.5, 1. ])
        """
        return _logistic(scores / self.temperature + self.offset)

    @classmethod
    def fit(cls, scores: FloatArray, is_relevant: NDArray[np.bool_]) -> Calibration:
        """By ``platt``; a scorer worse than chance gets the base rate for all. Both [pairs]"""
        slope, offset = platt(scores, is_relevant)
        return cls(1 / max(slope, 1e-9), offset)


def query_folds(query_ids: Sequence[str], folds: int = FOLDS) -> IntArray:
    """Fold of each pair: equal shares of the queries, in the order of their ids' hashes. [pairs]

    The same ids give the same folds in any order.
    """
    names = sorted(set(query_ids), key=lambda name: hashlib.sha256(name.encode()).digest())
    fold = {name: index % folds for index, name in enumerate(names)}
    return np.array([fold[name] for name in query_ids], np.int64)


def cross_fitted(
    scores: FloatArray, is_relevant: NDArray[np.bool_], fold: IntArray
) -> FloatArray | None:
    """Probability of every pair by a Platt scaling that saw none of its query's labels.

    Args:
        scores: Raw scores. [pairs]
        is_relevant: Labels. [pairs]
        fold: Fold of each pair; a query has one fold. [pairs]

    Returns:
        Probabilities [pairs], or None where some fold leaves only one class to fit on.
    """
    probability = np.empty(len(scores))
    for held_out in np.unique(fold):
        rest = fold != held_out
        if not 0 < is_relevant[rest].sum() < rest.sum():
            return None
        slope, intercept = platt(scores[rest], is_relevant[rest])
        probability[~rest] = _logistic(slope * scores[~rest] + intercept)
    return probability


def platt(
    scores: FloatArray, is_relevant: NDArray[np.bool_], steps: int = 100
) -> tuple[float, float]:
    """Slope and intercept of the logistic curve from score to probability.

    A scorer that is worse than chance gets slope 0, the base rate for all, since a negative
    slope would turn its order around.

    Args:
        scores: Raw scores. [pairs]
        is_relevant: Labels, both classes present. [pairs]
        steps: Newton steps at most.

    Source:
        Platt 1999, with his smoothed targets; Newton with step halving as in Lin, Lin & Weng,
        Machine Learning 2007.
    """
    n_relevant = int(is_relevant.sum())
    n_irrelevant = len(is_relevant) - n_relevant
    target = np.where(is_relevant, (n_relevant + 1) / (n_relevant + 2), 1 / (n_irrelevant + 2))
    base = float(np.log(target.mean() / (1 - target.mean())))
    centre, scale = float(scores.mean()), float(scores.std())
    # numbers that differ by rounding alone carry no order worth a slope
    if scale <= 1e-12 * max(1.0, abs(centre)):
        return 0.0, base
    x = (scores - centre) / scale
    slope, intercept = 0.0, base
    loss = _loss(slope * x + intercept, target)
    for _ in range(steps):
        probability = _logistic(slope * x + intercept)
        residual, weight = probability - target, probability * (1 - probability)
        gradient = np.array([residual @ x, residual.sum()])
        if np.abs(gradient).max() <= 1e-9 * len(x):
            break
        off = weight @ x
        curvature = np.array([[weight @ (x * x) + 1e-12, off], [off, weight.sum() + 1e-12]])
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-10:
            candidate = (slope - size * step[0], intercept - size * step[1])
            tried = _loss(candidate[0] * x + candidate[1], target)
            if tried < loss:
                slope, intercept, loss = float(candidate[0]), float(candidate[1]), tried
                break
            size /= 2
        else:
            break
    if slope <= 0:
        return 0.0, base
    return slope / scale, intercept - slope * centre / scale


def _logistic(logit: FloatArray) -> FloatArray:
    # tanh neither overflows nor loses the small end as 1 / (1 + exp(-x)) does
    return (1 + np.tanh(logit / 2)) / 2


def _loss(logit: FloatArray, target: FloatArray) -> float:
    return float((np.logaddexp(0.0, logit) - target * logit).sum())
