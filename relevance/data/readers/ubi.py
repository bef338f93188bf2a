"""User Behavior Insights, OpenSearch's standard for search logs, as flat Parquet files.

Source: github.com/o19s/ubi, version 1.3, with ``event_attributes`` flattened to ``object_id`` and
``position``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb
import pyarrow as pa

from relevance.data.readers.placing import place
from relevance.data.readers.source import (
    checked_parquet,
    database,
    key,
    moment,
    number,
    refuse_row,
    rows_of,
    text,
    write_sql,
)
from relevance.data.splits import SPLITS
from relevance.data.tables import DatasetCard

ACTION_NAMES: Mapping[str, str | None] = {
    "impression": "impression",
    "item_impression": "impression",
    "product_impression": "impression",
    "click": "click",
    "item_click": "click",
    "product_click": "click",
    "add_to_cart": "add_to_cart",
    "contact_supplier": "contact_supplier",
    "order": "order",
    "purchase": "order",
    "pay": "pay",
    # not about one item's relevance
    "search": None,
    "on_search": None,
    "view_search_results": None,
    "type_filter": None,
    "brand_filter": None,
    "product_sort": None,
    "product_hover": None,
    "declined_product": None,
    "global_click": None,
    "button_click": None,
    "page_exit": None,
    "404_redirect": None,
    "login": None,
    "logout": None,
    "new_user_entry": None,
    "remove_from_cart": None,
    "user_feedback": None,
}
"""UBI leaves action names to the shop; these are the ones of its guides and sample data."""

GRADES: Mapping[str, int] = {"Exact": 3, "Substitute": 2, "Complement": 1, "Irrelevant": 0}


def read_ubi(source: Path, out: Path, splits: Mapping[str, str] | None, locale: str) -> DatasetCard:
    """Read queries.parquet and events.parquet, and where they are there products and judgments.

    UBI knows items by id only: without products.parquet (``item_id``, ``title`` and, if wanted,
    ``description``, ``category``, ``brand``) titles are empty, which ``validate_data`` blocks.
    """
    with database() as connection:
        _open_log(connection, source)
        has_judgments = _open_judgments(connection, source / "judgments.parquet")
        has_products = _open_products(connection, source / "products.parquet")
        queries = connection.execute(
            """
            SELECT query, any_value(split), count(DISTINCT instance) FROM (
                SELECT query, NULL AS split, query_id AS instance FROM searches
                UNION ALL SELECT query, split, NULL FROM judgments
            ) GROUP BY query ORDER BY query
            """
        ).fetchall()
        if not queries:
            raise ValueError(f"{source / 'queries.parquet'}: column 'user_query': every text empty")
        placed = place(((query, query, split) for query, split, _ in queries), splits)
        kept = [(query, placed[query], count) for query, _, count in queries if query in placed]
        connection.register(
            "placed",
            pa.table(
                {
                    "query_id": pa.array([f"ubi:{query}" for query, _, _ in kept], pa.string()),
                    "query": pa.array([query for query, _, _ in kept], pa.string()),
                    "split": pa.array([split for _, split, _ in kept], pa.string()),
                    "source": pa.array(["ubi"] * len(kept), pa.string()),
                    "searches": pa.array([count for _, _, count in kept], pa.int64()),
                }
            ),
        )
        write_sql(connection, "SELECT * FROM placed", out, "queries")
        write_sql(connection, _PRODUCTS_SQL, out, "products")
        events = write_sql(connection, _EVENTS_SQL, out, "events")
        if has_judgments:
            write_sql(connection, _JUDGMENTS_SQL, out, "judgments")
        about_items = connection.execute("SELECT count(*) FROM log").fetchall()[0][0]
        every = connection.execute("SELECT count(*) FROM every").fetchall()[0][0]
    return DatasetCard(
        name="ubi",
        is_generated=False,
        licence="as the log's owner states",
        settings={
            "layout": "ubi",
            "splits": "file" if splits is not None else "owner" if has_judgments else "hash",
            "queries_dropped": len(queries) - len(kept),
            "events_not_about_items": every - about_items,
            "events_without_query_or_product": about_items - events,
            "titles": "products.parquet" if has_products else "none",
        },
    )


def _open_log(connection: duckdb.DuckDBPyConnection, source: Path) -> None:
    queries, events = source / "queries.parquet", source / "events.parquet"
    checked_parquet(queries, [key("query_id"), text("user_query"), moment("timestamp")])
    checked_parquet(
        events,
        [
            text("action_name"),
            key("query_id", nullable=True),
            key("client_id"),
            moment("timestamp"),
            text("user_query", nullable=True),
            key("object_id", nullable=True),
            number("position", nullable=True),
        ],
    )
    connection.register(
        "actions",
        pa.table(
            {
                "action_name": pa.array(list(ACTION_NAMES), pa.string()),
                "action": pa.array(list(ACTION_NAMES.values()), pa.string()),
            }
        ),
    )
    connection.execute(
        f"CREATE VIEW every AS SELECT *, file_row_number + 1 AS row FROM {rows_of(events)}"
    )
    for path in (queries, events):
        refuse_row(
            connection,
            f"SELECT file_row_number + 1, timestamp FROM {rows_of(path)} "
            "WHERE try_cast(timestamp AS TIMESTAMPTZ) IS NULL ORDER BY 1",
            lambda row, value, path=path: (
                f"{path}: column 'timestamp', row {row}: {value!r}, want ISO 8601"
            ),
        )
    refuse_row(
        connection,
        "SELECT row, action_name FROM every ANTI JOIN actions USING (action_name) ORDER BY row",
        lambda row, value: (
            f"{events}: column 'action_name', row {row}: {value!r}, "
            f"want one of {', '.join(ACTION_NAMES)}"
        ),
    )
    refuse_row(
        connection,
        "SELECT row, position FROM every WHERE NOT isnan(position::DOUBLE) AND "
        "(position < 0 OR position > 1e9 OR position != floor(position)) ORDER BY row",
        lambda row, value: f"{events}: column 'position', row {row}: {value}, want a rank from 0",
    )
    # One id may be logged with several texts, as a box that searches while one types does: each
    # text is then a search of its own, and an event without a text belongs to the first.
    connection.execute(
        f"""
        CREATE TABLE asked AS
            SELECT query_id::VARCHAR AS query_id, trim(user_query) AS query,
                timestamp::TIMESTAMPTZ AS timestamp
            FROM {rows_of(queries)} WHERE trim(user_query) != '';
        CREATE VIEW log AS
            SELECT row, query_id::VARCHAR AS query_id, client_id::VARCHAR AS unit_id,
                object_id::VARCHAR AS product_id, action,
                nullif(trim(user_query::VARCHAR), '') AS said,
                timestamp::TIMESTAMPTZ AS timestamp,
                CASE WHEN NOT isnan(position::DOUBLE) THEN position::INTEGER + 1 END AS position
            FROM every JOIN actions USING (action_name)
            WHERE action IS NOT NULL AND object_id IS NOT NULL;
        CREATE TABLE named AS
            SELECT log.* EXCLUDE (said), coalesce(said, first.query) AS query
            FROM log LEFT JOIN (
                SELECT query_id, arg_min(query, timestamp) AS query FROM asked GROUP BY query_id
            ) first USING (query_id)
            WHERE log.query_id IS NOT NULL AND coalesce(said, first.query) IS NOT NULL;
        CREATE VIEW searches AS
            SELECT query_id, query FROM asked UNION SELECT query_id, query FROM named;
        """
    )


def _open_judgments(connection: duckdb.DuckDBPyConnection, path: Path) -> bool:
    """Make the view ``judgments``, empty without a file, and say whether there is one."""
    if not path.exists():
        connection.execute(
            "CREATE TABLE judgments (query VARCHAR, product_id VARCHAR, grade INT, split VARCHAR)"
        )
        return False
    checked_parquet(path, [text("query"), text("product_id"), text("esci_label"), text("split")])
    for column, values in (("esci_label", tuple(GRADES)), ("split", SPLITS)):
        listed = ", ".join(f"'{value}'" for value in values)
        wanted = ", ".join(values)
        refuse_row(
            connection,
            f"SELECT file_row_number + 1, {column} FROM {rows_of(path)} "
            f"WHERE {column} NOT IN ({listed}) ORDER BY 1",
            lambda row, value, column=column, wanted=wanted: (
                f"{path}: column {column!r}, row {row}: {value!r}, want one of {wanted}"
            ),
        )
    grades = " ".join(f"WHEN '{label}' THEN {grade}" for label, grade in GRADES.items())
    connection.execute(
        f"""
        CREATE TABLE judgments AS
            SELECT trim(query) AS query, product_id, split, CASE esci_label {grades} END AS grade,
                file_row_number + 1 AS row
            FROM {rows_of(path)}
        """
    )
    refuse_row(
        connection,
        "SELECT query, product_id, list(row ORDER BY row)[:2] FROM judgments GROUP BY 1, 2 "
        "HAVING count(*) > 1",
        lambda query, product, rows: (
            f"{path}: query {query!r} with product_id {product!r} is on rows {rows[0]} and "
            f"{rows[1]}, want one label a pair"
        ),
    )
    refuse_row(
        connection,
        "SELECT query, min(split), max(split) FROM judgments GROUP BY 1 "
        "HAVING min(split) != max(split)",
        lambda query, one, other: (
            f"{path}: query {query!r} is in {one} and in {other}, want one split a query"
        ),
    )
    return True


def _open_products(connection: duckdb.DuckDBPyConnection, path: Path) -> bool:
    """Make the view ``products``, and say whether a file gives titles."""
    if not path.exists():
        connection.execute(
            """
            CREATE VIEW products AS
                SELECT product_id, '' AS title, NULL AS description, NULL AS category, NULL AS brand
                FROM (SELECT product_id FROM named UNION SELECT product_id FROM judgments)
                ORDER BY product_id
            """
        )
        return False
    names = checked_parquet(path, [key("item_id"), text("title")]).names
    more = [name for name in ("description", "category", "brand") if name in names]
    checked_parquet(path, [text(name, nullable=True) for name in more])
    chosen = ", ".join(
        f"nullif(trim({name}::VARCHAR), '') AS {name}" if name in more else f"NULL AS {name}"
        for name in ("description", "category", "brand")
    )
    connection.execute(
        f"""
        CREATE VIEW products AS
            SELECT item_id::VARCHAR AS product_id, trim(title) AS title, {chosen},
                file_row_number + 1 AS row
            FROM {rows_of(path)}
        """
    )
    refuse_row(
        connection,
        "SELECT product_id, list(row ORDER BY row)[:2] FROM products GROUP BY 1 "
        "HAVING count(*) > 1",
        lambda product, rows: (
            f"{path}: column 'item_id': {product!r} is on rows {rows[0]} and {rows[1]}, "
            "want it once"
        ),
    )
    return True


_PRODUCTS_SQL = """
    SELECT 'ubi:' || product_id AS item_id, title, description::VARCHAR AS description,
        category::VARCHAR AS category, brand::VARCHAR AS brand,
        NULL::MAP(VARCHAR, VARCHAR) AS attributes
    FROM products
"""

_EVENTS_SQL = """
    SELECT 'ubi:' || row AS event_id, date_trunc('millisecond', timestamp) AS timestamp, unit_id,
        'ubi:' || n.query_id || '/' || left(md5(query), 8) AS search_id,
        p.query_id, 'ubi:' || product_id AS item_id, action, position
    FROM named n JOIN placed p USING (query) SEMI JOIN products USING (product_id)
    ORDER BY timestamp, row
"""

_JUDGMENTS_SQL = """
    SELECT p.query_id, 'ubi:' || product_id AS item_id, grade, NULL AS rater
    FROM judgments j JOIN placed p USING (query) SEMI JOIN products USING (product_id)
    ORDER BY row
"""
