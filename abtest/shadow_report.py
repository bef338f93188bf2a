"""How a shadow's scores differ from those of the scorer that answered."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

TOP = 10
"""Items whose overlap is counted: about what a shopper sees of a page."""


class ShadowReport(NamedTuple):
    """Copies of one experiment to one scorer. A mean over no requests is None."""

    experiment_id: str
    main_scorer: str
    shadow_scorer: str
    copies: int
    failures: dict[str, int]
    """Copies that got no scores, by reason."""
    top_overlap: float | None
    """Mean share of the main scorer's first items that are among the shadow's first as well."""
    kendall: float | None
    """Mean tau-b of items that both have; requests whose scores are all equal left out."""
    spearman: float | None
    """Mean rho of the same."""
    mean_difference: float | None
    """Mean of shadow's minus main's score over all items that both have."""
    mean_abs_difference: float | None
    main_p50_ms: float
    main_p99_ms: float
    shadow_p50_ms: float
    """Failures included: a time-out took its time too."""
    shadow_p99_ms: float


@dataclass
class _Pair:
    """What is known of a main scorer and its shadow."""

    main_ms: list[float] = field(default_factory=list)
    shadow_ms: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    overlaps: list[float] = field(default_factory=list)
    taus: list[float] = field(default_factory=list)
    rhos: list[float] = field(default_factory=list)
    difference: float = 0.0
    abs_difference: float = 0.0
    items: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        self.main_ms.append(row["main_ms"])
        self.shadow_ms.append(row["shadow_ms"])
        if row["failure"]:
            self.failures[row["failure"]] += 1
            return
        # None, where one of them left the item out, becomes not a number
        main = np.array(row["main_scores"] or (), float)
        shadow = np.array(row["shadow_scores"] or (), float)
        if np.isfinite(main).any() and np.isfinite(shadow).any():
            self.overlaps.append(top_overlap(main, shadow))
        both = np.isfinite(main) & np.isfinite(shadow)
        main, shadow = main[both], shadow[both]
        if np.unique(main).size > 1 and np.unique(shadow).size > 1:
            self.taus.append(float(kendalltau(main, shadow).statistic))
            self.rhos.append(float(spearmanr(main, shadow).statistic))
        self.difference += float((shadow - main).sum())
        self.abs_difference += float(np.abs(shadow - main).sum())
        self.items += main.size


def shadow_reports(rows: Iterable[Mapping[str, Any]]) -> list[ShadowReport]:
    """Compare main scorers with their shadows.

    Args:
        rows: Fields of ``abtest.records.Shadow``; scores are None where an answer left an item out.

    Returns:
        One report for each experiment, main scorer and shadow, in that order.
    """
    pairs: defaultdict[tuple[str, str, str], _Pair] = defaultdict(_Pair)
    for row in rows:
        pairs[row["experiment_id"], row["main_scorer"], row["shadow_scorer"]].add(row)
    return [_report(names, pair) for names, pair in sorted(pairs.items())]


def top_overlap(main: NDArray[np.float64], shadow: NDArray[np.float64], top: int = TOP) -> float:
    """Share of the first items by ``main`` that are among the first by ``shadow``.

    Args:
        main: Scores; not a number where an item is left out. [items]
        shadow: Of the same items. [items]
        top: How many are first; of fewer items all are.

    >>> top_overlap(np.array([4.0, 3, 2, 1]), np.array([1.0, 4, 3, 2]), top=2)
    0.5
    """
    first, second = (set(_top(scores, top)) for scores in (main, shadow))
    return len(first & second) / max(len(first), len(second))


def _top(scores: NDArray[np.float64], top: int) -> list[int]:
    kept = np.flatnonzero(np.isfinite(scores))
    order: list[int] = kept[np.argsort(-scores[kept], kind="stable")][:top].tolist()
    return order


def _report(names: tuple[str, str, str], pair: _Pair) -> ShadowReport:
    items = pair.items
    return ShadowReport(
        *names,
        copies=len(pair.main_ms),
        failures=dict(pair.failures.most_common()),
        top_overlap=_mean(pair.overlaps),
        kendall=_mean(pair.taus),
        spearman=_mean(pair.rhos),
        mean_difference=pair.difference / items if items else None,
        mean_abs_difference=pair.abs_difference / items if items else None,
        main_p50_ms=float(np.percentile(pair.main_ms, 50)),
        main_p99_ms=float(np.percentile(pair.main_ms, 99)),
        shadow_p50_ms=float(np.percentile(pair.shadow_ms, 50)),
        shadow_p99_ms=float(np.percentile(pair.shadow_ms, 99)),
    )


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
