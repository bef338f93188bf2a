"""Pairs from click logs: what shoppers did, weighted by how deep they went.

Source: ei-SRC, section 4.1; ``min_query_words`` and core terms filter queries, copies 1, 1, 2,
3, 5 by the deepest action, once per query, item and day.
"""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from relevance.configs import WeakPairsConfig
from relevance.data.tables import ACTIONS, check_table, read_table, table_path

COPIES = (1, 1, 2, 3, 5)
"""Copies of a pair by its deepest action, in the order of ``ACTIONS``."""


def click_pairs(config: WeakPairsConfig, data: Path, *, seed: int) -> pd.DataFrame:
    """Clicked pairs (label 1) of train queries, each with sampled negatives (label 0).

    Negatives are half of the clicked item's category, half of any, and never an item that was
    clicked for the same query.

    Returns:
        Columns query_id, query, item_id, title, label; positives repeated by depth.

    Raises:
        ValueError: No click of a train query passes the filter.
    """
    products = read_table(data, "products", ["item_id", "title", "category", "attributes"])
    catalogue = products.to_pandas()
    queries = read_table(data, "queries").to_pandas()
    core = core_terms(catalogue)
    words = queries["query"].str.casefold().str.split()
    keep = (
        (queries["split"] == "train")
        & (words.str.len() >= config.min_query_words)
        & words.map(lambda query: not core.isdisjoint(query))
    )
    clicks = _deepest_actions(data, queries.loc[keep, "query_id"])
    clicks = clicks[clicks["item_id"].isin(set(catalogue["item_id"]))]
    if clicks.empty:
        raise ValueError(
            f"{table_path(data, 'events')}: no click on a known item by a train query of "
            f"{config.min_query_words} words or more with a core term"
        )
    rng = np.random.default_rng(seed)
    if len(clicks) > config.pairs:
        clicks = clicks.iloc[np.sort(rng.choice(len(clicks), config.pairs, replace=False))]
    positives = clicks.loc[clicks.index.repeat(clicks["copies"]), ["query_id", "item_id"]]
    negatives = _negatives(clicks, catalogue, config.negatives, rng)
    pairs = pd.concat([positives.assign(label=1.0), negatives.assign(label=0.0)])
    pairs = pairs.merge(queries[["query_id", "query"]], on="query_id")
    pairs = pairs.merge(catalogue[["item_id", "title"]], on="item_id")
    pairs = pairs.sort_values(["query_id", "item_id", "label"], ignore_index=True)
    return pairs[["query_id", "query", "item_id", "title", "label"]]


def core_terms(catalogue: pd.DataFrame) -> set[str]:
    """Words that name what is sold: of the core attribute, or of categories without one.

    Falls back to every word of two titles or more, for a catalogue without either.
    """
    names: set[str] = set()
    for attributes in catalogue["attributes"].dropna():
        names.update(value for key, value in attributes if key == "core")
    names = names or set(catalogue["category"].dropna().unique())
    terms = {word for name in names for word in name.casefold().replace("&", " ").split()}
    if terms:
        return terms | {term + "s" for term in terms} | {t[:-1] for t in terms if t.endswith("s")}
    counts = catalogue["title"].str.casefold().str.split().explode().value_counts()
    return set(counts.index[counts >= 2])


def _deepest_actions(data: Path, query_ids: pd.Series) -> pd.DataFrame:
    """Query, item and summed copies over days, for events of ``query_ids``."""
    check_table(data, "events", ["timestamp", "query_id", "item_id", "action"])
    depth = pd.DataFrame({"action": ACTIONS, "depth": range(len(ACTIONS)), "copies": COPIES})
    wanted = query_ids.to_frame()
    with duckdb.connect() as connection:
        connection.register("depth", depth)
        connection.register("wanted", wanted)
        return connection.execute(
            """
            WITH daily AS (
                SELECT query_id, item_id, CAST(timestamp AS DATE) AS day, max(copies) AS copies
                FROM read_parquet(?) JOIN depth USING (action) SEMI JOIN wanted USING (query_id)
                GROUP BY ALL
            )
            SELECT query_id, item_id, CAST(sum(copies) AS INTEGER) AS copies
            FROM daily GROUP BY ALL ORDER BY query_id, item_id
            """,
            [str(table_path(data, "events"))],
        ).df()


def _negatives(
    clicks: pd.DataFrame, catalogue: pd.DataFrame, count: int, rng: np.random.Generator
) -> pd.DataFrame:
    items = catalogue["item_id"].to_numpy()
    category = pd.Categorical(catalogue["category"]).codes
    members = [np.flatnonzero(category == code) for code in range(category.max() + 1)]
    row_of = pd.Series(np.arange(len(items)), index=items)
    clicked = clicks.groupby("query_id")["item_id"].agg(set)
    rows = row_of.loc[clicks["item_id"]].to_numpy()
    drawn = []
    for query_id, row in zip(clicks["query_id"], rows, strict=True):
        same = members[category[row]] if category[row] >= 0 else np.arange(len(items))
        near = same[rng.integers(len(same), size=(count + 1) // 2)]
        far = rng.integers(len(items), size=count // 2)
        drawn += [
            (query_id, items[i])
            for i in np.concatenate([near, far])
            if items[i] not in clicked[query_id]
        ]
    return pd.DataFrame(drawn, columns=["query_id", "item_id"]).drop_duplicates()
