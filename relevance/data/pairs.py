"""Query-item pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from relevance.data.splits import assign_split, query_key
from relevance.data.tables import read_table

__all__ = ["Pair", "assign_split", "judged_pairs", "query_key"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A query against one item's title."""

    query: str
    title: str
    label: float = 0.0
    """Relevance in [0, 1]; 1 is grade 3 or a paid order."""


def judged_pairs(data: Path, split: str | None = None) -> pd.DataFrame:
    """Judged pairs with their texts, one row a pair.

    The grade is the consensus row (``rater`` null) where there is one, else the mean over
    raters.

    Returns:
        Columns query_id, query, split, source, searches, item_id, title, category, grade
        (float, 0-3), ordered by query_id then item_id.
    """
    judgments = read_table(data, "judgments").to_pandas()
    consensus = judgments[judgments["rater"].isna()]
    rated = judgments[judgments["rater"].notna()]
    rated = rated.groupby(["query_id", "item_id"], as_index=False)["grade"].mean()
    grades = pd.concat([consensus[["query_id", "item_id", "grade"]], rated])
    grades = grades.drop_duplicates(["query_id", "item_id"])
    queries = read_table(data, "queries").to_pandas()
    if split is not None:
        queries = queries[queries["split"] == split]
    products = read_table(data, "products", ["item_id", "title", "category"]).to_pandas()
    pairs = grades.merge(queries, on="query_id").merge(products, on="item_id")
    pairs["grade"] = pairs["grade"].astype(float)
    return pairs.sort_values(["query_id", "item_id"], ignore_index=True)
