"""What a model does when a pair changes: typos, stuffed titles, other units, words of sale.

A suite needs no labels of its own. It takes the judged pairs of a split, changes each by the
rows of ``relevance.transformations.TRANSFORMATIONS`` and asks whether the score went where it
should, in terms that mean the same for every scale of scores:

- *stays above*, *stays below*: of the other class's titles of the same query, the share that the
  pair was on the right side of before the change and still is. A tie is wrong. A constant scorer
  earns 0, a random one 1/4, and 1/3 where only one title changes.
- *falls*: the percentile of the score among the model's scores of all judged pairs falls by more
  than the model's noise: the median move under all changes that should leave a pair above. A
  constant scorer earns 0, a random one 1/4.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from relevance import evaluation
from relevance.bootstrap import Draws, bootstrap
from relevance.changed_pairs import RIVALS, SUBJECTS, ChangedPairs
from relevance.configs import EvaluationConfig
from relevance.data.pairs import judged_pairs
from relevance.data.tables import read_card
from relevance.evaluation import (
    LEXICAL,
    MIN_QUERIES,
    Scorer,
    about,
    plain_interval,
    source_strata,
    token_overlap,
)
from relevance.judging import over_runs
from relevance.metrics import Estimator, FloatArray, IntArray
from relevance.robustness_page import page
from relevance.transformations import SUITES, TRANSFORMATIONS, Transformation

OVERALL = "overall"

KEYS = (*(row.name for row in TRANSFORMATIONS), *SUITES, OVERALL)
"""All that has a share."""


def lexical_scorers(config: EvaluationConfig, data: Path) -> dict[str, Scorer]:
    """BM25 over the dataset's titles, and token overlap fitted on its train split."""
    train = judged_pairs(data, "train")
    return evaluation.lexical_scorers(data, token_overlap(train, config.relevant_grade))


def robustness(
    config: EvaluationConfig, data: Path, scorers: Mapping[str, Scorer]
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Judge scorers by every suite.

    Args:
        config: Which split, and how. ``seed`` draws the changes and the resamples.
        data: Dataset with judgments.
        scorers: By name; each is called once, with every pair it is asked for. Those named in
            ``relevance.evaluation.LEXICAL`` are what the others are compared with.

    Returns:
        What ``robustness.json`` holds, and the cases of ``robustness.parquet``. Undefined
        numbers are None; a transformation that no pair offers has 0 pairs.

    Raises:
        ValueError: No judged pairs in the split, no scorer, or scores of the wrong number or not
            finite.
    """
    if not scorers:
        raise ValueError("robustness: no scorers, want one or more")
    changed = ChangedPairs.of(config, data)
    scores = {name: scorer(changed.queries, changed.titles) for name, scorer in scorers.items()}
    result, cases = judge_changes(config, changed, scores)
    return about(read_card(data), data) | result, cases


def judge_changes(
    config: EvaluationConfig, changed: ChangedPairs, scores: Mapping[str, FloatArray]
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Judge given scores; ``robustness`` without the dataset and the facts on it.

    Args:
        config: How.
        changed: The changed pairs.
        scores: Raw scores of each model, in the order of ``changed.queries``.
    """
    outcomes = {name: changed.outcome(name, given) for name, given in scores.items()}
    cases = changed.table(outcomes)
    measured = _Resampled.of(
        config,
        cases,
        {
            (name, measure): values
            for name, outcome in outcomes.items()
            for measure, values in outcome.measures().items()
        },
    )
    baselines = [name for name in LEXICAL if name in scores]
    result = {
        "split": config.split,
        "relevant_grade": config.relevant_grade,
        "resamples": config.resamples,
        "seed": config.seed,
        **_about_changes(changed, cases),
        "lexical": baselines,
        "models": {
            name: {
                "sd": outcome.sd,
                "noise": outcome.noise,
                OVERALL: measured.plain(OVERALL, (name, "share")),
                "suites": {s: measured.plain(s, (name, "share")) for s in SUITES},
                "transformations": {
                    row.name: measured.plain(row.name, (name, "share"))
                    | {
                        # nothing is right before a score that should fall
                        "right_before": None
                        if row.direction == "falls"
                        else measured.plain(row.name, (name, "right_before"))["value"],
                        "change": measured.plain(row.name, (name, "change"))["value"],
                        "change_sd": measured.plain(row.name, (name, "change_sd")),
                    }
                    for row in TRANSFORMATIONS
                },
            }
            for name, outcome in outcomes.items()
        },
        "differences": {
            name: {
                baseline: {
                    key: measured.plain(key, (name, "share"), (baseline, "share")) for key in KEYS
                }
                for baseline in baselines
            }
            for name in scores
            if name not in LEXICAL
        },
        "notes": _notes(config),
    }
    return result, cases


def compare_changes(
    config: EvaluationConfig,
    changed: ChangedPairs,
    scores: Mapping[str, Sequence[FloatArray]],
    reference: str,
) -> dict[str, Any]:
    """Judge given scores of several seeds: means over them, and differences.

    Args:
        config: How.
        changed: The changed pairs.
        scores: Raw scores of each row, one array a seed, in the order of ``changed.queries``.
        reference: Row that the others are compared with.

    Returns:
        The section ``robustness`` of ``comparison.json``. Undefined numbers are None.
    """
    names = {row: [f"{row}-{run}" for run in range(len(runs))] for row, runs in scores.items()}
    cases = changed.table(
        {
            name: changed.outcome(row, given)
            for row, runs in scores.items()
            for name, given in zip(names[row], runs, strict=True)
        }
    )
    return {
        **_about_changes(changed, cases),
        **over_seeds(config, cases, names, reference),
        "notes": _notes(config),
    }


def over_seeds(
    config: EvaluationConfig,
    cases: pd.DataFrame,
    models: Mapping[str, Sequence[str]],
    reference: str,
) -> dict[str, Any]:
    """Compare models of several seeds on the same changed pairs.

    A pair counts with its mean over the seeds. Intervals resample queries.

    Args:
        config: Settings of the evaluation.
        cases: ``robustness.parquet``, or several joined on transformation, query_id and item_id.
        models: Names of each model's seeds, as in the columns ``<name>/share``.
        reference: Model that the others' paired differences are from.

    Returns:
        By model and what has a share: ``shares``, with each seed's; ``less_reference``; and
        ``changes``, the mean change of score in standard deviations, of transformations alone.

    Raises:
        ValueError: Unknown reference, a model without seeds, or an absent column.
    """
    if reference not in models:
        raise ValueError(f"reference {reference!r}: unknown; there are {', '.join(models)}")
    cases = cases.reset_index(drop=True)
    values: dict[Hashable, FloatArray] = {}
    for name, seeds in models.items():
        if not seeds:
            raise ValueError(f"model {name!r}: no seeds, want one or more")
        for measure in ("share", "change_sd"):
            for run, column in enumerate(f"{seed}/{measure}" for seed in seeds):
                if column not in cases:
                    raise ValueError(
                        f"cases: no column {column!r}; "
                        f"there are {', '.join(map(str, cases.columns))}"
                    )
                values[name, measure, run] = cases[column].to_numpy(float)
            runs = [values[name, measure, run] for run in range(len(seeds))]
            values[name, measure] = np.mean(runs, axis=0)
    measured = _Resampled.of(config, cases, values)

    def mean(key: str, name: str, measure: str) -> dict[str, Any]:
        each = [measured.draws[(name, measure, run), key].value for run in range(len(models[name]))]
        return measured.plain(key, (name, measure)) | over_runs(each)

    return {
        "shares": {name: {key: mean(key, name, "share") for key in KEYS} for name in models},
        "less_reference": {
            name: {key: measured.plain(key, (name, "share"), (reference, "share")) for key in KEYS}
            for name in models
            if name != reference
        },
        "changes": {
            name: {row.name: mean(row.name, name, "change_sd") for row in TRANSFORMATIONS}
            for name in models
        },
    }


def write_robustness(result: Mapping[str, Any], cases: pd.DataFrame, directory: Path) -> None:
    """Write ``robustness.json``, ``robustness.parquet`` and ``robustness.html``."""
    text = json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False)
    (directory / "robustness.json").write_text(text + "\n", encoding="utf-8")
    cases.to_parquet(directory / "robustness.parquet", index=False)
    (directory / "robustness.html").write_text(page(result), encoding="utf-8")


def flatten(result: Mapping[str, Any]) -> dict[str, float]:
    """Every defined share under ``<model>/robustness/<transformation>``, overall first."""
    return {
        f"{model}/robustness/{name}": share["value"]
        for model, found in result["models"].items()
        for name, share in {OVERALL: found[OVERALL], **found["transformations"]}.items()
        if share["value"] is not None
    }


def _about_changes(changed: ChangedPairs, cases: pd.DataFrame) -> dict[str, Any]:
    query_id = {name: cases["query_id"][rows] for name, rows in _rows_of(cases).items()}
    return {
        "pairs": len(changed.pairs),
        "queries": changed.pairs["query_id"].nunique(),
        "changed": len(cases),
        "transformations": [_about_row(row, cases) for row in TRANSFORMATIONS],
        "suites": {
            suite: {"pairs": len(query_id[suite]), "queries": query_id[suite].nunique()}
            for suite in SUITES
        },
    }


def _about_row(row: Transformation, table: pd.DataFrame) -> dict[str, Any]:
    cases = table[table["transformation"] == row.name]
    example = None
    if len(cases):
        first = cases.iloc[0]
        example = {
            side: {"query": first[f"query_{side}"], "title": first[f"title_{side}"]}
            for side in ("before", "after")
        }
    return {
        "name": row.name,
        "suite": row.suite,
        "direction": row.direction,
        "meaning": row.meaning,
        "pairs": len(cases),
        "queries": cases["query_id"].nunique(),
        "example": example,
    }


@dataclass(frozen=True)
class _Resampled:
    """Means of values per case on the same resamples of queries, by transformation and above."""

    draws: Mapping[tuple[Hashable, str], Draws]
    queries: Mapping[str, int]
    """Queries behind each transformation, suite and overall."""

    @classmethod
    def of(
        cls, config: EvaluationConfig, table: pd.DataFrame, values: Mapping[Any, FloatArray]
    ) -> _Resampled:
        """Resample the queries that have a case.

        Args:
            config: Resamples and seed.
            table: Cases, columns transformation, query_id and source.
            values: Values of each case [cases] by whatever names them. NaN leaves a
                transformation undefined.
        """
        query, query_ids = pd.factorize(table["query_id"], sort=True)
        masks = _rows_of(table)
        queries = {name: len(np.unique(query[mask])) for name, mask in masks.items()}
        estimators = {
            (key, name): _mean(each[mask], query[mask], len(query_ids))
            for key, each in values.items()
            for name, mask in masks.items()
        }
        strata = source_strata(table, query, len(query_ids))
        draws: dict[tuple[Hashable, str], Draws] = dict(
            bootstrap(estimators, strata, resamples=config.resamples, seed=config.seed)
        )
        counted = [suite for suite in SUITES if queries[suite] >= MIN_QUERIES]
        for key in values:
            draws[key, OVERALL] = _mean_draws([draws[key, suite] for suite in counted])
        return cls(draws, queries)

    def plain(self, name: str, key: Hashable, less: Hashable = None) -> dict[str, Any]:
        """Mean of ``key`` with its interval, or its paired difference from ``less``."""
        draws = self.draws[key, name]
        if less is not None:
            draws -= self.draws[less, name]
        return plain_interval(draws.interval(), self.queries[name])


def _rows_of(cases: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """Which cases belong to each transformation, each suite and, all of them, to overall."""
    transformation = cases["transformation"]
    suite = transformation.map({row.name: row.suite for row in TRANSFORMATIONS})
    return (
        {row.name: (transformation == row.name).to_numpy(bool) for row in TRANSFORMATIONS}
        | {name: (suite == name).to_numpy(bool) for name in SUITES}
        | {OVERALL: np.ones(len(transformation), bool)}
    )


def _mean(values: FloatArray, query: IntArray, n_queries: int) -> Estimator:
    """Mean over the cases of the drawn queries; NaN without one."""
    total = np.bincount(query, weights=values, minlength=n_queries)
    cases = np.bincount(query, minlength=n_queries).astype(float)

    def estimate(counts: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore"):
            return np.asarray((counts @ total) / (counts @ cases), np.float64)

    return estimate


def _mean_draws(draws: Sequence[Draws]) -> Draws:
    """Mean of those that are defined, in each resample; NaN of none."""
    if not draws:
        return Draws(np.nan, np.full(1, np.nan))
    stacked = np.column_stack([each.resampled for each in draws])
    values = np.array([each.value for each in draws])
    return Draws(float(_nanmean(values[None])[0]), _nanmean(stacked))


def _nanmean(rows: FloatArray) -> FloatArray:
    defined = (~np.isnan(rows)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(rows, axis=1) / defined, np.float64)


def _notes(config: EvaluationConfig) -> list[str]:
    return [
        "stays above, stays below: of up to "
        f"{RIVALS} titles of the other class of the same query, the share that the pair was on "
        "the right side of before the change and still is; a tie is wrong. A constant scorer "
        "earns 0, a random one 1/4, and 1/3 where only one title changes.",
        "falls: the percentile among the model's scores of the judged pairs falls by more than "
        "the model's noise: the median move, up or down, under all changes that should leave a "
        "relevant pair above. A constant scorer earns 0, a random one 1/4.",
        f"At most {SUBJECTS} pairs of a query for each change. A suite is the mean over its pairs, "
        f"overall the mean of the suites of {MIN_QUERIES} queries or more.",
        f"Intervals: 95 % percentiles of {config.resamples} resamples of queries, drawn within "
        f"each source; differences are paired. Fewer than {MIN_QUERIES} queries get no interval.",
    ]
