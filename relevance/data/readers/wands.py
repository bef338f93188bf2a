"""Wayfair's WANDS: three tab-separated files.

Source: Chen et al., ECIR 2022; github.com/wayfair/WANDS.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from relevance.data.readers.placing import place
from relevance.data.readers.source import refuse_long, write_rows
from relevance.data.rows import MAX_TEXT_BYTES
from relevance.data.tables import DatasetCard

GRADES: Mapping[str, int] = {"Exact": 3, "Partial": 2, "Irrelevant": 0}
"""Partial is ESCI's substitute: the right kind of thing, but a wish is not met. The published
gains 2, 1, 0 halve it; 2 of 3 is nearer to that than 1 of 3 under exponential gain."""


def read_wands(
    source: Path, out: Path, splits: Mapping[str, str] | None, locale: str
) -> DatasetCard:
    """Read query.csv, product.csv and label.csv; a pair judged twice keeps its best label."""
    texts = _queries(source / "query.csv")
    placed = place(((i, query, None) for i, query in texts.items()), splits)
    write_rows(
        (
            {"query_id": f"wands:{i}", "query": texts[i], "split": split, "source": "wands"}
            for i, split in placed.items()
        ),
        out,
        "queries",
    )
    products: set[str] = set()
    write_rows(_products(source / "product.csv", products), out, "products")
    grades, doubled = _grades(source / "label.csv", texts, products)
    write_rows(
        (
            {"query_id": f"wands:{query}", "item_id": f"wands:{product}", "grade": grade}
            for (query, product), grade in grades.items()
            if query in placed
        ),
        out,
        "judgments",
    )
    return DatasetCard(
        name="wands",
        is_generated=False,
        licence="MIT",
        settings={
            "layout": "wands",
            "splits": "hash" if splits is None else "file",
            "queries_dropped": len(texts) - len(placed),
            "labels_doubled": doubled,
        },
    )


def _queries(path: Path) -> dict[str, str]:
    queries: dict[str, str] = {}
    for line, row in _rows(path, ["query_id", "query"]):
        if row["query_id"] in queries:
            raise ValueError(
                f"{path}: column 'query_id', line {line}: {row['query_id']} is there twice"
            )
        queries[row["query_id"]] = row["query"]
    return queries


def _products(path: Path, seen: set[str]) -> Iterator[dict[str, Any]]:
    """Rows of the products table; their ids go into ``seen``."""
    columns = ["product_id", "product_name"]
    optional = ["product_class", "category hierarchy", "product_description", "product_features"]
    for line, row in _rows(path, columns, optional):
        product = row["product_id"]
        if product in seen:
            raise ValueError(f"{path}: column 'product_id', line {line}: {product} is there twice")
        seen.add(product)
        leaf = row["category hierarchy"].rpartition("/")[2].strip()
        yield {
            "item_id": f"wands:{product}",
            "title": row["product_name"],
            "description": row["product_description"] or None,
            "category": row["product_class"] or leaf or None,
            "brand": None,
            "attributes": features(row["product_features"]) or None,
        }


def features(text: str) -> dict[str, str]:
    """Attributes of ``key : value|key:value``; a key's further values are added to its first.

    >>> features("color:oak|color: white|overall width : 24.5|:x|loose")
    {'color': 'oak, white', 'overall width': '24.5'}
    """
    found: dict[str, str] = {}
    for part in text.split("|"):
        name, _, value = (piece.strip() for piece in part.partition(":"))
        if name and value:
            known = found.get(name)
            if known is None:
                found[name] = value
            elif value not in known.split(", "):
                found[name] = f"{known}, {value}"
    return found


def _grades(
    path: Path, queries: Mapping[str, str], products: set[str]
) -> tuple[dict[tuple[str, str], int], int]:
    """Best grade of each pair, and how many rows said nothing new."""
    grades: dict[tuple[str, str], int] = {}
    rows = 0
    for line, row in _rows(path, ["query_id", "product_id", "label"]):
        for column, known, file in (
            ("query_id", queries, "query.csv"),
            ("product_id", products, "product.csv"),
        ):
            if row[column] not in known:
                raise ValueError(
                    f"{path}: column {column!r}, line {line}: {row[column]} is not in {file}"
                )
        if row["label"] not in GRADES:
            raise ValueError(
                f"{path}: column 'label', line {line}: {row['label']!r}, "
                f"want one of {', '.join(GRADES)}"
            )
        pair = row["query_id"], row["product_id"]
        grades[pair] = max(GRADES[row["label"]], grades.get(pair, 0))
        rows += 1
    return grades, rows - len(grades)


def _rows(
    path: Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines of a tab-separated file with a header, quoted as Python's csv quotes.

    Yields:
        Number of the line a row ends on, and its fields, stripped; those of ``columns`` are
        never empty.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing")
    csv.field_size_limit(MAX_TEXT_BYTES)
    with path.open("rb") as file:
        reader = csv.reader(_decoded(path, file), delimiter="\t", strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            # the owners' page says category_hierarchy, their file has a space
            header = [name.replace("category_hierarchy", "category hierarchy") for name in header]
            for name in (*columns, *optional):
                if name not in header:
                    raise ValueError(
                        f"{path}: no column {name!r}; it has {', '.join(header) or 'no header'}"
                    )
            is_empty = True
            for fields in reader:
                is_empty = False
                if len(fields) != len(header):
                    raise ValueError(
                        f"{path}: line {reader.line_num}: {len(fields)} tab-separated fields, "
                        f"want {len(header)} as in the header"
                    )
                row = {name: field.strip() for name, field in zip(header, fields, strict=True)}
                for name in columns:
                    if not row[name]:
                        raise ValueError(f"{path}: column {name!r}, line {reader.line_num}: empty")
                yield reader.line_num, row
        except csv.Error as error:
            raise ValueError(f"{path}: line {reader.line_num}: {error}") from None
        if is_empty:
            raise ValueError(f"{path}: empty, want at least one row")


def _decoded(path: Path, lines: Iterator[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_TEXT_BYTES:
            refuse_long(f"{path}: line {number}", len(line))
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}: line {number}: {line[error.start : error.start + 8]!r} is not UTF-8"
            ) from None
