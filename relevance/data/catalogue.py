"""Pairs from the catalogue alone, for shops without click logs.

A query is made of a product's own facets (words of its title, brand, category, attribute values,
units), shortened and roughened as shoppers do. Items that lexical retrieval brings up for it are
relevant if they carry every facet somewhere in their record, else negative: the hardest differ
in one attribute or unit. Queries of the train split get unlabelled candidates the same way, for
a guide or a teacher to label.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from relevance.configs import WeakPairsConfig
from relevance.data.pairs import query_key
from relevance.data.tables import read_table

WORD = r"[^\W_]+(?:[.\-/][^\W_]+)*[%\"]?"
_UNIT = re.compile(
    r"\b\d+(?:\.\d+)?\s?(?:v|w|a|kg|g|ml|l|oz|mm|cm|m|ft|inch|gb|tb|mb|ghz|mhz|mah|pcs|pack|hz)\b"
)
_STOP = frozenset("a an and by for from in of on or the to with w".split())
_CHUNK = 512
"""Queries whose lexical scores are held at once."""


def catalogue_pairs(config: WeakPairsConfig, data: Path, *, seed: int) -> pd.DataFrame:
    """Made queries with labelled items, and train queries with unlabelled ones.

    Returns:
        Columns query_id, query, item_id, title, label (1, 0, or NaN where nothing is known),
        grouped by query.
    """
    rng = np.random.default_rng(seed)
    columns = ["item_id", "title", "description", "category", "brand", "attributes"]
    products = read_table(data, "products", columns).to_pandas()
    queries = read_table(data, "queries").to_pandas()
    index = _Index(products)

    held_out = {query_key(query) for query in queries.loc[queries["split"] != "train", "query"]}
    made: dict[str, tuple[str, ...]] = {}
    for row in rng.permutation(len(products)):
        if len(made) >= config.pairs:
            break
        facets = _facets(products.iloc[row], rng)
        query = _roughen(" ".join(facets), rng)
        if len(query.split()) >= config.min_query_words and query_key(query) not in held_out:
            made.setdefault(query, facets)

    frames: list[pd.DataFrame] = []
    texts = list(made)
    for start in range(0, len(texts), _CHUNK):
        chunk = texts[start : start + _CHUNK]
        for query, rows in zip(chunk, index.search(chunk, 8 * (config.negatives + 1)), strict=True):
            carries = np.array([index.carries(row, made[query]) for row in rows], dtype=bool)
            far = rng.integers(len(products), size=(config.negatives + 1) // 2)
            hits = rows[carries][:2]
            misses = np.concatenate([rows[~carries][: config.negatives // 2 + 1], far])
            misses = misses[[not index.carries(row, made[query]) for row in misses]]
            if len(hits):
                chosen = np.concatenate([hits, misses])
                labels = [1.0] * len(hits) + [0.0] * len(misses)
                frames.append(_frame(f"made:{len(frames)}", query, products, chosen, labels))

    real = queries[queries["split"] == "train"].drop_duplicates("query")
    near = config.candidates * 3 // 4
    for start in range(0, len(real), _CHUNK):
        part = real.iloc[start : start + _CHUNK]
        found = index.search(list(part["query"]), near)
        for query_id, query, rows in zip(part["query_id"], part["query"], found, strict=True):
            far = rng.integers(len(products), size=config.candidates - near)
            chosen = np.unique(np.concatenate([rows, far]))
            frames.append(_frame(query_id, query, products, chosen, [np.nan] * len(chosen)))
    return pd.concat(frames, ignore_index=True).drop_duplicates(["query_id", "item_id"])


@dataclass(frozen=True)
class _Record:
    words: frozenset[str]
    text: str


class _Index:
    """TF-IDF over titles and facets, to bring up what a lexical engine would."""

    def __init__(self, products: pd.DataFrame) -> None:
        self.records = [_record(row) for row in products.itertuples()]
        self.vectorizer = TfidfVectorizer(token_pattern=WORD, sublinear_tf=True, dtype=np.float32)
        self.matrix = self.vectorizer.fit_transform(products["title"])

    def search(self, queries: Sequence[str], count: int) -> list[np.ndarray]:
        """Rows of the best items for each query, best first, those that share no word left out."""
        scores = sparse.csr_matrix(self.vectorizer.transform(queries) @ self.matrix.T)
        found = []
        for query in range(len(queries)):
            span = slice(scores.indptr[query], scores.indptr[query + 1])
            rows, values = scores.indices[span], scores.data[span]
            found.append(rows[np.lexsort((rows, -values))][:count].astype(np.int64))
        return found

    def carries(self, row: int, facets: Sequence[str]) -> bool:
        """Whether the item's record holds every facet."""
        record = self.records[row]
        return all(
            set(words_of(facet)) <= record.words or facet.replace(" ", "") in record.text
            for facet in facets
        )


def words_of(text: str) -> list[str]:
    """Lower-cased words, with numbers and units kept together."""
    return re.findall(WORD, text.casefold())


def _record(row: object) -> _Record:
    values = [value for _, value in (getattr(row, "attributes", None) or ())]
    parts = [getattr(row, name) for name in ("title", "description", "category", "brand")]
    text = " ".join(str(part) for part in [*parts, *values] if isinstance(part, str)).casefold()
    return _Record(frozenset(words_of(text)), text.replace(" ", ""))


def _facets(product: pd.Series, rng: np.random.Generator) -> tuple[str, ...]:
    """One to three phrases that say what the product is, most often its head words."""
    words = [word for word in words_of(product["title"]) if word not in _STOP]
    phrases = []
    for size in (1, 2, 2, 3):
        if len(words) >= size:
            start = int(rng.integers(len(words) - size + 1))
            phrases.append(" ".join(words[start : start + size]))
    phrases += [product[name].casefold() for name in ("brand", "category") if product[name]]
    units = _UNIT.findall(product["title"].casefold())
    if units:
        phrases.append(units[int(rng.integers(len(units)))])
    values = [value.casefold() for _, value in (product["attributes"] or ())]
    values = [value for value in values if 2 < len(value) < 25 and not value.isnumeric()]
    if values:
        phrases.append(values[int(rng.integers(len(values)))])
    count = min(len(phrases), 1 + int(rng.integers(3)))
    chosen = rng.choice(len(phrases), size=count, replace=False)
    return tuple(dict.fromkeys(phrases[i] for i in chosen))


def _roughen(query: str, rng: np.random.Generator) -> str:
    """At times a lost plural, a joined compound or a slip of the finger."""
    words = query.split()[:8]
    slip = rng.random()
    at = int(rng.integers(len(words))) if words else 0
    if slip < 0.05 and words and words[at].endswith("s"):
        words[at] = words[at][:-1]
    elif slip < 0.10 and len(words) > 1:
        at = min(at, len(words) - 2)
        words[at : at + 2] = [words[at] + words[at + 1]]
    elif slip < 0.15 and words and len(words[at]) > 4 and words[at].isalpha():
        cut = 1 + int(rng.integers(len(words[at]) - 2))
        word = words[at]
        words[at] = word[:cut] + word[cut + 1] + word[cut] + word[cut + 2 :]
    return " ".join(words)


def _frame(
    query_id: str,
    query: str,
    products: pd.DataFrame,
    rows: np.ndarray,
    labels: Sequence[float],
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "query_id": query_id,
            "query": query,
            "item_id": products["item_id"].to_numpy()[rows],
            "title": products["title"].to_numpy()[rows],
            "label": labels,
        }
    )
