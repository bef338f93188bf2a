"""Chorus: rated query-product pairs and the Icecat products they are about, two Parquet files.

Source: github.com/querqy/chorus.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from relevance.data.readers.placing import place
from relevance.data.readers.source import (
    TAG_SQL,
    checked_parquet,
    integer,
    text,
    write_rows,
)
from relevance.data.splits import SPLITS
from relevance.data.tables import MAX_GRADE, DatasetCard

RATERS = ("rater1", "rater2", "rater3")
_RANKS: Mapping[str, int] = {"t_": 0, "n_": 1, "b_": 2}
"""Text says more than a number, and a number more than a yes, where names collide."""


def read_chorus(
    source: Path, out: Path, splits: Mapping[str, str] | None, locale: str
) -> DatasetCard:
    """Read pairs.parquet and products.parquet; the pairs' own splits are kept."""
    pairs = _pairs(source / "pairs.parquet")
    owners: dict[str, str] = {}
    for row, pair in enumerate(pairs, start=1):
        if owners.setdefault(pair["query"], pair["split"]) != pair["split"]:
            raise ValueError(
                f"{source / 'pairs.parquet'}: row {row}: query {pair['query']!r} is in "
                f"{pair['split']} and in {owners[pair['query']]}, want one split a query"
            )
    placed = place(((query, query, split) for query, split in owners.items()), splits)
    write_rows(
        (
            {"query_id": f"chorus:{query}", "query": query, "split": split, "source": "chorus"}
            for query, split in placed.items()
        ),
        out,
        "queries",
    )
    products: set[str] = set()
    write_rows(_products(source / "products.parquet", products), out, "products")
    for row, pair in enumerate(pairs, start=1):
        if pair["product_id"] not in products:
            raise ValueError(
                f"{source / 'pairs.parquet'}: column 'product_id', row {row}: "
                f"{pair['product_id']!r} is not in {source / 'products.parquet'}"
            )
    write_rows(
        (row for pair in pairs if pair["query"] in placed for row in _judgments(pair)),
        out,
        "judgments",
    )
    return DatasetCard(
        name="chorus",
        is_generated=False,
        licence="Apache-2.0; product text: Icecat, Open Content License",
        settings={
            "layout": "chorus",
            "splits": "owner" if splits is None else "file",
            "queries_dropped": len(owners) - len(placed),
        },
    )


def _pairs(path: Path) -> list[dict[str, Any]]:
    """Rows of the rated pairs, checked."""
    columns = [
        text("query"),
        text("product_id"),
        integer("rating"),
        *(integer(rater, nullable=True) for rater in RATERS),
        text("split"),
    ]
    checked_parquet(path, columns)
    names = [column.name for column in columns]
    pairs: list[dict[str, Any]] = pq.ParquetFile(path).read(names).to_pylist()
    seen: dict[tuple[str, str], int] = {}
    for row, pair in enumerate(pairs, start=1):
        pair["query"] = pair["query"].strip()
        if pair["split"] not in SPLITS:
            raise ValueError(
                f"{path}: column 'split', row {row}: {pair['split']!r}, "
                f"want one of {', '.join(SPLITS)}"
            )
        for column in ("rating", *RATERS):
            grade = pair[column]
            if grade is not None and not 0 <= grade <= MAX_GRADE:
                raise ValueError(
                    f"{path}: column {column!r}, row {row}: {grade}, want 0 to {MAX_GRADE}"
                )
        first = seen.setdefault((pair["query"], pair["product_id"]), row)
        if first != row:
            raise ValueError(
                f"{path}: query {pair['query']!r} with product_id {pair['product_id']!r} is on "
                f"rows {first} and {row}, want one rating a pair"
            )
    return pairs


def _judgments(pair: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The consensus, then each rater who voted."""
    ids = {"query_id": f"chorus:{pair['query']}", "item_id": f"chorus:{pair['product_id']}"}
    yield {**ids, "grade": pair["rating"], "rater": None}
    for rater in RATERS:
        if pair[rater] is not None:
            yield {**ids, "grade": pair[rater], "rater": rater}


def _products(path: Path, seen: set[str]) -> Iterator[dict[str, Any]]:
    """Rows of the products table; their ids go into ``seen``."""
    columns = [
        text("product_id"),
        text("title"),
        text("short_description", nullable=True),
        text("supplier", nullable=True),
        text("product_type", nullable=True),
        text("attributes_json", nullable=True),
    ]
    checked_parquet(path, columns)
    row = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(8_192, columns=[column.name for column in columns]):
            for product in batch.to_pylist():
                row += 1
                if product["product_id"] in seen:
                    raise ValueError(
                        f"{path}: column 'product_id', row {row}: {product['product_id']!r} "
                        "is there twice"
                    )
                seen.add(product["product_id"])
                yield {
                    "item_id": f"chorus:{product['product_id']}",
                    "title": plain_text(product["title"]),
                    "description": plain_text(product["short_description"] or "") or None,
                    "category": (product["product_type"] or "").strip() or None,
                    "brand": (product["supplier"] or "").strip() or None,
                    "attributes": _attributes(path, row, product["attributes_json"]) or None,
                }


def plain_text(text: str) -> str:
    """Text without HTML tags, entities and runs of white space.

    >>> plain_text("Up to 40 &deg;C<br />USB  2.0, <5 W")
    'Up to 40 °C USB 2.0, <5 W'
    """
    return " ".join(html.unescape(re.sub(TAG_SQL, " ", text)).split())


def _attributes(path: Path, row: int, text: str | None) -> dict[str, str]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: column 'attributes_json', row {row}: not JSON: {error}"
        ) from None
    if not isinstance(found, dict):
        raise ValueError(
            f"{path}: column 'attributes_json', row {row}: {text[:40]!r}, want a JSON object"
        )
    return flat_attributes(found)


def flat_attributes(found: Mapping[str, Any]) -> dict[str, str]:
    """Names without the index's type prefix, values as a shopper would write them.

    What a product does not have (false, null, empty) is left out: nobody searches for it.

    >>> flat_attributes({"b_hdmi": True, "b_wi_fi": False, "n_weight": 2.0, "t_case__l_": "Box"})
    {'case l': 'Box', 'weight': '2', 'hdmi': 'yes'}
    """
    flat: dict[str, str] = {}
    for key in sorted(found, key=lambda key: _RANKS.get(key[:2], len(_RANKS))):
        value = found[key]
        name = " ".join((key[2:] if key[:2] in _RANKS else key).replace("_", " ").split())
        if name and value is not None and value is not False and value != "":
            flat.setdefault(name, _value(value))
    return flat


def _value(value: Any) -> str:
    if value is True:
        return "yes"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return plain_text(str(value))
