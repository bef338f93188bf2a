"""Which split a query goes to, where the owner of the data has a say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow.parquet as pq

from relevance.data.readers.source import checked_parquet, text
from relevance.data.splits import SPLITS, assign_split, most_held_out, query_key


def read_splits(path: Path) -> dict[str, str]:
    """Split of each query in a Parquet file with columns ``query`` and ``split``.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A column is missing, a split unknown, or a query has two.
    """
    checked_parquet(path, [text("query"), text("split")])
    splits: dict[str, str] = {}
    rows = pq.ParquetFile(path).read(columns=["query", "split"])
    for row, (query, split) in enumerate(
        zip(rows["query"].to_pylist(), rows["split"].to_pylist(), strict=True), start=1
    ):
        if split not in SPLITS:
            raise ValueError(
                f"{path}: column 'split', row {row}: {split!r}, want one of {', '.join(SPLITS)}"
            )
        first = splits.setdefault(query.strip(), split)
        if first != split:
            raise ValueError(
                f"{path}: row {row}: query {query!r} is in {split} and in {first}, "
                "want one split a query"
            )
    return splits


def place(
    queries: Iterable[tuple[str, str, str | None]], splits: Mapping[str, str] | None
) -> dict[str, str]:
    """Split of each query id; an id that is left out would leak and must be dropped.

    A query goes where ``splits`` says, else where its owner says, else where its key's other
    queries went, else where the hash of its key says. Where variants of one query are put into
    several splits, the most held-out one wins (test, then valid) and the others are dropped:
    moving them would change a published test set.

    Args:
        queries: (query id, query, owner's split or None) of each.
        splits: Split of each query, from ``read_splits``.

    Raises:
        ValueError: ``splits`` lacks a query.
    """
    rows: list[tuple[str, str, str | None]] = []
    for query_id, query, owner in queries:
        if splits is not None and query not in splits:
            raise ValueError(f"query {query!r} (id {query_id}) is not in the file of --splits")
        rows.append((query_id, query, owner if splits is None else splits[query]))
    given = most_held_out((query, split) for _, query, split in rows if split is not None)
    placed = {}
    for query_id, query, split in rows:
        strongest = given.get(query_key(query))
        if split is None:
            placed[query_id] = strongest or assign_split(query)
        elif split == strongest:
            placed[query_id] = split
    return placed
