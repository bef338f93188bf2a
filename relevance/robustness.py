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

import hashlib
import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from relevance.baselines import BM25, TOKEN_OVERLAP, bm25_scores
from relevance.bootstrap import Draws, bootstrap
from relevance.configs import EvaluationConfig
from relevance.data.pairs import Pair, judged_pairs
from relevance.data.tables import open_table, read_card
from relevance.evaluation import (
    LEXICAL,
    MIN_QUERIES,
    _check_names,
    _checkpoint_scores,
    about,
    only_split,
    plain_interval,
    source_strata,
    token_overlap,
)
from relevance.files import new_file
from relevance.metrics import Estimator, FloatArray, IntArray
from relevance.robustness_page import page
from relevance.transformations import SUITES, TRANSFORMATIONS, Corpus, Transformation

Scorer = Callable[[Sequence[str], Sequence[str]], FloatArray]
"""Queries and titles of pairs to raw scores. [pairs]"""

OVERALL = "overall"

SUBJECTS, RIVALS = 3, 5
"""Pairs of a query that each transformation changes, and titles of the other class that each is
compared with. More of one query tell little more, and cost as much as other queries do."""

_CLEARLY_IRRELEVANT = 1.0
"""Titles that get stuffed are graded below this: one that differs in a unit alone becomes
ambiguous, not irrelevant, with the query behind it."""

_MAX_TITLES = 100_000
"""Titles that the corpus is learnt from; it bounds memory and time."""

_KEYS = (*(row.name for row in TRANSFORMATIONS), *SUITES, OVERALL)


def evaluate_robustness(
    config: EvaluationConfig, data: Path, checkpoints: Mapping[str, Path], out: Path
) -> dict[str, float]:
    """Judge checkpoints and both lexical baselines by every suite.

    Writes ``robustness.json`` (everything), ``robustness.parquet`` (the changed pairs with all
    scores) and ``robustness.html`` (for people) into the evaluation ``out``.

    Args:
        config: Which split, and how.
        data: Dataset with judgments.
        checkpoints: Directory of each model, by the name it has in the tables.
        out: Directory that ``relevance.evaluation.evaluate`` made.

    Returns:
        Overall share under ``<model>/robustness/overall``, and that of each transformation with
        a pair under ``<model>/robustness/<transformation>``.

    Raises:
        ValueError: No judged pairs in the split, a name that is taken, or scores that are no
            finite numbers.
        OSError: ``out`` has such files, or ``data`` or a checkpoint is missing.
    """
    _check_names(checkpoints)
    scorers = lexical_scorers(config, data)
    for name, checkpoint in checkpoints.items():
        scorers[name] = partial(_checkpoint_scores, checkpoint, name=name)
    result, cases = _robustness(config, data, scorers)
    text = json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with new_file(out / "robustness.parquet") as file:
        cases.to_parquet(file, index=False)
    with new_file(out / "robustness.html") as file:
        file.write_text(page(result), encoding="utf-8")
    with new_file(out / "robustness.json") as file:
        file.write_text(text, encoding="utf-8")
    return flatten(result)


def lexical_scorers(config: EvaluationConfig, data: Path) -> dict[str, Scorer]:
    """BM25 over the dataset's titles, and token overlap fitted on its train split."""
    train = judged_pairs(data, "train")
    return {
        BM25: partial(bm25_scores, data),
        TOKEN_OVERLAP: token_overlap(train, config.relevant_grade).score,
    }


def robustness(
    config: EvaluationConfig, data: Path, scorers: Mapping[str, Scorer]
) -> dict[str, Any]:
    """Judge scorers by every suite; ``evaluate_robustness`` without files.

    Args:
        config: Which split, and how. ``seed`` draws the changes and the resamples.
        data: Dataset with judgments.
        scorers: By name; each is called once, with every pair it is asked for. Those named in
            ``relevance.evaluation.LEXICAL`` are what the others are compared with.

    Returns:
        What ``robustness.json`` holds. Undefined numbers are None; a transformation that no pair
        offers has 0 pairs.

    Raises:
        ValueError: No judged pairs in the split, no scorer, or scores of the wrong number or not
            finite.
    """
    return _robustness(config, data, scorers)[0]


def flatten(result: Mapping[str, Any]) -> dict[str, float]:
    """Every defined share under ``<model>/robustness/<transformation>``, overall first."""
    return {
        f"{model}/robustness/{name}": share["value"]
        for model, found in result["models"].items()
        for name, share in {OVERALL: found[OVERALL], **found["transformations"]}.items()
        if share["value"] is not None
    }


def format_table(result: Mapping[str, Any]) -> str:
    """Markdown table: a row per transformation, then suites and overall; a column per model."""
    models = result["models"]
    rows = [
        [
            row["name"],
            row["suite"],
            row["direction"],
            f"{row['pairs']}",
            *(_cell(found["transformations"][row["name"]]) for found in models.values()),
        ]
        for row in result["transformations"]
    ]
    rows += [
        [
            f"all of {suite}",
            suite,
            "",
            f"{about['pairs']}",
            *(_cell(found["suites"][suite]) for found in models.values()),
        ]
        for suite, about in result["suites"].items()
    ]
    rows.append(
        [
            OVERALL,
            "",
            "",
            f"{result['changed']}",
            *(_cell(found[OVERALL]) for found in models.values()),
        ]
    )
    return _markdown(["transformation", "suite", "score", "pairs", *models], rows)


def definitions_table() -> str:
    """Markdown table of the transformations, for the guide."""
    return _markdown(
        ["transformation", "suite", "score", "change"],
        [[row.name, row.suite, row.direction, row.meaning] for row in TRANSFORMATIONS],
    )


def robustness_table(
    config: EvaluationConfig,
    cases: pd.DataFrame,
    models: Mapping[str, Sequence[str]],
    reference: str,
) -> str:
    """Markdown rows that compare models of several seeds on the same changed pairs.

    A pair counts with its mean over the seeds. Intervals resample queries; how far seeds differ
    is what the last row shows.

    Args:
        config: Settings of the evaluation.
        cases: ``robustness.parquet``, or several joined on transformation, query_id and item_id.
        models: Names of each model's seeds, as in the columns ``<name>/share``.
        reference: Model that the others' paired differences are from.

    Raises:
        ValueError: Unknown reference, a model without seeds, or an absent column.
    """
    if reference not in models:
        raise ValueError(f"reference {reference!r}: unknown; there are {', '.join(models)}")
    cases = cases.reset_index(drop=True)
    for name, seeds in models.items():
        if not seeds:
            raise ValueError(f"model {name!r}: no seeds, want one or more")
        for column in (f"{seed}/share" for seed in seeds):
            if column not in cases:
                raise ValueError(
                    f"cases: no column {column!r}; there are {', '.join(map(str, cases.columns))}"
                )
    columns: dict[Hashable, FloatArray] = {
        (name, seed): cases[f"{seed}/share"].to_numpy(float)
        for name, seeds in models.items()
        for seed in seeds
    }
    for name, seeds in models.items():
        columns[name] = np.mean([columns[name, seed] for seed in seeds], axis=0)
    measured = _Resampled.of(config, cases, columns)
    others = [name for name in models if name != reference]
    rows = [
        [
            f"all of {key}" if key in SUITES else key,
            *(_cell(measured.plain(key, name)) for name in models),
            *(_cell(measured.plain(key, name, reference), "+") for name in others),
        ]
        for key in _KEYS
    ]
    each = [
        ", ".join(f"{measured.draws[(name, seed), OVERALL].value:.3f}" for seed in seeds)
        for name, seeds in models.items()
    ]
    rows.append([f"{OVERALL}, each seed", *each, *[""] * len(others)])
    return _markdown(
        ["transformation", *models, *(f"{name} − {reference}" for name in others)], rows
    )


@dataclass(frozen=True)
class _Case:
    """One changed pair and the titles of the other class it is compared with."""

    transformation: Transformation
    row: int
    """Of the judged pairs."""
    before: Pair
    after: Pair
    rivals: tuple[str, ...]
    """Titles; none where the score should fall."""


def _cases(config: EvaluationConfig, pairs: pd.DataFrame, corpus: Corpus) -> Iterator[_Case]:
    grade = pairs["grade"].to_numpy(float)
    queries, titles = list(pairs["query"]), list(pairs["title"])
    drawn = [
        hashlib.sha256(f"{config.seed}/{query}/{item}".encode()).digest()
        for query, item in zip(pairs["query_id"], pairs["item_id"], strict=True)
    ]
    limit = min(_CLEARLY_IRRELEVANT, config.relevant_grade)
    by_query = {
        str(query_id): sorted(rows, key=drawn.__getitem__)
        for query_id, rows in sorted(pairs.groupby("query_id").indices.items())
    }
    for transformation in TRANSFORMATIONS:
        is_below = transformation.direction == "stays below"
        for query_id, rows in by_query.items():
            relevant = [row for row in rows if grade[row] >= config.relevant_grade]
            irrelevant = [row for row in rows if grade[row] < config.relevant_grade]
            subjects = [row for row in irrelevant if grade[row] < limit] if is_below else relevant
            others = relevant if is_below else irrelevant
            rivals: tuple[str, ...] = ()
            if transformation.direction != "falls":
                rivals = tuple(titles[row] for row in others[:RIVALS])
                if not rivals:
                    continue
            changes = (
                _Case(transformation, row, *change, rivals)
                for row in subjects
                if (
                    change := transformation.change(
                        Pair(queries[row], titles[row]),
                        corpus,
                        Random(f"{config.seed}/{transformation.name}/{query_id}"),
                    )
                )
            )
            yield from islice(changes, SUBJECTS)


def _robustness(
    config: EvaluationConfig, data: Path, scorers: Mapping[str, Scorer]
) -> tuple[dict[str, Any], pd.DataFrame]:
    if not scorers:
        raise ValueError("robustness: no scorers, want one or more")
    pairs = only_split(judged_pairs(data), config.split, data)
    cases = list(_cases(config, pairs, Corpus.of(pairs["query"], _titles(data))))
    asked = _Asked.of(pairs, cases)
    table = _case_table(pairs, cases)
    outcomes = {name: asked.outcome(name, scorer) for name, scorer in scorers.items()}
    for name, outcome in outcomes.items():
        table[f"{name}/before"] = outcome.before
        table[f"{name}/after"] = outcome.after
        table[f"{name}/share"] = outcome.share
    measured = _Resampled.of(
        config,
        table,
        {
            (name, measure): values
            for name, outcome in outcomes.items()
            for measure, values in outcome.measures().items()
        },
    )
    baselines = [name for name in LEXICAL if name in scorers]
    rows = _rows_of(table["transformation"])
    result = {
        **about(read_card(data), data),
        "split": config.split,
        "relevant_grade": config.relevant_grade,
        "resamples": config.resamples,
        "seed": config.seed,
        "pairs": len(pairs),
        "queries": pairs["query_id"].nunique(),
        "changed": len(cases),
        "lexical": baselines,
        "transformations": [_about_row(row, table) for row in TRANSFORMATIONS],
        "suites": {
            suite: {"pairs": int(rows[suite].sum()), "queries": measured.queries[suite]}
            for suite in SUITES
        },
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
                    key: measured.plain(key, (name, "share"), (baseline, "share")) for key in _KEYS
                }
                for baseline in baselines
            }
            for name in scorers
            if name not in LEXICAL
        },
        "notes": _notes(config),
    }
    return result, table


def _titles(data: Path) -> Iterator[str]:
    batches = open_table(data, "products").iter_batches(columns=["title"])
    titles: Iterable[str] = (title for batch in batches for title in batch.column(0).to_pylist())
    return islice((title for title in titles if title), _MAX_TITLES)


@dataclass(frozen=True)
class _Outcome:
    """What one model made of the changed pairs."""

    before: FloatArray
    """Raw scores. [cases]"""
    after: FloatArray
    """Raw scores. [cases]"""
    right_before: FloatArray
    """Share of the rivals on the right side before the change; NaN without rivals. [cases]"""
    share: FloatArray
    """How far each case went where it should, 0 to 1. [cases]"""
    sd: float
    """Standard deviation of the model's scores over the judged pairs."""
    noise: float
    """Median move in percentile under the changes that should leave a pair above, 0 to 1."""

    def measures(self) -> dict[str, FloatArray]:
        change = self.after - self.before
        # a constant scorer has no standard deviation to count in
        in_sd = change / self.sd if self.sd > 0 else np.full(len(change), np.nan)
        return {
            "share": self.share,
            "right_before": self.right_before,
            "change": change,
            "change_sd": in_sd,
        }


@dataclass(frozen=True)
class _Asked:
    """Every different pair that a scorer is asked for, and where the cases find theirs."""

    cases: Sequence[_Case]
    place: Mapping[tuple[str, str], int]
    """Number of each different (query, title)."""
    judged: IntArray
    """Place of each judged pair. [pairs]"""

    @classmethod
    def of(cls, pairs: pd.DataFrame, cases: Sequence[_Case]) -> _Asked:
        place: dict[tuple[str, str], int] = {}
        keys = list(zip(pairs["query"], pairs["title"], strict=True))
        judged = np.array([place.setdefault(key, len(place)) for key in keys], np.int64)
        for case in cases:
            for pair in (case.before, case.after):
                for title in (pair.title, *case.rivals):
                    place.setdefault((pair.query, title), len(place))
        return cls(cases, place, judged)

    def outcome(self, name: str, scorer: Scorer) -> _Outcome:
        queries, titles = (list(texts) for texts in zip(*self.place, strict=True))
        scores = np.asarray(scorer(queries, titles), float)
        _check_scores(name, scores, queries, titles)
        ranked, sd = _without_rounding(scores, self.judged)
        before, after, right_before, kept = np.full((4, len(self.cases)), np.nan)
        fall = np.zeros(len(self.cases))
        judged = np.sort(ranked[self.judged])
        for i, case in enumerate(self.cases):
            own = [self.place[pair.query, pair.title] for pair in (case.before, case.after)]
            before[i], after[i] = scores[own]
            percentile = _percentile(judged, ranked[own])
            fall[i] = percentile[0] - percentile[1]
            if case.rivals:
                is_right = self._is_right(case, ranked)
                right_before[i] = is_right[0].mean()
                kept[i] = is_right.all(axis=0).mean()
        direction = np.array([case.transformation.direction for case in self.cases], object)
        harmless = fall[direction == "stays above"]
        noise = float(np.median(np.abs(harmless))) if len(harmless) else 0.0
        return _Outcome(
            before=before,
            after=after,
            right_before=right_before,
            share=np.where(direction == "falls", fall > noise, kept),
            sd=sd,
            noise=noise,
        )

    def _is_right(self, case: _Case, ranked: FloatArray) -> NDArray[np.bool_]:
        """Which rivals are on the right side, before and after. [2, rivals]"""
        sign = -1 if case.transformation.direction == "stays below" else 1
        sides = []
        for pair in (case.before, case.after):
            rivals = ranked[[self.place[pair.query, title] for title in case.rivals]]
            sides.append(sign * (ranked[self.place[pair.query, pair.title]] - rivals) > 0)
        return np.array(sides)


def _without_rounding(scores: FloatArray, judged: IntArray) -> tuple[FloatArray, float]:
    """Scores in which differences of rounding are ties, and their standard deviation.

    Batches of other lengths move a score of fp32 by some 1e-7 of its size, which is no order.
    """
    sd = float(scores[judged].std())
    if sd <= 1e-7 * float(np.abs(scores).max()):
        return np.zeros(len(scores)), 0.0
    return np.round(scores / (1e-6 * sd)), sd


def _percentile(judged: FloatArray, scores: FloatArray) -> FloatArray:
    """Share of the judged scores below each score, equal ones counting half. [scores]"""
    below = np.searchsorted(judged, scores, side="left")
    return (below + np.searchsorted(judged, scores, side="right")) / (2 * len(judged))


def _check_scores(
    name: str, scores: FloatArray, queries: Sequence[str], titles: Sequence[str]
) -> None:
    if scores.shape != (len(queries),):
        raise ValueError(f"model {name!r}: {scores.size} scores for {len(queries)} pairs")
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        raise ValueError(
            f"model {name!r}: score of query {queries[wrong[0]]!r}, title {titles[wrong[0]]!r} "
            f"is {scores[wrong[0]]}, want a finite number ({len(wrong)} such pairs)"
        )


def _case_table(pairs: pd.DataFrame, cases: Sequence[_Case]) -> pd.DataFrame:
    judged = pairs.iloc[[case.row for case in cases]].reset_index(drop=True)
    return pd.DataFrame(
        {
            "transformation": pd.Series([c.transformation.name for c in cases], dtype=object),
            **{column: judged[column] for column in ("query_id", "item_id", "source", "grade")},
            "query_before": pd.Series([case.before.query for case in cases], dtype=object),
            "title_before": pd.Series([case.before.title for case in cases], dtype=object),
            "query_after": pd.Series([case.after.query for case in cases], dtype=object),
            "title_after": pd.Series([case.after.title for case in cases], dtype=object),
            "rivals": pd.Series([len(case.rivals) for case in cases], dtype="int64"),
        }
    )


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
        masks = _rows_of(table["transformation"])
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


def _rows_of(transformation: pd.Series) -> dict[str, NDArray[np.bool_]]:
    """Which cases belong to each transformation, each suite and, all of them, to overall."""
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


def _cell(result: Mapping[str, Any], sign: str = "") -> str:
    if result["value"] is None:
        return "–"
    value = f"{result['value']:{sign}.3f}"
    if result["low"] is None:
        return value
    return f"{value} [{result['low']:{sign}.3f}, {result['high']:{sign}.3f}]"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (header, rule, *rows)
    )
