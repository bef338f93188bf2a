"""Metrics of a scoring, each ready for the bootstrap: value under any weights of the queries.

``METRICS[name].prepare(pairs)`` sorts, bins and sums once and returns an estimator; the
estimator takes how often each query counts (all ones for the plain value, multiplicities of a
resample for the bootstrap) and answers for many resamples at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

Estimator = Callable[[FloatArray], FloatArray]
"""Counts of every query [resamples, queries] -> values [resamples]; NaN where undefined."""

ESCI_GAINS = (0.0, 0.01, 0.1, 1.0)
"""Gain of grade 0, 1, 2, 3: I, C, S, E of the ESCI paper (Reddy et al. 2022, section 4.1).

The script released with the data swaps S and C (its mapping numbers substitutes 2 and
complements 3, then reads ``2=0.01,3=0.1``); we keep the paper's.
"""

NDCG_DEPTH = 10
ECE_BINS = 10
THRESHOLD = 0.5
"""A pair with this probability or more is called relevant."""

_BLOCK = 2**18  # numbers held per step: 2 MB, so that a block stays in the processor's cache


@dataclass(frozen=True)
class ScoredPairs:
    """Judged pairs with the scores of one model."""

    query: IntArray
    """Number of each pair's query, 0 to n_queries - 1. [pairs]"""
    n_queries: int
    """Queries of the whole set; those without a pair here have no say."""
    grade: FloatArray
    """Judged relevance, 0-3. [pairs]"""
    score: FloatArray
    """Raw scores, higher is more relevant. [pairs]"""
    probability: FloatArray | None = None
    """Calibrated probability of being relevant; None leaves F1 and ECE undefined. [pairs]"""
    relevant_grade: float = 3.0
    """Pairs of this grade or better are relevant."""
    gains: tuple[float, ...] = ESCI_GAINS
    """Gain of grades 0, 1, 2, ...; grades between two (means over raters) are interpolated."""

    @property
    def is_relevant(self) -> NDArray[np.bool_]:
        """Which pairs are relevant. [pairs]"""
        return self.grade >= self.relevant_grade

    def only(self, rows: NDArray[np.bool_]) -> ScoredPairs:
        """The pairs where ``rows`` is true, their queries numbered as before."""
        return ScoredPairs(
            query=self.query[rows],
            n_queries=self.n_queries,
            grade=self.grade[rows],
            score=self.score[rows],
            probability=None if self.probability is None else self.probability[rows],
            relevant_grade=self.relevant_grade,
            gains=self.gains,
        )


@dataclass(frozen=True)
class Metric:
    """One way of judging a scoring."""

    prepare: Callable[[ScoredPairs], Estimator]
    definition: str
    """One sentence for people; ``{relevant_grade}`` and ``{gains}`` stand for the settings."""
    is_higher_better: bool = True
    needs_probability: bool = False
    """Whether it reads calibrated probabilities instead of raw scores."""
    scope: Literal["pairs", "queries"] = "pairs"
    """Pooled over all pairs, or a mean over queries."""


def measure(name: str, pairs: ScoredPairs) -> float:
    """Value of the metric ``name``; NaN where it is undefined, for example with one class.

    Raises:
        ValueError: Unknown metric.
    """
    return float(find(name).prepare(pairs)(np.ones((1, pairs.n_queries)))[0])


def find(name: str) -> Metric:
    """The metric ``name``.

    Raises:
        ValueError: Unknown metric.
    """
    if name not in METRICS:
        raise ValueError(f"metric {name!r}: unknown; there are {', '.join(METRICS)}")
    return METRICS[name]


def definitions(relevant_grade: float, gains: Sequence[float] = ESCI_GAINS) -> dict[str, str]:
    """Definition of every metric under these settings."""
    table = ", ".join(f"grade {grade}: {gain:g}" for grade, gain in enumerate(gains))
    return {
        name: metric.definition.format(relevant_grade=f"{relevant_grade:g}", gains=table)
        for name, metric in METRICS.items()
    }


def roc_auc(is_relevant: ArrayLike, scores: ArrayLike) -> float:
    """Chance that a relevant pair outscores an irrelevant one, ties counting half.

    Args:
        is_relevant: True for relevant pairs. [pairs]
        scores: Raw scores. [pairs]

    Returns:
        The area under the ROC curve; NaN with only one class.

    >>> roc_auc([True, False, True, False], [0.9, 0.3, 0.3, 0.1])
    0.875
    """
    relevant = np.asarray(is_relevant, bool)
    query = np.zeros(len(relevant), np.int64)
    return float(_auc(query, relevant, np.asarray(scores, float))(np.ones((1, 1)))[0])


def _roc_auc(pairs: ScoredPairs) -> Estimator:
    return _auc(pairs.query, pairs.is_relevant, pairs.score)


def _auc(query: IntArray, relevant: NDArray[np.bool_], score: FloatArray) -> Estimator:
    """Mann-Whitney: for each relevant pair, the weight of irrelevant ones below it."""
    good, bad = (rows[np.argsort(score[rows])] for rows in _split(relevant))
    below = np.searchsorted(score[bad], score[good], "left")
    upto = np.searchsorted(score[bad], score[good], "right")
    good_query, bad_query = query[good], query[bad]

    def estimate(counts: FloatArray) -> FloatArray:
        weight = np.take(counts, good_query, axis=1)  # [resamples, relevant]
        total = _running(np.take(counts, bad_query, axis=1))  # [resamples, irrelevant + 1]
        wins = np.take(total, below, axis=1) + np.take(total, upto, axis=1)
        return _ratio(np.einsum("rp,rp->r", wins, weight) / 2, weight.sum(1) * total[:, -1])

    return _in_blocks(estimate, len(score))


def _spearman(pairs: ScoredPairs) -> Estimator:
    rank_score = _midranks(pairs.score)
    rank_grade = _midranks(pairs.grade)

    def estimate(counts: FloatArray) -> FloatArray:
        weight = np.take(counts, pairs.query, axis=1)  # [resamples, pairs]
        middle = (weight.sum(1, keepdims=True) + 1) / 2
        x, y = rank_score(weight) - middle, rank_grade(weight) - middle
        covariance = np.einsum("rp,rp,rp->r", weight, x, y)
        x_variance = np.einsum("rp,rp,rp->r", weight, x, x)
        y_variance = np.einsum("rp,rp,rp->r", weight, y, y)
        return _ratio(covariance, np.sqrt(x_variance * y_variance))

    return _in_blocks(estimate, len(pairs.score))


def _midranks(values: FloatArray) -> Estimator:
    """Weights [resamples, pairs] -> mean rank of each pair among its equals, from 1."""
    order = np.argsort(values)
    first = np.searchsorted(values[order], values, "left")
    last = np.searchsorted(values[order], values, "right")

    def ranks(weight: FloatArray) -> FloatArray:
        total = _running(np.take(weight, order, axis=1))
        middle = np.take(total, first, axis=1) + np.take(total, last, axis=1) + 1
        return middle / 2

    return ranks


def _pearson(pairs: ScoredPairs) -> Estimator:
    x, y = _standard(pairs.score), _standard(pairs.grade)
    sums = _per_query(pairs, np.ones_like(x), x, y, x * x, y * y, x * y)

    def estimate(counts: FloatArray) -> FloatArray:
        n, sx, sy, sxx, syy, sxy = (counts @ sums).T
        x_variance, y_variance = n * sxx - sx * sx, n * syy - sy * sy
        # a constant column leaves rounding noise of either sign instead of 0
        is_flat = np.minimum(x_variance, y_variance) <= 1e-14 * n * n
        product = np.where(is_flat, 0.0, x_variance * y_variance)
        return _ratio(n * sxy - sx * sy, np.sqrt(product))

    return estimate


def _standard(values: FloatArray) -> FloatArray:
    """Centre and scale, which no correlation sees, so that sums of squares keep their digits."""
    if not len(values):
        return values
    centred: FloatArray = values - values.mean()
    scale = float(np.abs(centred).max())
    if scale > 0:
        centred /= scale
    return centred


def _f1_class(is_irrelevant: bool) -> Callable[[ScoredPairs], Estimator]:
    def prepare(pairs: ScoredPairs) -> Estimator:
        confusion = _confusion(pairs)
        return lambda counts: _f1(counts @ confusion)[int(is_irrelevant)]

    return prepare


def _f1_macro(pairs: ScoredPairs) -> Estimator:
    confusion = _confusion(pairs)

    def estimate(counts: FloatArray) -> FloatArray:
        relevant, irrelevant = _f1(counts @ confusion)
        return (relevant + irrelevant) / 2

    return estimate


def _f1_micro(pairs: ScoredPairs) -> Estimator:
    confusion = _confusion(pairs)

    def estimate(counts: FloatArray) -> FloatArray:
        true_relevant, false_relevant, false_irrelevant, true_irrelevant = (counts @ confusion).T
        right = true_relevant + true_irrelevant
        return _ratio(right, right + false_relevant + false_irrelevant)

    return estimate


def _confusion(pairs: ScoredPairs) -> FloatArray:
    """True and false relevant, false and true irrelevant pairs of each query. [queries, 4]"""
    if pairs.probability is None:
        return np.full((pairs.n_queries, 4), np.nan)
    called, relevant = pairs.probability >= THRESHOLD, pairs.is_relevant
    return _per_query(
        pairs, called & relevant, called & ~relevant, ~called & relevant, ~called & ~relevant
    )


def _f1(confusion: FloatArray) -> tuple[FloatArray, FloatArray]:
    """F1 of the relevant and of the irrelevant class. [resamples] each"""
    true_relevant, false_relevant, false_irrelevant, true_irrelevant = confusion.T
    wrong = false_relevant + false_irrelevant
    return (
        _ratio(2 * true_relevant, 2 * true_relevant + wrong),
        _ratio(2 * true_irrelevant, 2 * true_irrelevant + wrong),
    )


def _ece(pairs: ScoredPairs) -> Estimator:
    if pairs.probability is None:
        return lambda counts: np.full(len(counts), np.nan)
    bins = np.minimum((pairs.probability * ECE_BINS).astype(int), ECE_BINS - 1)
    excess = pairs.probability - pairs.is_relevant
    sums = _per_query(
        pairs, np.ones_like(excess), *(np.where(bins == b, excess, 0.0) for b in range(ECE_BINS))
    )

    def estimate(counts: FloatArray) -> FloatArray:
        totals = counts @ sums
        # n_b/n * |mean probability - share relevant| is |sum of the differences| / n
        return _ratio(np.abs(totals[:, 1:]).sum(1), totals[:, 0])

    return estimate


def _mean_ndcg(depth: int | None) -> Callable[[ScoredPairs], Estimator]:
    def prepare(pairs: ScoredPairs) -> Estimator:
        per_query = ndcg(pairs, depth)
        has_gain = ~np.isnan(per_query)
        sums = np.stack([np.where(has_gain, per_query, 0.0), has_gain.astype(float)], axis=1)

        def estimate(counts: FloatArray) -> FloatArray:
            total, n = (counts @ sums).T
            return _ratio(total, n)

        return estimate

    return prepare


def ndcg(pairs: ScoredPairs, depth: int | None = NDCG_DEPTH) -> FloatArray:
    """nDCG of each query over its judged items.

    A tie is worth its expected value over all orders of the tied items (McSherry & Najork,
    ECIR 2008), so a constant score earns exactly what a random order earns on average.

    Args:
        pairs: Scored pairs.
        depth: Ranks that count; None counts all.

    Returns:
        Values [queries]; NaN for a query without any gain, which no order can change.
    """
    gain = np.interp(pairs.grade, np.arange(len(pairs.gains)), pairs.gains)
    order = np.lexsort((-pairs.score, pairs.query))
    query, score = pairs.query[order], pairs.score[order]
    discount = _discounts(query, pairs.n_queries, depth)
    starts = np.ones(len(order), bool)
    starts[1:] = (query[1:] != query[:-1]) | (score[1:] != score[:-1])
    tie = np.cumsum(starts) - 1
    shared = np.bincount(tie, discount) / np.bincount(tie) if len(tie) else discount
    got = _totals(query, gain[order] * shared[tie], pairs.n_queries)
    ideal = np.lexsort((-gain, pairs.query))
    best = _totals(query, gain[ideal] * discount, pairs.n_queries)
    value = _ratio(got, best)
    # the sums of a perfect order may differ in the last bit; it scores exactly 1
    return np.where(np.isclose(got, best, rtol=1e-12, atol=0) & (best > 0), 1.0, value)


def _discounts(query: IntArray, n_queries: int, depth: int | None) -> FloatArray:
    """1 / log2(rank + 1) of rows sorted by query, 0 below ``depth``. [pairs]"""
    sizes = np.bincount(query, minlength=n_queries)
    first = np.cumsum(sizes) - sizes
    rank = np.arange(len(query)) - first[query] + 1
    discount: FloatArray = 1 / np.log2(rank + 1)
    return discount if depth is None else np.where(rank <= depth, discount, 0.0)


def _split(relevant: NDArray[np.bool_]) -> tuple[IntArray, IntArray]:
    return np.flatnonzero(relevant), np.flatnonzero(~relevant)


def _per_query(pairs: ScoredPairs, *columns: NDArray[Any]) -> FloatArray:
    """Sum of each column within each query. [queries, columns]"""
    return np.stack([_totals(pairs.query, c, pairs.n_queries) for c in columns], axis=1)


def _totals(query: IntArray, values: NDArray[Any], n_queries: int) -> FloatArray:
    return np.bincount(query, values, n_queries).astype(np.float64)


def _running(weight: FloatArray) -> FloatArray:
    """Running total along each row, beginning with 0. [rows, columns + 1]"""
    total = np.zeros((weight.shape[0], weight.shape[1] + 1))
    np.cumsum(weight, axis=1, out=total[:, 1:])
    return total


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient, NaN where the denominator is 0."""
    quotient: FloatArray = np.full(np.shape(denominator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


def _in_blocks(estimate: Estimator, n_pairs: int) -> Estimator:
    """Let an estimator that holds a row of pairs per resample see few resamples at a time."""
    rows = max(1, _BLOCK // max(1, n_pairs))
    return lambda counts: np.concatenate(
        [estimate(counts[start : start + rows]) for start in range(0, len(counts), rows)]
    )


METRICS: Mapping[str, Metric] = {
    "roc_auc": Metric(
        _roc_auc,
        "chance that a pair of grade {relevant_grade} or better outscores one below it, over all "
        "pairs of all queries, ties counting half; 0.5 is chance",
    ),
    "f1_relevant": Metric(
        _f1_class(is_irrelevant=False),
        "F1 of the class grade >= {relevant_grade}: 2 TP / (2 TP + FP + FN), calling a pair "
        "relevant when its calibrated probability is 0.5 or more",
        needs_probability=True,
    ),
    "f1_irrelevant": Metric(
        _f1_class(is_irrelevant=True),
        "F1 of the class grade < {relevant_grade}: 2 TN / (2 TN + FP + FN), same threshold",
        needs_probability=True,
    ),
    "f1_macro": Metric(
        _f1_macro,
        "mean of f1_relevant and f1_irrelevant",
        needs_probability=True,
    ),
    "f1_micro": Metric(
        _f1_micro,
        "F1 over both classes' pooled counts, which for one label a pair is the share of pairs "
        "called right; never below f1_macro",
        needs_probability=True,
    ),
    "spearman": Metric(
        _spearman,
        "correlation of the ranks of score and grade over all pairs, ties at their mean rank",
    ),
    "pearson": Metric(_pearson, "linear correlation of raw score and grade over all pairs"),
    f"ndcg@{NDCG_DEPTH}": Metric(
        _mean_ndcg(NDCG_DEPTH),
        f"mean over queries of DCG / ideal DCG of the first {NDCG_DEPTH} judged items; DCG = sum "
        "of gain / log2(rank + 1), gain linear ({gains}), ideal from the judged items, ties at "
        "their expected value, queries without any gain left out",
        scope="queries",
    ),
    "ece": Metric(
        _ece,
        f"expected calibration error: over {ECE_BINS} equal bins of the calibrated probability, "
        "the distance between mean probability and share of pairs of grade >= {relevant_grade}, "
        "weighted by pairs; lower is better",
        is_higher_better=False,
        needs_probability=True,
    ),
}
"""Every offline metric; the command line, gate, report and reference read this table."""
