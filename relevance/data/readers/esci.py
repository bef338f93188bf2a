"""Amazon's Shopping Queries Dataset: two Parquet files, joined on product and locale.

Source: Reddy et al., arXiv 2206.06588; github.com/amazon-science/esci-data.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb
import pyarrow as pa

from relevance.data.readers.placing import place
from relevance.data.readers.source import (
    TAG_SQL,
    checked_parquet,
    database,
    integer,
    key,
    refuse_row,
    rows_of,
    text,
    write_sql,
)
from relevance.data.splits import assign_split
from relevance.data.tables import DatasetCard

EXAMPLES = "shopping_queries_dataset_examples.parquet"
PRODUCTS = "shopping_queries_dataset_products.parquet"
LOCALES = ("us", "es", "jp")
GRADES: Mapping[str, int] = {"E": 3, "S": 2, "C": 1, "I": 0}
"""Exact, substitute, complement, irrelevant."""


def read_esci(
    source: Path, out: Path, splits: Mapping[str, str] | None, locale: str
) -> DatasetCard:
    """Read the rows of ``locale``, or of every one if it is ``all``.

    Rows of the small version are part of the large one; all with ``large_version`` 1 are read.
    """
    if locale not in (*LOCALES, "all"):
        raise ValueError(f"locale {locale!r}: unknown; there are {', '.join(LOCALES)}, all")
    examples, products = source / EXAMPLES, source / PRODUCTS
    checked_parquet(
        examples,
        [
            key("example_id"),
            text("query"),
            key("query_id"),
            text("product_id"),
            text("product_locale"),
            text("esci_label"),
            integer("small_version"),
            integer("large_version"),
            text("split"),
        ],
    )
    checked_parquet(
        products,
        [
            text("product_id"),
            text("product_title"),
            text("product_description", nullable=True),
            text("product_bullet_point", nullable=True),
            text("product_brand", nullable=True),
            text("product_color", nullable=True),
            text("product_locale"),
        ],
    )
    chosen = LOCALES if locale == "all" else (locale,)
    with database() as connection:
        _open(connection, examples, products, chosen)
        _check(connection, examples, products, chosen)
        queries = connection.execute(
            """
            SELECT query_id, any_value(query), any_value(product_locale),
                bool_or(split = 'test')
            FROM examples GROUP BY query_id ORDER BY min(row)
            """
        ).fetchall()
        placed = place(
            (
                (query_id, query, _owners_split(query, is_test))
                for query_id, query, _, is_test in queries
            ),
            splits,
        )
        connection.register("placed", _queries_table(queries, placed))
        write_sql(connection, "SELECT * FROM placed", out, "queries")
        write_sql(connection, _PRODUCTS_SQL, out, "products")
        # a query that crosses the official split (79706 does) keeps its test rows only
        crossing = "true" if splits is not None else "NOT (e.split = 'train' AND e.is_test)"
        judgments = write_sql(
            connection,
            f"""
            SELECT p.query_id, {_id("e", "product_id")} AS item_id, e.grade, NULL AS rater
            FROM examples e JOIN placed p ON p.query_id = {_id("e", "query_id")}
            WHERE {crossing} ORDER BY e.row
            """,
            out,
            "judgments",
        )
        given = connection.execute("SELECT count(*) FROM examples").fetchall()[0][0]
    return DatasetCard(
        name="esci" if locale == "all" else f"esci-{locale}",
        is_generated=False,
        licence="Apache-2.0",
        settings={
            "layout": "esci",
            "locale": locale,
            "splits": "owner" if splits is None else "file",
            "queries_dropped": len(queries) - len(placed),
            "judgments_dropped": given - judgments,
        },
    )


def _owners_split(query: str, is_test: bool) -> str:
    """The official test set stays; the official training set gives up a validation set."""
    if is_test:
        return "test"
    return "valid" if assign_split(query) == "valid" else "train"


def _id(table: str, column: str) -> str:
    """SQL of an id that no other locale or dataset has."""
    return f"'esci-' || {table}.product_locale || ':' || {table}.{column}"


_PRODUCTS_SQL = f"""
    SELECT {_id("p", "product_id")} AS item_id,
        trim(p.product_title) AS title,
        nullif(trim(regexp_replace(
            concat_ws(chr(10), p.product_description::VARCHAR, p.product_bullet_point::VARCHAR),
            '{TAG_SQL}', ' ', 'g')), '') AS description,
        NULL::VARCHAR AS category,
        nullif(trim(p.product_brand::VARCHAR), '') AS brand,
        CASE WHEN trim(p.product_color::VARCHAR) != '' THEN MAP {{'color': trim(p.product_color)}}
            END AS attributes
    FROM products p
"""


def _open(
    connection: duckdb.DuckDBPyConnection, examples: Path, products: Path, chosen: tuple[str, ...]
) -> None:
    locales = ", ".join(f"'{name}'" for name in chosen)
    grades = " ".join(f"WHEN '{label}' THEN {grade}" for label, grade in GRADES.items())
    connection.execute(
        f"""
        CREATE VIEW every AS SELECT *, file_row_number + 1 AS row FROM {rows_of(examples)};
        CREATE TABLE examples AS
            SELECT row, example_id::VARCHAR AS example_id, trim(query) AS query,
                query_id::VARCHAR AS query_id, product_id, product_locale, split,
                CASE esci_label {grades} END AS grade,
                bool_or(split = 'test') OVER (PARTITION BY query_id, product_locale) AS is_test
            FROM every WHERE product_locale IN ({locales}) AND large_version = 1;
        CREATE VIEW products AS
            SELECT *, file_row_number + 1 AS row FROM {rows_of(products)}
            WHERE product_locale IN ({locales});
        """
    )


def _check(
    connection: duckdb.DuckDBPyConnection, examples: Path, products: Path, chosen: tuple[str, ...]
) -> None:
    for column, values in (
        ("esci_label", tuple(GRADES)),
        ("product_locale", LOCALES),
        ("split", ("train", "test")),
    ):
        listed = ", ".join(f"'{value}'" for value in values)
        wanted = ", ".join(values)
        refuse_row(
            connection,
            f"SELECT row, example_id, {column} FROM every WHERE {column} NOT IN ({listed})",
            lambda row, example, value, column=column, wanted=wanted: (
                f"{examples}: column {column!r}, row {row} (example_id {example}): "
                f"{value!r}, want one of {wanted}"
            ),
        )
    refuse_row(
        connection,
        "SELECT 1 WHERE NOT EXISTS (FROM examples)",
        lambda _: f"{examples}: no row with large_version 1 and locale {', '.join(chosen)}",
    )
    refuse_row(
        connection,
        "SELECT example_id, list(row ORDER BY row)[:2] FROM examples GROUP BY 1 "
        "HAVING count(*) > 1",
        lambda example, rows: (
            f"{examples}: column 'example_id': {example} is on rows {rows[0]} and {rows[1]}, "
            "want it once"
        ),
    )
    refuse_row(
        connection,
        "SELECT query_id, product_id, list(row ORDER BY row)[:2] FROM examples GROUP BY 1, 2 "
        "HAVING count(*) > 1",
        lambda query, product, rows: (
            f"{examples}: query_id {query} with product_id {product!r} is on rows {rows[0]} "
            f"and {rows[1]}, want one label a pair"
        ),
    )
    refuse_row(
        connection,
        "SELECT query_id, min(query), max(query) FROM examples GROUP BY 1 "
        "HAVING min(query) != max(query) OR min(product_locale) != max(product_locale)",
        lambda query_id, one, other: (
            f"{examples}: query_id {query_id} stands for {one!r} and {other!r}, or for two "
            "locales; want one query an id"
        ),
    )
    refuse_row(
        connection,
        "SELECT product_id, product_locale, list(row ORDER BY row)[:2] FROM products "
        "GROUP BY 1, 2 HAVING count(*) > 1",
        lambda product, locale, rows: (
            f"{products}: product_id {product!r} ({locale}) is on rows {rows[0]} and {rows[1]}, "
            "want it once"
        ),
    )
    refuse_row(
        connection,
        "SELECT row, product_id, product_locale FROM examples "
        "ANTI JOIN products USING (product_id, product_locale) ORDER BY row",
        lambda row, product, locale: (
            f"{examples}: column 'product_id', row {row}: {product!r} ({locale}) is not in "
            f"{products}"
        ),
    )


def _queries_table(
    queries: list[tuple[str, str, str, bool]], placed: Mapping[str, str]
) -> pa.Table:
    kept = [(i, query, locale) for i, query, locale, _ in queries if i in placed]
    return pa.table(
        {
            "query_id": pa.array([f"esci-{locale}:{i}" for i, _, locale in kept], pa.string()),
            "query": pa.array([query for _, query, _ in kept], pa.string()),
            "split": pa.array([placed[i] for i, _, _ in kept], pa.string()),
            "source": pa.array([f"esci-{locale}" for _, _, locale in kept], pa.string()),
            "searches": pa.nulls(len(kept), pa.int64()),
        }
    )
