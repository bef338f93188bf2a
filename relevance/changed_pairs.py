"""Judged pairs that a suite changes, and what a model makes of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from relevance.configs import EvaluationConfig
from relevance.data.pairs import Pair, judged_pairs
from relevance.data.tables import open_table
from relevance.evaluation import check_scores, only_split
from relevance.metrics import FloatArray, IntArray
from relevance.transformations import TRANSFORMATIONS, Corpus, Transformation

SUBJECTS, RIVALS = 3, 5
"""Pairs of a query that each transformation changes, and titles of the other class that each is
compared with. More of one query tell little more, and cost as much as other queries do."""

_CLEARLY_IRRELEVANT = 1.0
"""Titles that get stuffed are graded below this: one that differs in a unit alone becomes
ambiguous, not irrelevant, with the query behind it."""

_MAX_TITLES = 100_000
"""Titles that the corpus is learnt from; it bounds memory and time."""


@dataclass(frozen=True)
class Case:
    """One changed pair and the titles of the other class it is compared with."""

    transformation: Transformation
    row: int
    """Of the judged pairs."""
    before: Pair
    after: Pair
    rivals: tuple[str, ...]
    """Titles; none where the score should fall."""


@dataclass(frozen=True)
class Outcome:
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
        """All that is averaged over cases, by its name. Each [cases]"""
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
class ChangedPairs:
    """The cases of a split, and every different pair that a model is asked for to judge them."""

    pairs: pd.DataFrame
    """Judged pairs of the split."""
    cases: Sequence[Case]
    place: Mapping[tuple[str, str], int]
    """Number of each different (query, title)."""
    judged: IntArray
    """Place of each judged pair. [pairs]"""

    @classmethod
    def of(cls, config: EvaluationConfig, data: Path) -> ChangedPairs:
        """Change the judged pairs of ``config.split``, as its seed draws.

        Raises:
            ValueError: No judged pairs in the split.
        """
        pairs = only_split(judged_pairs(data), config.split, data)
        cases = list(_cases(config, pairs, Corpus.of(pairs["query"], _titles(data))))
        place: dict[tuple[str, str], int] = {}
        keys = list(zip(pairs["query"], pairs["title"], strict=True))
        judged = np.array([place.setdefault(key, len(place)) for key in keys], np.int64)
        for case in cases:
            for pair in (case.before, case.after):
                for title in (pair.title, *case.rivals):
                    place.setdefault((pair.query, title), len(place))
        return cls(pairs, cases, place, judged)

    @property
    def asked(self) -> pd.DataFrame:
        """Every different pair: columns query and title."""
        return pd.DataFrame(self.place.keys(), columns=["query", "title"])

    @property
    def queries(self) -> list[str]:
        """Query of every different pair."""
        return [query for query, _ in self.place]

    @property
    def titles(self) -> list[str]:
        """Title of every different pair."""
        return [title for _, title in self.place]

    def outcome(self, name: str, scores: FloatArray) -> Outcome:
        """What the model ``name`` made of the cases.

        Args:
            name: For the message of an error.
            scores: Raw scores of every different pair, in the order of ``queries``.

        Raises:
            ValueError: Scores of the wrong number, or not finite.
        """
        scores = np.asarray(scores, float)
        check_scores(name, scores, self.asked, ("query", "title"))
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
        return Outcome(
            before=before,
            after=after,
            right_before=right_before,
            share=np.where(direction == "falls", fall > noise, kept),
            sd=sd,
            noise=noise,
        )

    def table(self, outcomes: Mapping[str, Outcome]) -> pd.DataFrame:
        """A row per case: its texts, and what each model made of it. [cases]"""
        cases = self.cases
        judged = self.pairs.iloc[[case.row for case in cases]].reset_index(drop=True)
        columns = {
            "transformation": pd.Series([c.transformation.name for c in cases], dtype=object),
            **{column: judged[column] for column in ("query_id", "item_id", "source", "grade")},
            "query_before": pd.Series([case.before.query for case in cases], dtype=object),
            "title_before": pd.Series([case.before.title for case in cases], dtype=object),
            "query_after": pd.Series([case.after.query for case in cases], dtype=object),
            "title_after": pd.Series([case.after.title for case in cases], dtype=object),
            "rivals": pd.Series([len(case.rivals) for case in cases], dtype="int64"),
        }
        for name, outcome in outcomes.items():
            columns[f"{name}/before"] = outcome.before
            columns[f"{name}/after"] = outcome.after
            columns[f"{name}/change_sd"] = outcome.measures()["change_sd"]
            columns[f"{name}/share"] = outcome.share
        return pd.DataFrame(columns)

    def _is_right(self, case: Case, ranked: FloatArray) -> NDArray[np.bool_]:
        """Which rivals are on the right side, before and after. [2, rivals]"""
        sign = -1 if case.transformation.direction == "stays below" else 1
        sides = []
        for pair in (case.before, case.after):
            rivals = ranked[[self.place[pair.query, title] for title in case.rivals]]
            sides.append(sign * (ranked[self.place[pair.query, pair.title]] - rivals) > 0)
        return np.array(sides)


def _cases(config: EvaluationConfig, pairs: pd.DataFrame, corpus: Corpus) -> Iterator[Case]:
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
                Case(transformation, row, *change, rivals)
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


def _titles(data: Path) -> Iterator[str]:
    batches = open_table(data, "products").iter_batches(columns=["title"])
    titles: Iterable[str] = (title for batch in batches for title in batch.column(0).to_pylist())
    return islice((title for title in titles if title), _MAX_TITLES)


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
