"""Checkpoints and lexical baselines against judged pairs: every metric with its interval."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from relevance.baselines import BM25, TOKEN_OVERLAP, TokenOverlap, bm25_scores
from relevance.bootstrap import Draws, Interval, bootstrap
from relevance.calibration import FOLDS, Calibration, cross_fitted, query_folds
from relevance.configs import EvaluationConfig
from relevance.data.pairs import judged_pairs
from relevance.data.tables import MAX_GRADE, SPLITS, DatasetCard, data_hash, read_card
from relevance.evaluation_page import page
from relevance.files import new_dir, refuse_existing
from relevance.metrics import (
    METRICS,
    Estimator,
    FloatArray,
    ScoredPairs,
    definitions,
    find,
    measure,
)

Scorer = Callable[[Sequence[str], Sequence[str]], FloatArray]
"""Queries and titles of pairs to raw scores. [pairs]"""

LEXICAL = (BM25, TOKEN_OVERLAP)
"""Baselines in every table."""

MIN_QUERIES = 5
"""Fewer queries give a value without interval: resampling one query only repeats it."""

_TOP_CATEGORIES = 10
_SLICE_METRIC = "roc_auc"
_KEYS = ("query_id", "item_id", "source", "grade")
_ALL = ("all", "")


def evaluate(
    config: EvaluationConfig,
    data: Path,
    checkpoints: Mapping[str, Path],
    out: Path,
    *,
    with_robustness: bool = False,
) -> dict[str, float]:
    """Judge checkpoints beside BM25 and the token-overlap model.

    Writes ``out`` with ``evaluation.json`` (everything), ``scores.parquet`` (query_id, item_id,
    source, grade and a column of raw scores per model) and ``index.html`` (for people).

    Args:
        config: Which split, and how.
        data: Dataset with judgments.
        checkpoints: Directory of each model, by the name it has in the tables.
        out: Directory to make.
        with_robustness: Also change the pairs; see ``relevance.robustness``. Adds
            ``robustness.json``, ``robustness.parquet`` (the changed pairs with all scores) and
            ``robustness.html``.

    Returns:
        Value of every defined metric under ``<model>/<metric>``, and every defined share under
        ``<model>/robustness/<transformation>``.

    Raises:
        ValueError: No judged pairs in the split, a name that is taken, or scores that are no
            finite numbers.
        OSError: ``out`` exists, or ``data`` or a checkpoint is missing.
    """
    # imported here because the suites build on what this module has
    from relevance import robustness
    from relevance.changed_pairs import ChangedPairs

    refuse_existing(out)
    _check_names(checkpoints)
    facts = about(read_card(data), data)
    judged = judged_pairs(data)
    pairs = only_split(judged, config.split, data)
    queries, titles = list(pairs["query"]), list(pairs["title"])
    overlap = token_overlap(judged[judged["split"] == "train"], config.relevant_grade)
    changed = ChangedPairs.of(config, data) if with_robustness else None
    lexical = lexical_scorers(data, overlap)
    scores, changed_scores = {}, {}
    for name in (*lexical, *checkpoints):
        # a checkpoint is loaded when its turn comes, once, and not kept
        scorer = lexical.get(name) or _checkpoint_scorer(checkpoints[name], name)
        scores[name] = scorer(queries, titles)
        if changed:
            changed_scores[name] = scorer(changed.queries, changed.titles)
    served = {
        name: probability
        for name, checkpoint in checkpoints.items()
        if (probability := served_probability(config, checkpoint, scores[name])) is not None
    }
    evaluation = facts | evaluate_scores(config, pairs, scores, served)
    evaluation["has_robustness"] = with_robustness
    evaluation["notes"].append(f"{overlap.note}.")
    numbers = flatten(evaluation)
    with new_dir(out) as partial_out:
        write_evaluation(evaluation, pairs, scores, partial_out)
        if changed:
            result, cases = robustness.judge_changes(config, changed, changed_scores)
            robustness.write_robustness(facts | result, cases, partial_out)
            numbers |= robustness.flatten(result)
    return numbers


def evaluate_scores(
    config: EvaluationConfig,
    pairs: pd.DataFrame,
    scores: Mapping[str, FloatArray],
    served: Mapping[str, FloatArray] | None = None,
) -> dict[str, Any]:
    """Judge given scores; ``evaluate`` without the disk.

    Args:
        config: As for ``evaluate``; ``split`` is only noted.
        pairs: Judged pairs, columns as of ``relevance.data.pairs.judged_pairs``.
        scores: Raw scores of each model, in the order of ``pairs``. Models named in
            ``LEXICAL`` are what the others are compared with.
        served: Probabilities of models that serve some, in the same order. F1 and ECE of the
            others are of cross-fitted ones.

    Returns:
        What ``evaluation.json`` holds, less the facts on the dataset. Undefined numbers are
        None.

    Raises:
        ValueError: Scores of the wrong number, or not finite.
    """
    pairs = pairs.reset_index(drop=True)
    for name, given in scores.items():
        check_scores(name, given, pairs)
    query, query_ids = pd.factorize(pairs["query_id"], sort=True)
    served = served or {}
    scored = {
        name: scored_pairs(config, pairs, query, given, served.get(name))
        for name, given in scores.items()
    }
    slices = list(_slices(pairs))
    estimators: dict[tuple[str, tuple[str, str], str], Estimator] = {}
    for name, model_pairs in scored.items():
        for metric, definition in METRICS.items():
            estimators[name, _ALL, metric] = definition.prepare(model_pairs)
        for key, rows in slices:
            if not _one_class(model_pairs.is_relevant[rows]):
                estimators[name, key, _SLICE_METRIC] = METRICS[_SLICE_METRIC].prepare(
                    model_pairs.only(rows)
                )
    strata = source_strata(pairs, query, len(query_ids))
    draws = bootstrap(estimators, strata, resamples=config.resamples, seed=config.seed)
    challengers = [name for name in scores if name not in LEXICAL]
    baselines = [name for name in LEXICAL if name in scores]
    is_relevant = (pairs["grade"] >= config.relevant_grade).to_numpy()
    return circumstances(config, pairs) | {
        "definitions": definitions(config.relevant_grade, config.gains),
        "is_higher_better": {name: metric.is_higher_better for name, metric in METRICS.items()},
        "lexical": baselines,
        "models": {
            name: {
                metric: plain_interval(draws[name, _ALL, metric].interval(), len(query_ids))
                for metric in METRICS
            }
            for name in scores
        },
        "differences": {
            name: {
                baseline: {
                    metric: plain_interval(
                        _difference(draws, name, baseline, _ALL, metric), len(query_ids)
                    )
                    for metric in METRICS
                }
                for baseline in baselines
            }
            for name in challengers
        },
        "random": _random_order(config, pairs, query),
        "slices": [
            {
                "by": key[0],
                "name": key[1],
                "pairs": int(rows.sum()),
                "queries": len(np.unique(query[rows])),
                "relevant": int(is_relevant[rows].sum()),
            }
            | _slice_results(
                draws,
                key,
                is_relevant[rows],
                len(np.unique(query[rows])),
                list(scores),
                challengers,
                baselines,
            )
            for key, rows in slices
        ],
        "notes": _notes(config, scored, list(served), is_relevant),
    }


def paired_difference(
    scores: pd.DataFrame, metric: str, a: str, b: str, config: EvaluationConfig
) -> tuple[float, float, float]:
    """Metric of column ``a`` less that of ``b``, on the same resamples of queries.

    Scores carry no probabilities: F1 and ECE are of cross-fitted ones.

    Args:
        scores: ``scores.parquet`` of an evaluation, or two joined on query_id and item_id.
        metric: Name in ``METRICS``. The sign is not turned for metrics where lower is better.
        a: Column of the first model.
        b: Column of the second model.
        config: Settings of the evaluation.

    Returns:
        The difference and its 95 % interval; NaN where undefined, and an interval of NaN with
        fewer than ``MIN_QUERIES`` queries.

    Raises:
        ValueError: Unknown metric, absent column, or scores that are not finite.
    """
    for column in (*_KEYS, a, b):
        if column not in scores:
            raise ValueError(
                f"scores: no column {column!r}; there are {', '.join(map(str, scores.columns))}"
            )
    prepare = find(metric).prepare
    pairs = scores.reset_index(drop=True)
    query, query_ids = pd.factorize(pairs["query_id"], sort=True)
    estimators = {}
    # two keys also when a is b, whose difference is a plain 0
    for side, name in enumerate((a, b)):
        column = pairs[name].to_numpy(float)
        check_scores(name, column, pairs)
        estimators[side] = prepare(scored_pairs(config, pairs, query, column))
    strata = source_strata(pairs, query, len(query_ids))
    draws = bootstrap(estimators, strata, resamples=config.resamples, seed=config.seed)
    difference = _supported((draws[0] - draws[1]).interval(), len(query_ids))
    return difference.value, difference.low, difference.high


def write_evaluation(
    evaluation: Mapping[str, Any],
    pairs: pd.DataFrame,
    scores: Mapping[str, FloatArray],
    directory: Path,
) -> None:
    """Write the three files of an evaluation."""
    table = pairs[list(_KEYS)].reset_index(drop=True).assign(**scores)
    text = json.dumps(evaluation, indent=2, allow_nan=False, ensure_ascii=False)
    (directory / "evaluation.json").write_text(text + "\n", encoding="utf-8")
    table.to_parquet(directory / "scores.parquet", index=False)
    (directory / "index.html").write_text(page(evaluation), encoding="utf-8")


def flatten(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Every defined value under ``<model>/<metric>``."""
    return {
        f"{model}/{metric}": result["value"]
        for model, metrics in evaluation["models"].items()
        for metric, result in metrics.items()
        if result["value"] is not None
    }


def format_table(evaluation: Mapping[str, Any]) -> str:
    """Markdown table of an evaluation: a row per model, each value with its 95 % interval."""
    header = ["model", *METRICS]
    rows = [
        [model, *(interval_cell(metrics.get(metric)) for metric in METRICS)]
        for model, metrics in evaluation["models"].items()
    ]
    return markdown_table(header, rows)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned, so that it reads well as it is."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (header, rule, *rows)
    )


def interval_cell(result: Mapping[str, Any] | None, sign: str = "") -> str:
    """A value with its interval, as far as they are defined; ``+`` signs a difference."""
    if result is None or result["value"] is None:
        return "–"
    value = f"{result['value']:{sign}.3f}"
    if result["low"] is None:
        return value
    return f"{value} [{result['low']:{sign}.3f}, {result['high']:{sign}.3f}]"


def circumstances(config: EvaluationConfig, pairs: pd.DataFrame) -> dict[str, Any]:
    """How pairs are judged, and how many."""
    return {
        "split": config.split,
        "relevant_grade": config.relevant_grade,
        "gains": list(config.gains),
        "resamples": config.resamples,
        "seed": config.seed,
        "pairs": len(pairs),
        "queries": pairs["query_id"].nunique(),
        "relevant": int((pairs["grade"] >= config.relevant_grade).sum()),
    }


def lexical_scorers(data: Path, overlap: TokenOverlap) -> dict[str, Scorer]:
    """BM25 over the titles of ``data`` and the fitted ``overlap``, by their names."""
    return {BM25: partial(bm25_scores, data), TOKEN_OVERLAP: overlap.score}


def _check_names(checkpoints: Mapping[str, Path]) -> None:
    for name in checkpoints:
        if name in (*LEXICAL, *_KEYS):
            taken = ", ".join((*LEXICAL, *_KEYS))
            raise ValueError(f"checkpoint name {name!r}: taken; choose none of {taken}")


def only_split(judged: pd.DataFrame, split: str, data: Path) -> pd.DataFrame:
    """Judged pairs of one split; an empty one is refused with those that are not."""
    pairs = judged[judged["split"] == split].reset_index(drop=True)
    if pairs.empty:
        sizes = judged["split"].value_counts()
        present = ", ".join(f"{name} ({sizes[name]})" for name in SPLITS if name in sizes)
        raise ValueError(
            f"{data}: split {split!r} has no judged pairs; splits with some: {present or 'none'}"
        )
    return pairs


def token_overlap(train: pd.DataFrame, relevant_grade: float) -> TokenOverlap:
    """The token-overlap model, fitted on judged pairs of the train split."""
    is_relevant = (train["grade"] >= relevant_grade).to_numpy()
    return TokenOverlap.fit(list(train["query"]), list(train["title"]), is_relevant)


def _checkpoint_scorer(checkpoint: Path, name: str) -> Scorer:
    # imported here so that judging given scores needs no torch
    from relevance.inference import load_scorer, score_pairs

    return partial(score_pairs, load_scorer(checkpoint), progress=f"score {name}")


def served_probability(
    config: EvaluationConfig, checkpoint: Path, scores: FloatArray
) -> FloatArray | None:
    """Probabilities that a checkpoint serves with its scores. [pairs]

    None from a checkpoint that has no calibration, and where ``relevant_grade`` is not the full
    grade, which is what checkpoints serve the probability of.
    """
    fields = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    calibration = fields.get("querylift", {}).get("calibration")
    if calibration is None or config.relevant_grade != MAX_GRADE:
        return None
    return Calibration(**calibration).probability(np.asarray(scores, float))


def about(card: DatasetCard, data: Path) -> dict[str, Any]:
    """Facts on the dataset that every judgement of models carries."""
    return {
        "dataset": card.name,
        "is_generated": card.is_generated,
        "licence": card.licence,
        "data_hash": data_hash(data),
    }


def check_scores(
    name: str,
    scores: FloatArray,
    pairs: pd.DataFrame,
    keys: Sequence[str] = ("query_id", "item_id"),
) -> None:
    """Raise, naming a pair by ``keys``, unless the model ``name`` has a finite score for each."""
    if len(scores) != len(pairs):
        raise ValueError(f"model {name!r}: {len(scores)} scores for {len(pairs)} pairs")
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        row = pairs.iloc[wrong[0]]
        pair = ", ".join(f"{key} {row[key]!r}" for key in keys)
        raise ValueError(
            f"model {name!r}: score of {pair} is {scores[wrong[0]]}, want a finite number "
            f"({len(wrong)} such pairs)"
        )


def scored_pairs(
    config: EvaluationConfig,
    pairs: pd.DataFrame,
    query: NDArray[np.int64],
    scores: FloatArray,
    probability: FloatArray | None = None,
) -> ScoredPairs:
    """Pairs with scores and probabilities.

    Args:
        config: What is relevant, and the gains.
        pairs: Columns query_id and grade.
        query: Number of each pair's query. [pairs]
        scores: Raw scores. [pairs]
        probability: As the model serves them [pairs]; without, they are cross-fitted where
            there are enough queries.
    """
    grade = pairs["grade"].to_numpy(float)
    scores = np.asarray(scores, float)
    if probability is None:
        probability = cross_fitted(
            scores, grade >= config.relevant_grade, query_folds(list(pairs["query_id"]))
        )
    return ScoredPairs(
        query=query,
        n_queries=int(query.max()) + 1 if len(query) else 0,
        grade=grade,
        score=scores,
        probability=probability,
        relevant_grade=config.relevant_grade,
        gains=config.gains,
    )


def source_strata(
    pairs: pd.DataFrame, query: NDArray[np.int64], n_queries: int
) -> NDArray[np.int64]:
    """Number of each query's source. [queries]"""
    strata = np.zeros(n_queries, np.int64)
    # sources in sorted order, so that the order of the rows does not choose the resamples
    strata[query] = pd.factorize(pairs["source"], sort=True)[0]
    return strata


def _slices(pairs: pd.DataFrame) -> Iterator[tuple[tuple[str, str], NDArray[np.bool_]]]:
    """Slices with at least one pair: (by, name) and which pairs. [pairs]"""
    columns = {
        "source": pairs["source"],
        "query words": pairs["query"].map(_length),
        "category": _top_categories(pairs["category"]),
        "frequency": _frequency(pairs),
    }
    order = {
        "category": list(columns["category"].value_counts().index),
        "frequency": ["head", "torso", "tail", "unknown"],
    }
    for by, column in columns.items():
        present = set(column.dropna())
        names = [name for name in order.get(by, sorted(present)) if name in present]
        for name in names:
            yield (by, name), (column == name).to_numpy(bool)


def _length(query: str) -> str:
    n = len(query.split())
    return "4+" if n >= 4 else str(n)


def _top_categories(category: pd.Series) -> pd.Series:
    named = category.fillna("unknown")
    return named.where(named.isin(named.value_counts().index[:_TOP_CATEGORIES]))


def _frequency(pairs: pd.DataFrame) -> pd.Series:
    """Thirds of the queries with a known number of searches; equals stay together."""
    searches = pairs.drop_duplicates("query_id").set_index("query_id")["searches"].astype(float)
    # share of the known queries searched more often than this one
    rarer_than = (searches.rank(ascending=False, method="min") - 1) / searches.count()
    names = pd.cut(
        rarer_than, [-1, 1 / 3 - 1e-9, 2 / 3 - 1e-9, 2], labels=["head", "torso", "tail"]
    )
    return pairs["query_id"].map(names.astype(object).fillna("unknown"))


def _one_class(is_relevant: NDArray[np.bool_]) -> str:
    """Why the area under the curve is undefined, or an empty string."""
    if is_relevant.all():
        return "no irrelevant pair"
    return "" if is_relevant.any() else "no relevant pair"


def _slice_results(
    draws: Mapping[tuple[str, tuple[str, str], str], Draws],
    key: tuple[str, str],
    is_relevant: NDArray[np.bool_],
    n_queries: int,
    names: list[str],
    challengers: list[str],
    baselines: list[str],
) -> dict[str, Any]:
    reason = _one_class(is_relevant)
    if reason:
        return {"metric": _SLICE_METRIC, "skipped_because": reason}
    return {
        "metric": _SLICE_METRIC,
        "models": {
            name: plain_interval(draws[name, key, _SLICE_METRIC].interval(), n_queries)
            for name in names
        },
        "differences": {
            name: {
                baseline: plain_interval(
                    _difference(draws, name, baseline, key, _SLICE_METRIC), n_queries
                )
                for baseline in baselines
            }
            for name in challengers
        },
    }


def _difference(
    draws: Mapping[tuple[str, tuple[str, str], str], Draws],
    a: str,
    b: str,
    key: tuple[str, str],
    metric: str,
) -> Interval:
    return (draws[a, key, metric] - draws[b, key, metric]).interval()


def _random_order(
    config: EvaluationConfig, pairs: pd.DataFrame, query: NDArray[np.int64]
) -> dict[str, float | None]:
    """What a random order earns in the metrics per query: a tie of everything."""
    flat = ScoredPairs(
        query=query,
        n_queries=int(query.max()) + 1 if len(query) else 0,
        grade=pairs["grade"].to_numpy(float),
        score=np.zeros(len(pairs)),
        relevant_grade=config.relevant_grade,
        gains=config.gains,
    )
    return {
        name: _number(measure(name, flat))
        for name, metric in METRICS.items()
        if metric.scope == "queries"
    }


def probability_note(served: Sequence[str]) -> str:
    """What F1 and ECE are of, where the models ``served`` serve probabilities."""
    fitted = (
        f"Platt scaling cross-fitted over {FOLDS} folds of queries, so that no pair's probability "
        "has seen a label of its own query"
    )
    if not served:
        return f"Probabilities: {fitted}."
    return (
        f"Probabilities, of which F1 and ECE are: those that {', '.join(served)} serve, calibrated "
        f"on judgments that training held out; of the others, which serve none, {fitted}."
    )


def _notes(
    config: EvaluationConfig,
    scored: Mapping[str, ScoredPairs],
    served: Sequence[str],
    is_relevant: NDArray[np.bool_],
) -> list[str]:
    notes = [
        f"Intervals: 95 % percentiles of {config.resamples} resamples of queries, drawn within "
        "each source; differences are paired, on the same resamples. Fewer than "
        f"{MIN_QUERIES} queries get no interval.",
        probability_note(served),
    ]
    reason = _one_class(is_relevant)
    if reason:
        notes.append(
            f"There is {reason} at relevant_grade {config.relevant_grade:g}: binary metrics are "
            "undefined."
        )
    elif any(pairs.probability is None for pairs in scored.values()):
        notes.append("Too few queries of each class to calibrate: F1 and ECE are undefined.")
    if config.split == "train":
        notes.append("The train split is what models were fitted on: its numbers flatter them.")
    return notes


def _supported(interval: Interval, n_queries: int) -> Interval:
    if n_queries >= MIN_QUERIES:
        return interval
    return Interval(interval.value, math.nan, math.nan, interval.skipped)


def plain_interval(interval: Interval, n_queries: int) -> dict[str, float | int | None]:
    """Value, low, high and skipped as JSON has them; too few queries leave no interval."""
    interval = _supported(interval, n_queries)
    return {
        "value": _number(interval.value),
        "low": _number(interval.low),
        "high": _number(interval.high),
        "skipped": interval.skipped,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
