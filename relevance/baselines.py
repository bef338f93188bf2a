"""The two lexical baselines of every table: BM25 and a logistic model on token overlap."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from relevance.data.tables import open_table
from relevance.metrics import FloatArray

BM25 = "bm25"
TOKEN_OVERLAP = "token-overlap"

# Han and kana run on without spaces, so each character is a word of its own
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_QUANTITY = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)[\s-]*([a-z]+)")


def words(text: str) -> list[str]:
    """Words of a text, case folded: runs of letters, digits and underscores.

    >>> words("USB-C cable, 2m")
    ['usb', 'c', 'cable', '2m']
    """
    return _WORD.findall(text.casefold())


@dataclass(frozen=True)
class Bm25:
    """BM25 of a title, with the statistics of a collection of titles."""

    n_titles: int
    mean_words: float
    document_frequency: Counter[str]
    """Titles holding each word; words left out of the count are taken as unseen."""
    k1: float = 1.2
    """Saturation of repeated words; Robertson & Zaragoza 2009 give 1.2 to 2."""
    b: float = 0.75
    """How far long titles are discounted."""

    @classmethod
    def of(cls, titles: Iterable[str], vocabulary: Iterable[str] | None = None) -> Bm25:
        """Count a collection of titles in one pass.

        Args:
            titles: The collection.
            vocabulary: Words worth counting, which bounds the memory; None counts all.

        Raises:
            ValueError: The collection is empty.
        """
        wanted = None if vocabulary is None else frozenset(vocabulary)
        n_titles = n_words = 0
        frequency: Counter[str] = Counter()
        for title in titles:
            found = words(title)
            n_titles += 1
            n_words += len(found)
            frequency.update(set(found) if wanted is None else wanted.intersection(found))
        if not n_titles:
            raise ValueError("BM25: the collection has no titles, want one or more")
        return cls(n_titles, n_words / n_titles, frequency)

    def idf(self, word: str) -> float:
        """Weight of a word: log(1 + (N - n + 0.5) / (n + 0.5)), never negative."""
        n = self.document_frequency[word]
        return float(np.log1p((self.n_titles - n + 0.5) / (n + 0.5)))

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> FloatArray:
        """Scores of pairs, a repeated query word counting each time. [pairs]"""
        count = lru_cache(maxsize=100_000)(lambda title: Counter(words(title)))
        weigh = lru_cache(maxsize=100_000)(
            lambda query: [(word, self.idf(word)) for word in words(query)]
        )
        scores = np.zeros(len(titles))
        for row, (query, title) in enumerate(zip(queries, titles, strict=True)):
            counts = count(title)
            length = counts.total() / self.mean_words if self.mean_words else 0.0
            damping = self.k1 * (1 - self.b + self.b * length)
            scores[row] = sum(
                idf * counts[word] * (self.k1 + 1) / (counts[word] + damping)
                for word, idf in weigh(query)
                if word in counts
            )
        return scores


def bm25_scores(data: Path, queries: Sequence[str], titles: Sequence[str]) -> FloatArray:
    """BM25 scores of pairs, all titles of the dataset being the collection. [pairs]"""
    vocabulary = {word for query in set(queries) for word in words(query)}
    return Bm25.of(_titles(data), vocabulary).score(queries, titles)


def _titles(data: Path) -> Iterator[str]:
    for batch in open_table(data, "products").iter_batches(columns=["title"]):
        yield from batch.column(0).to_pylist()


FEATURES = (
    "words",
    "substrings",
    "prefixes",
    "all_words",
    "log_query_words",
    "log_title_words",
    "log_first_match",
    "last_match",
    "has_number",
    "numbers",
    "quantities",
)
"""Features of a pair, in order. Shares are of the query's words or numbers:

``words`` found as words of the title, ``substrings`` anywhere in the title without its spaces,
``prefixes`` by their first four letters, ``all_words`` whether every word is found;
``log_first_match`` where the first found word stands (30 if none), ``last_match`` where the
last one does, relative to the title's length (-1 / length if none); ``numbers`` found with the
same value, ``quantities`` ("5 kg", "12v") found with number and unit.
"""

_SIMPLE = 4  # the first features, whose plain mean stands in for a fitted model

_NO_MATCH = 30


@dataclass(frozen=True)
class TokenOverlap:
    """Logistic model on ``FEATURES``, or their plain mean without labels to fit."""

    model: Pipeline | None
    note: str
    """What it was fitted on, for the report."""

    @classmethod
    def fit(
        cls, queries: Sequence[str], titles: Sequence[str], is_relevant: NDArray[np.bool_]
    ) -> TokenOverlap:
        """Fit on labelled pairs of the train split; one class or none falls back to the mean."""
        n_relevant = int(is_relevant.sum())
        if not 0 < n_relevant < len(is_relevant):
            return cls(
                None,
                f"{TOKEN_OVERLAP}: mean of {', '.join(FEATURES[:_SIMPLE])}, not fitted, since "
                f"the train split has {len(is_relevant)} judged pairs, {n_relevant} relevant",
            )
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
        model.fit(overlap_features(queries, titles), is_relevant)
        return cls(
            model,
            f"{TOKEN_OVERLAP}: logistic model on {len(FEATURES)} features, fitted on "
            f"{len(is_relevant)} judged pairs of the train split, {n_relevant} relevant",
        )

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> FloatArray:
        """Raw scores of pairs: logits, or shares when not fitted. [pairs]"""
        features = overlap_features(queries, titles)
        if self.model is None:
            return np.asarray(features[:, :_SIMPLE].mean(axis=1), np.float64)
        return np.asarray(self.model.decision_function(features), np.float64)


def overlap_features(queries: Sequence[str], titles: Sequence[str]) -> FloatArray:
    """``FEATURES`` of every pair. [pairs, features]"""
    read_query = lru_cache(maxsize=100_000)(_Text)
    read_title: Callable[[str], _Text] = lru_cache(maxsize=100_000)(_Text)
    features = np.zeros((len(titles), len(FEATURES)))
    for row, (query, title) in enumerate(zip(queries, titles, strict=True)):
        features[row] = _features(read_query(query), read_title(title))
    return features


class _Text:
    """A text taken apart once, however many pairs it stands in."""

    def __init__(self, text: str) -> None:
        folded = text.casefold()
        self.words = _WORD.findall(folded)
        self.squashed = "".join(folded.split())
        self.position = {word: i for i, word in reversed(list(enumerate(self.words)))}
        self.prefixes = {word[:4] for word in self.words}
        self.numbers = set(_NUMBER.findall(folded))
        self.quantities = {value + unit for value, unit in _QUANTITY.findall(folded)}


def _features(query: _Text, title: _Text) -> tuple[float, ...]:
    n = max(1, len(query.words))
    places = [title.position[word] for word in query.words if word in title.position]
    return (
        len(places) / n,
        sum(word in title.squashed for word in query.words) / n,
        sum(word[:4] in title.prefixes for word in query.words) / n,
        float(0 < len(query.words) == len(places)),
        np.log1p(len(query.words)),
        np.log1p(len(title.position)),
        np.log1p(min(places, default=_NO_MATCH)),
        max(places, default=-1) / max(1, len(title.words)),
        float(bool(query.numbers)),
        _share(query.numbers, title.numbers),
        _share(query.quantities, title.quantities),
    )


def _share(wanted: set[str], found: set[str]) -> float:
    return len(wanted & found) / len(wanted) if wanted else 0.0
