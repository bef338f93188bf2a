"""Scores of several seeds judged side by side, on the same pairs and resamples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from relevance.bootstrap import Draws, bootstrap
from relevance.configs import EvaluationConfig
from relevance.evaluation import (
    LEXICAL,
    check_scores,
    circumstances,
    plain_interval,
    probability_note,
    scored_pairs,
    source_strata,
)
from relevance.metrics import METRICS, FloatArray, definitions

COLUMNS = ("roc_auc", "f1_macro", "spearman", "ndcg@10", "ece")
"""Metrics of the tables."""

_ALL = ("all", "")
_POOLED = ("pooled", "")


def judge(
    config: EvaluationConfig,
    pairs: pd.DataFrame,
    scores: Mapping[str, Sequence[FloatArray]],
    reference: str,
    served: Mapping[str, Sequence[FloatArray]] | None = None,
) -> dict[str, Any]:
    """Judge given scores: means over seeds, and differences on the same resamples of queries.

    Args:
        config: How; ``split`` is only noted.
        pairs: Judged pairs, columns as of ``relevance.data.pairs.judged_pairs``.
        scores: Raw scores of each row, one array a seed, in the order of ``pairs``.
        reference: Row that the others are compared with.
        served: Probabilities of rows that serve some, one array a seed. F1 and ECE of the
            others are of cross-fitted ones.

    Returns:
        What ``comparison.json`` holds, less what only training knows. Undefined numbers are None.

    Raises:
        ValueError: Scores of the wrong number, or not finite.
    """
    pairs = pairs.reset_index(drop=True)
    query, query_ids = pd.factorize(pairs["query_id"], sort=True)
    sources = sorted(pairs["source"].unique())
    parts = {_ALL: np.ones(len(pairs), bool)}
    if len(sources) > 1:
        parts |= {("source", name): (pairs["source"] == name).to_numpy(bool) for name in sources}
    served = served or {}
    estimators = {}
    for row, runs in scores.items():
        for run, given in enumerate(runs):
            check_scores(row, given, pairs)
            probability = served[row][run] if row in served else None
            scored = scored_pairs(config, pairs, query, given, probability)
            for part, rows in parts.items():
                for metric in COLUMNS:
                    estimators[part, row, metric, run] = METRICS[metric].prepare(scored.only(rows))
    strata = source_strata(pairs, query, len(query_ids))
    drawn = bootstrap(estimators, strata, resamples=config.resamples, seed=config.seed)
    runs_of = {
        part: {
            (row, metric): [drawn[part, row, metric, run] for run in range(len(runs))]
            for row, runs in scores.items()
            for metric in COLUMNS
        }
        for part in parts
    }
    if len(sources) > 1:
        runs_of = {
            _POOLED: {
                key: [
                    _mean(same)
                    for same in zip(*(runs_of["source", s][key] for s in sources), strict=True)
                ]
                for key in runs_of[_ALL]
            }
        } | runs_of
        parts[_POOLED] = parts[_ALL]
    relevant = (pairs["grade"] >= config.relevant_grade).to_numpy()
    trained = [row for row in scores if row not in LEXICAL]
    notes = [
        "A value is the mean over seeds. Its interval is the 95 % percentile interval of "
        f"{config.resamples} resamples of queries, drawn within each source, of that same mean: it "
        "covers the choice of queries and not that of seeds, whose standard deviation (SD) "
        "stands beside it. Differences are paired, on the same resamples.",
        probability_note(list(served)),
    ]
    if len(sources) > 1:
        notes.append(
            "Pooled is the mean over the sources, each weighing the same, of what a metric is "
            "within each; all pairs together also asks that scores compare across sources."
        )
    return circumstances(config, pairs) | {
        "definitions": {
            name: text
            for name, text in definitions(config.relevant_grade, config.gains).items()
            if name in COLUMNS
        },
        "is_higher_better": {name: METRICS[name].is_higher_better for name in COLUMNS},
        "lexical": [row for row in scores if row in LEXICAL],
        "reference": reference,
        "previous": {row: before for before, row in pairwise(trained)},
        "parts": [
            {
                "by": part[0],
                "name": part[1],
                "pairs": int(parts[part].sum()),
                "queries": len(np.unique(query[parts[part]])),
                "relevant": int(relevant[parts[part]].sum()),
            }
            | _results(runs, list(scores), reference, _fewest_queries(pairs[parts[part]], part))
            for part, runs in runs_of.items()
        ],
        "notes": notes,
    }


def _mean(draws: Sequence[Draws]) -> Draws:
    """Mean of several values on each resample, undefined where one is."""
    value = float(np.mean([each.value for each in draws]))
    return Draws(value, np.mean([each.resampled for each in draws], axis=0))


def _fewest_queries(pairs: pd.DataFrame, part: tuple[str, str]) -> int:
    """Queries that carry an interval: of the smallest source where sources are pooled."""
    if part == _POOLED:
        return int(pairs.groupby("source")["query_id"].nunique().min())
    return int(pairs["query_id"].nunique())


def _results(
    runs: Mapping[tuple[str, str], Sequence[Draws]],
    rows: Sequence[str],
    reference: str,
    n_queries: int,
) -> dict[str, Any]:
    means = {key: _mean(draws) for key, draws in runs.items()}
    trained = [row for row in rows if row not in LEXICAL]

    def less(row: str, other: str) -> dict[str, Any]:
        return {
            metric: plain_interval(
                (means[row, metric] - means[other, metric]).interval(), n_queries
            )
            for metric in COLUMNS
        }

    return {
        "models": {
            row: {
                metric: plain_interval(means[row, metric].interval(), n_queries)
                | over_runs([draws.value for draws in runs[row, metric]])
                for metric in COLUMNS
            }
            for row in rows
        },
        "less_reference": {row: less(row, reference) for row in rows if row != reference},
        "less_previous": {row: less(row, before) for before, row in pairwise(trained)},
        "share_of_reference": {
            row: plain_interval(
                _share(means[row, "roc_auc"], means[reference, "roc_auc"]).interval(), n_queries
            )
            for row in rows
            if row != reference
        },
    }


def over_runs(values: Sequence[float]) -> dict[str, Any]:
    """The value of each seed, and their standard deviation."""
    known = [None if np.isnan(value) else value for value in values]
    is_spread = len(values) > 1 and None not in known
    return {"seeds": known, "sd": float(np.std(values, ddof=1)) if is_spread else None}


def _share(part: Draws, whole: Draws) -> Draws:
    # a metric of 0 leaves no share
    of = np.where(whole.resampled == 0, np.nan, whole.resampled)
    return Draws(part.value / whole.value if whole.value else np.nan, part.resampled / of)
