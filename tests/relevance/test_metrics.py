"""Metrics against independent sources: scikit-learn, scipy and sums written by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from relevance.bootstrap import Draws, bootstrap, resample_counts
from relevance.calibration import cross_fitted, platt, query_folds
from relevance.configs import EvaluationConfig
from relevance.metrics import (
    ECE_BINS,
    ESCI_GAINS,
    METRICS,
    ScoredPairs,
    definitions,
    measure,
    ndcg,
    roc_auc,
)

ROOT = Path(__file__).resolve().parents[2]


def make_pairs(seed: int = 0, n: int = 400, n_queries: int = 40, *, ties: bool = True):
    rng = np.random.default_rng(seed)
    grade = rng.integers(0, 4, n).astype(float)
    score = grade + rng.normal(size=n) * 3
    if ties:
        score = np.round(score)
    return ScoredPairs(
        query=rng.integers(n_queries, size=n),
        n_queries=n_queries,
        grade=grade,
        score=score,
        probability=1 / (1 + np.exp(1 - score)),
    )


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(5))
class TestAgainstOtherLibraries:
    def test_roc_auc_is_sklearns(self, seed, ties):
        pairs = make_pairs(seed, ties=ties)
        expected = sk.roc_auc_score(pairs.grade >= 3, pairs.score)
        assert measure("roc_auc", pairs) == pytest.approx(expected, abs=1e-12)
        assert roc_auc(pairs.grade >= 3, pairs.score) == pytest.approx(expected, abs=1e-12)

    def test_f1s_are_sklearns(self, seed, ties):
        pairs = make_pairs(seed, ties=ties)
        truth, called = pairs.grade >= 3, pairs.probability >= 0.5
        expected = {
            "f1_relevant": sk.f1_score(truth, called),
            "f1_irrelevant": sk.f1_score(truth, called, pos_label=False),
            "f1_macro": sk.f1_score(truth, called, average="macro"),
            "f1_micro": sk.f1_score(truth, called, average="micro"),
        }
        assert {name: measure(name, pairs) for name in expected} == pytest.approx(expected)

    def test_correlations_are_scipys(self, seed, ties):
        pairs = make_pairs(seed, ties=ties)
        assert measure("spearman", pairs) == pytest.approx(
            stats.spearmanr(pairs.score, pairs.grade).statistic
        )
        assert measure("pearson", pairs) == pytest.approx(
            stats.pearsonr(pairs.score, pairs.grade).statistic
        )

    def test_ndcg_of_a_query_is_sklearns_also_with_ties(self, seed, ties):
        # sklearn averages over ties too, and takes gains as they are
        pairs = make_pairs(seed, ties=ties)
        ours = ndcg(pairs)
        for query in range(pairs.n_queries):
            rows = pairs.query == query
            gains = np.take(ESCI_GAINS, pairs.grade[rows].astype(int))
            if rows.sum() > 1 and gains.any():
                theirs = sk.ndcg_score([gains], [pairs.score[rows]], k=10)
                assert ours[query] == pytest.approx(theirs)

    def test_every_metric_of_a_resample_is_that_of_the_repeated_rows(self, seed, ties):
        pairs = make_pairs(seed, ties=ties)
        counts = next(resample_counts(np.zeros(40, int), resamples=3, seed=seed))
        for name, metric in METRICS.items():
            got = metric.prepare(pairs)(counts)
            for row in range(3):
                assert got[row] == pytest.approx(measure(name, repeat(pairs, counts[row])))


def repeat(pairs: ScoredPairs, counts: np.ndarray) -> ScoredPairs:
    """Write a resample out: every draw of a query becomes a query of its own."""
    rows, query = [], []
    for original, times in enumerate(counts.astype(int)):
        own = np.flatnonzero(pairs.query == original)
        for _ in range(times):
            query.append(np.full(len(own), (query[-1][0] + 1) if query else 0))
            rows.append(own)
            if not len(own):
                query.pop(), rows.pop()
    index = np.concatenate(rows)
    return dataclasses.replace(
        pairs,
        query=np.concatenate(query),
        n_queries=int(query[-1][0]) + 1,
        grade=pairs.grade[index],
        score=pairs.score[index],
        probability=pairs.probability[index],
    )


def test_ece_is_the_sum_over_bins():
    pairs = make_pairs()
    expected = 0.0
    for b in range(ECE_BINS):
        rows = (pairs.probability >= b / ECE_BINS) & (pairs.probability < (b + 1) / ECE_BINS)
        if rows.any():
            gap = pairs.probability[rows].mean() - (pairs.grade[rows] >= 3).mean()
            expected += rows.mean() * abs(gap)
    assert measure("ece", pairs) == pytest.approx(expected)


def test_ece_of_true_probabilities_is_near_zero_and_of_certainty_is_the_error_rate():
    rng = np.random.default_rng(0)
    probability = rng.random(100_000)
    grade = np.where(rng.random(100_000) < probability, 3.0, 0.0)
    query = np.zeros(100_000, int)
    honest = ScoredPairs(query, 1, grade, probability, probability)
    assert measure("ece", honest) < 0.01
    certain = dataclasses.replace(honest, probability=(probability > 0.5).astype(float))
    wrong = (certain.probability != (grade == 3)).mean()
    assert measure("ece", certain) == pytest.approx(wrong, abs=0.01)


def test_macro_f1_never_exceeds_micro_f1():
    for seed in range(20):
        pairs = make_pairs(seed, n=30)
        assert measure("f1_macro", pairs) <= measure("f1_micro", pairs) + 1e-12


class TestNdcg:
    @given(
        grades=st.lists(st.integers(0, 3), min_size=1, max_size=30).filter(any),
        gains=st.sampled_from([ESCI_GAINS, (0.0, 1.0, 2.0, 3.0), (0.0, 0.3, 0.3, 0.7)]),
    )
    @settings(max_examples=200, deadline=None)
    def test_oracle_order_is_exactly_one(self, grades, gains):
        grade = np.array(grades, float)
        pairs = ScoredPairs(np.zeros(len(grade), int), 1, grade, grade, gains=gains)
        has_gain = np.take(gains, grades).any()
        assert not has_gain or ndcg(pairs)[0] == 1.0
        assert not has_gain or ndcg(pairs, depth=None)[0] == 1.0

    def test_oracle_metric_over_many_queries_is_exactly_one(self):
        pairs = make_pairs()
        assert measure("ndcg@10", dataclasses.replace(pairs, score=pairs.grade)) == 1.0

    def test_value_by_hand(self):
        # order: S, E, I; gains .1, 1, 0
        pairs = ScoredPairs(
            np.zeros(3, int), 1, np.array([3.0, 2.0, 0.0]), np.array([2.0, 3.0, 1.0])
        )
        got = 0.1 / np.log2(2) + 1 / np.log2(3)
        best = 1 / np.log2(2) + 0.1 / np.log2(3)
        assert ndcg(pairs)[0] == pytest.approx(got / best)

    def test_a_constant_score_earns_the_mean_over_all_orders(self):
        rng = np.random.default_rng(1)
        grade = rng.integers(0, 4, 14).astype(float)
        tied = ScoredPairs(np.zeros(14, int), 1, grade, np.zeros(14))
        orders = [
            ndcg(dataclasses.replace(tied, score=rng.permutation(14).astype(float)))[0]
            for _ in range(4_000)
        ]
        error = np.std(orders) / np.sqrt(len(orders))
        assert ndcg(tied)[0] == pytest.approx(np.mean(orders), abs=4 * error)

    def test_random_order_by_the_closed_form(self):
        # each rank holds the mean gain: E[DCG] = mean gain * sum of discounts
        grade = np.repeat([3.0, 2.0, 1.0, 0.0], [4, 5, 2, 9])
        gain = np.take(ESCI_GAINS, grade.astype(int))
        discount = 1 / np.log2(np.arange(1, 21) + 1)
        expected = gain.mean() * discount[:10].sum() / (gain[:10] @ discount[:10])
        tied = ScoredPairs(np.zeros(20, int), 1, grade, np.zeros(20))
        assert ndcg(tied)[0] == pytest.approx(expected)

    def test_row_order_changes_nothing(self):
        pairs = make_pairs()
        shuffle = np.random.default_rng(2).permutation(len(pairs.grade))
        shuffled = dataclasses.replace(
            pairs,
            query=pairs.query[shuffle],
            grade=pairs.grade[shuffle],
            score=pairs.score[shuffle],
            probability=pairs.probability[shuffle],
        )
        for name in METRICS:
            assert measure(name, shuffled) == pytest.approx(measure(name, pairs), abs=1e-12)

    def test_queries_without_gain_are_left_out(self):
        query = np.array([0, 0, 1, 1])
        grade = np.array([3.0, 0.0, 0.0, 0.0])
        pairs = ScoredPairs(query, 2, grade, np.array([0.0, 1.0, 1.0, 0.0]))
        assert np.isnan(ndcg(pairs)[1])
        assert measure("ndcg@10", pairs) == ndcg(pairs)[0]

    def test_grades_between_two_get_a_gain_between(self):
        gains = (0.0, 1.0, 2.0, 4.0)
        pairs = ScoredPairs(
            np.zeros(2, int), 1, np.array([2.5, 3.0]), np.array([2.0, 1.0]), gains=gains
        )
        expected = (3 + 4 / np.log2(3)) / (4 + 3 / np.log2(3))
        assert ndcg(pairs)[0] == pytest.approx(expected)

    def test_the_released_scripts_swapped_gains_lower_a_random_order(self):
        # Shares of the small version: 44 % E, 35 % S, 5 % C, 17 % I, 23 items a query. The swap
        # lowers a random order, since substitutes, seven times as common as complements, lose
        # nine tenths of their gain. On the real lists, which differ more among queries, the
        # full-list value is .750 and the shift -.030; on these .759 and -.021.
        rng = np.random.default_rng(3)
        grade = rng.choice([3.0, 2.0, 1.0, 0.0], p=[0.436, 0.348, 0.046, 0.170], size=46_000)
        pairs = ScoredPairs(np.repeat(np.arange(2_000), 23), 2_000, grade, np.zeros(46_000))
        swapped = dataclasses.replace(pairs, gains=(0.0, 0.1, 0.01, 1.0))
        before, after = np.nanmean(ndcg(pairs, None)), np.nanmean(ndcg(swapped, None))
        assert before == pytest.approx(0.759, abs=0.005)
        assert after - before == pytest.approx(-0.021, abs=0.003)

    def test_default_gains_are_the_papers(self):
        assert ESCI_GAINS == (0.0, 0.01, 0.1, 1.0)
        assert EvaluationConfig().gains == ESCI_GAINS


class TestUndefined:
    @pytest.mark.parametrize("grade", [0.0, 3.0])
    def test_one_class_has_no_roc_auc(self, grade):
        pairs = ScoredPairs(np.zeros(3, int), 1, np.full(3, grade), np.arange(3.0))
        assert np.isnan(measure("roc_auc", pairs))

    def test_a_constant_score_has_no_correlation(self):
        pairs = dataclasses.replace(make_pairs(), score=np.full(400, 0.1))
        assert np.isnan(measure("spearman", pairs))
        assert np.isnan(measure("pearson", pairs))

    def test_without_probabilities_only_what_needs_them_is_undefined(self):
        pairs = dataclasses.replace(make_pairs(), probability=None)
        for name, metric in METRICS.items():
            assert np.isnan(measure(name, pairs)) == metric.needs_probability

    def test_no_pairs_give_no_number(self):
        pairs = make_pairs().only(np.zeros(400, bool))
        assert all(np.isnan(measure(name, pairs)) for name in METRICS)

    def test_an_unknown_metric_is_answered_with_the_known_ones(self):
        with pytest.raises(ValueError, match=r"'auc': unknown; there are roc_auc, "):
            measure("auc", make_pairs())


class TestTable:
    def test_definitions_state_the_settings(self):
        text = definitions(2.0, (0.0, 0.5, 1.0, 2.0))
        assert "grade 2 or better" in text["roc_auc"]
        assert "grade 3: 2" in text["ndcg@10"]
        assert not any("{" in line for line in text.values())

    def test_every_metric_has_a_row_in_the_guide(self):
        guide = (ROOT / "docs/evaluate.md").read_text()
        assert [name for name in METRICS if f"| `{name}` |" not in guide] == []

    def test_higher_is_better_where_it_says_so(self):
        rng = np.random.default_rng(0)
        noise = rng.normal(size=400)
        worse, better = (
            dataclasses.replace(
                make_pairs(),
                score=make_pairs().grade - 2.5 + noise * size,
                probability=np.clip(0.5 + (make_pairs().grade - 2.5 + noise * size) / 2, 0, 1),
            )
            for size in (3.0, 0.1)
        )
        for name, metric in METRICS.items():
            assert (measure(name, better) > measure(name, worse)) == metric.is_higher_better


class TestCalibration:
    def test_platt_is_unpenalised_logistic_regression(self):
        from sklearn.linear_model import LogisticRegression

        rng = np.random.default_rng(0)
        score = rng.normal(5, 40, size=20_000)
        relevant = rng.random(20_000) < 1 / (1 + np.exp(-(0.05 * score - 1)))
        slope, intercept = platt(score, relevant)
        theirs = LogisticRegression(C=1e9).fit(score[:, None], relevant)
        assert slope == pytest.approx(theirs.coef_[0, 0], rel=5e-3)
        assert intercept == pytest.approx(theirs.intercept_[0], rel=5e-3)

    def test_platt_survives_separable_and_constant_scores(self):
        relevant = np.array([False] * 10 + [True] * 10)
        slope, intercept = platt(np.arange(20.0), relevant)
        assert slope > 0
        assert 9 < -intercept / slope < 10
        assert platt(np.full(20, 0.1), relevant)[0] == 0

    def test_platt_never_turns_an_order_around(self):
        relevant = np.array([False] * 10 + [True] * 30)
        slope, intercept = platt(-np.arange(40.0), relevant)
        assert slope == 0
        assert 1 / (1 + np.exp(-intercept)) == pytest.approx(0.75, abs=0.02)

    def test_a_query_has_one_fold_whatever_the_order(self):
        ids = [f"q{i % 23}" for i in range(100)]
        fold = query_folds(ids)
        assert list(query_folds(ids[::-1])) == list(fold[::-1])
        assert len({(name, f) for name, f in zip(ids, fold, strict=True)}) == 23
        assert set(fold) == set(range(5))

    def test_a_pairs_probability_never_saw_its_querys_labels(self):
        pairs = make_pairs()
        fold = query_folds([str(q) for q in pairs.query])
        relevant = pairs.is_relevant
        before = cross_fitted(pairs.score, relevant, fold)
        own = pairs.query == 7
        after = cross_fitted(pairs.score, np.where(own, ~relevant, relevant), fold)
        assert np.array_equal(before[own], after[own])
        assert not np.array_equal(before[fold != fold[own][0]], after[fold != fold[own][0]])

    def test_too_few_queries_give_no_probabilities(self):
        score, relevant = np.arange(4.0), np.array([True, False, True, False])
        assert cross_fitted(score, relevant, query_folds(["a"] * 4)) is None


class TestBootstrap:
    def test_the_same_seed_gives_the_same_resamples(self):
        strata = np.array([0] * 30 + [1] * 5)
        first, again, other = (
            np.concatenate(list(resample_counts(strata, resamples=50, seed=seed)))
            for seed in (1, 1, 2)
        )
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_blocks_do_not_change_the_resamples(self, monkeypatch):
        strata = np.array([0] * 30 + [1] * 5)
        whole = np.concatenate(list(resample_counts(strata, resamples=50, seed=1)))
        monkeypatch.setattr("relevance.bootstrap._BLOCK", 35 * 7)
        cut = list(resample_counts(strata, resamples=50, seed=1))
        assert len(cut) == 8
        assert np.array_equal(np.concatenate(cut), whole)

    def test_every_resample_keeps_the_size_of_each_stratum(self):
        strata = np.array([0, 1] * 10 + [1] * 5)
        counts = np.concatenate(list(resample_counts(strata, resamples=20, seed=0)))
        assert (counts[:, strata == 0].sum(1) == 10).all()
        assert (counts[:, strata == 1].sum(1) == 15).all()

    def test_resamples_without_a_class_are_skipped_and_counted(self):
        # one query of three holds the only relevant pair: missing in (2/3)^3 of the resamples
        pairs = ScoredPairs(
            np.array([0, 0, 1, 2]), 3, np.array([3.0, 0, 0, 0]), np.array([3.0, 2, 4, 1])
        )
        draws = bootstrap(
            {"auc": METRICS["roc_auc"].prepare(pairs)},
            np.zeros(3, int),
            resamples=2_000,
            seed=0,
        )["auc"]
        interval = draws.interval()
        assert interval.value == pytest.approx(2 / 3)
        assert interval.skipped / 2_000 == pytest.approx(8 / 27, abs=0.04)
        assert interval.low <= interval.value <= interval.high

    def test_mostly_undefined_resamples_give_no_interval(self):
        draws = Draws(0.7, np.array([0.7, np.nan, np.nan]))
        interval = draws.interval()
        assert interval.skipped == 2
        assert np.isnan(interval.low)
        assert np.isnan(interval.high)

    def test_a_model_against_itself_differs_by_exactly_zero(self):
        draws = bootstrap(
            {side: METRICS["roc_auc"].prepare(make_pairs()) for side in "ab"},
            np.zeros(40, int),
            resamples=50,
            seed=0,
        )
        difference = (draws["a"] - draws["b"]).interval()
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)

    def test_intervals_cover_the_truth_where_resampling_pairs_would_not(self):
        """Simulation: pairs of a query share how well it is scored: no free witnesses."""
        truth = population_auc()
        by_query, by_pair = [], []
        for seed in range(150):
            pairs = clustered(np.random.default_rng(seed + 1), n_queries=60)
            estimator = {0: METRICS["roc_auc"].prepare(pairs)}
            interval = bootstrap(estimator, np.zeros(60, int), resamples=200, seed=0)[0].interval()
            by_query.append(interval.low <= truth <= interval.high)
            alone = dataclasses.replace(
                pairs, query=np.arange(len(pairs.grade)), n_queries=len(pairs.grade)
            )
            estimator = {0: METRICS["roc_auc"].prepare(alone)}
            strata = np.zeros(len(pairs.grade), int)
            interval = bootstrap(estimator, strata, resamples=200, seed=0)[0].interval()
            by_pair.append(interval.low <= truth <= interval.high)
        # 150 draws of .95 stay within .90 and .99 in 99 of 100 series
        assert 0.90 <= np.mean(by_query) <= 0.99
        assert np.mean(by_pair) < 0.85

    def test_paired_differences_cover_the_truth_and_are_tighter_than_unpaired_ones(self):
        strata = np.repeat([0, 1], [40, 20])
        area, noisy_area = compared(np.random.default_rng(0), 50_000)
        truth = area - noisy_area
        covered, shorter = [], []
        for seed in range(150):
            draws = compared_draws(np.random.default_rng(seed + 1), strata)
            paired = (draws["a"] - draws["b"]).interval()
            covered.append(paired.low <= truth <= paired.high)
            spread = np.hypot(draws["a"].resampled.std(), draws["b"].resampled.std())
            shorter.append((draws["a"] - draws["b"]).resampled.std() < spread)
        assert 0.90 <= np.mean(covered) <= 0.99
        assert np.mean(shorter) > 0.95


def compared_draws(rng: np.random.Generator, strata: np.ndarray) -> dict[str, Draws]:
    """A scoring and the same with noise, bootstrapped over two sources."""
    pairs = clustered(rng, n_queries=len(strata))
    noisy = dataclasses.replace(pairs, score=pairs.score + rng.normal(size=len(pairs.score)))
    prepare = METRICS["roc_auc"].prepare
    estimators = {"a": prepare(pairs), "b": prepare(noisy)}
    return bootstrap(estimators, strata, resamples=200, seed=0)


def compared(rng: np.random.Generator, n_queries: int) -> tuple[float, float]:
    pairs = clustered(rng, n_queries)
    noisy = dataclasses.replace(pairs, score=pairs.score + rng.normal(size=len(pairs.score)))
    return measure("roc_auc", pairs), measure("roc_auc", noisy)


def clustered(rng: np.random.Generator, n_queries: int) -> ScoredPairs:
    """Twenty pairs a query, whose score separates well for some queries and badly for others."""
    query = np.repeat(np.arange(n_queries), 20)
    separation = rng.normal(1, 2, size=n_queries)[query]
    relevant = rng.random(len(query)) < 0.5
    score = separation * relevant + rng.normal(size=len(query))
    return ScoredPairs(query, n_queries, np.where(relevant, 3.0, 0.0), score)


def population_auc() -> float:
    return measure("roc_auc", clustered(np.random.default_rng(0), n_queries=50_000))
