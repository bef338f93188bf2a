"""Relevance and a search engine's ranking score in one number.

    score = weight * logit(relevance) + (1 - weight) * z(ranking score)

A convex combination of the log-odds of relevance and the standardised ranking score. It is log-
linear: exp(score) is odds^weight * exp(z)^(1 - weight), so each side multiplies. Log-odds keep
their absolute size, so an item that is surely irrelevant cannot be ranked up by a few standard
deviations; the ranking score keeps none, so its unit and offset do not matter. Mean and deviation
are those of all items of the request that are known, before the threshold, so that a change of
threshold moves no item past another.

Source:
    Bruch, Gai & Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval", ACM TOIS 2023:
    convex combinations are better than reciprocal ranks and hardly mind how scores are normalised.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CERTAIN = 1e-6
"""Nearer to 0 and 1 than this, relevance is rounding."""


def combined(
    relevance: NDArray[np.float32], ranking_scores: NDArray[np.float64] | None, weight: float
) -> NDArray[np.float64]:
    """What to order items by, higher first.

    Args:
        relevance: Probabilities; not a number where an item is unknown. [items]
        ranking_scores: Finite, higher for better; None orders by relevance alone. [items]
        weight: Of relevance, 0 to 1.

    Returns:
        Scores; not a number where an item is unknown. [items]
    """
    probability = np.clip(relevance.astype(np.float64), _CERTAIN, 1 - _CERTAIN)
    log_odds = np.log(probability / (1 - probability))
    if ranking_scores is None:
        return log_odds
    known = ~np.isnan(log_odds)
    score = np.full_like(log_odds, np.nan)
    standing = _standardised(ranking_scores[known])
    score[known] = weight * log_odds[known] + (1 - weight) * standing
    return score


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if not values.any():
        return np.zeros_like(values)
    # near the largest float a sum would be infinite
    scaled = values / np.abs(values).max()
    deviation = scaled.std()
    # equal values differ by rounding once their mean is taken off
    if deviation <= np.finfo(np.float64).eps * scaled.size:
        return np.zeros_like(values)
    standing: NDArray[np.float64] = (scaled - scaled.mean()) / deviation
    return standing


def falling(values: NDArray[np.floating]) -> NDArray[np.intp]:
    """Places of ``values``, highest first, ties by place."""
    return np.argsort(-values, kind="stable")
