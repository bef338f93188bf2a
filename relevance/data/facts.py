"""Facts about tables of any size, by DuckDB: what the expectations of the data contract judge."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from relevance.data import pii
from relevance.data.expectations import ID, Check, Number, Rows
from relevance.data.splits import query_key
from relevance.data.tables import TABLES

_MEMORY = "2GB"
"""DuckDB writes to disk beyond this; the whole process stays below 4 GiB."""
_THREADS = 2
"""Each wants memory of its own, and two read 10 M events in seconds."""
_READ_CHARS, _SHOWN_CHARS = 1_000, 200
"""Of a bad row's value, so that a broken export makes no broken report. More is read than shown,
so that a card's number cut in half is not shown unmasked."""


@dataclass(frozen=True)
class Fact:
    """What a check judges."""

    observed: float
    """A number of the table; or its bad rows, as a count or as a share."""
    failing: int = 0
    """Bad rows."""


@dataclass(frozen=True)
class Row:
    """A bad row, fit to be shown: short, printable and without personal data."""

    id: str
    row: int
    """Number in the table's file, the first is 1."""
    value: str


@contextlib.contextmanager
def open_database(files: Iterable[Path]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database in memory that spills to disk.

    Args:
        files: Parquet files that will be read, to be named when one cannot.

    Raises:
        OSError: A file cannot be read, or the disk is full.
        ValueError: A file's content cannot be read; a text is no UTF-8.
    """
    with tempfile.TemporaryDirectory() as spill:
        database = duckdb.connect(
            config={
                "memory_limit": _MEMORY,
                "threads": _THREADS,
                "temp_directory": spill,
                "preserve_insertion_order": False,
            }
        )
        try:
            database.execute("SET enable_progress_bar = false")
            database.create_function("query_key", query_key, ["VARCHAR"], "VARCHAR")
            database.create_function("has_card", pii.has_card, ["VARCHAR"], "BOOLEAN")
            yield database
        except duckdb.Error as error:
            for file in files:
                refuse_unreadable(file)
            kind = OSError if isinstance(error, duckdb.IOException) else ValueError
            reason = str(error).splitlines()[0]
            raise kind(f"{', '.join(map(str, files))}: {reason}") from error
        finally:
            database.close()


def add_table(database: duckdb.DuckDBPyConnection, table: str, path: Path) -> None:
    """Make the Parquet file ``path`` known as ``table``, with row numbers ``nr``."""
    columns = ", ".join(TABLES[table].names)
    # a view takes no parameters; * and ? in a path are no patterns
    file = glob.escape(str(path)).replace("'", "''")
    database.execute(
        f"CREATE VIEW {table} AS SELECT {columns}, file_row_number + 1 AS nr "
        f"FROM read_parquet('{file}', file_row_number = true)"
    )


def observe(
    database: duckdb.DuckDBPyConnection, table: str, checks: Sequence[Check]
) -> tuple[int, dict[str, Fact]]:
    """Count the rows of ``table``, and what each of ``checks`` asks.

    All that one row tells is counted in one pass; what takes several rows has a query each.
    """
    aggregates = ["count(*)"]
    for check in checks:
        if isinstance(check, Number):
            aggregates.append(check.sql)
        elif isinstance(check, Rows):
            aggregates.append(_count(database, check))
            aggregates.append(f"count(*) FILTER (WHERE {check.of})" if check.max_share else "1")
    found = database.execute(f"SELECT {', '.join(aggregates)} FROM {table}").fetchone()
    assert found is not None  # an aggregate gives one row
    numbers = iter(found)
    rows = next(numbers)
    facts = {}
    for check in checks:
        if isinstance(check, Number):
            facts[check.name] = Fact(float(next(numbers)))
        else:
            failing, of = next(numbers), next(numbers)
            facts[check.name] = Fact(failing / max(of, 1), failing)
    return rows, facts


def bad_rows(database: duckdb.DuckDBPyConnection, check: Rows, limit: int) -> list[Row]:
    """The first bad rows of ``check``."""
    where = check.bad or f"nr IN (FROM {_bad_table(database, check)})"
    found = database.execute(
        f"SELECT left(({ID[check.table]})::VARCHAR, {_READ_CHARS}), nr, "
        f"left(({check.column})::VARCHAR, {_READ_CHARS}) "
        f"FROM {check.table} WHERE {where} ORDER BY {check.order_by} LIMIT {limit}"
    ).fetchall()
    # of the texts, only queries are typed by shoppers; numbers of titles look like phones
    is_masked = check.table == "queries"
    return [
        Row(_shown(name, is_masked=False), row, _shown(value, is_masked=is_masked))
        for name, row, value in found
    ]


def refuse_unreadable(path: Path) -> None:
    """Read the Parquet file ``path`` whole.

    Raises:
        ValueError: It is damaged, or holds text that is not UTF-8; then with column and row.
    """
    first = 1
    try:
        for batch in pq.ParquetFile(path).iter_batches():
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                if not _is_valid(column):
                    for row, value in enumerate(column, first):
                        _refuse_other_encoding(path, name, row, value)
            first += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: damaged: {' '.join(str(error).split())}") from error


def _is_valid(column: pa.Array) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _refuse_other_encoding(path: Path, name: str, row: int, value: pa.Scalar) -> None:
    try:
        value.as_py()
    except UnicodeDecodeError as error:
        given = error.object[max(0, error.start - 10) : error.end + 10]
        raise ValueError(
            f"{path}: column {name!r}, row {row}: {given!r} is not UTF-8, want UTF-8 text"
        ) from error


def _count(database: duckdb.DuckDBPyConnection, check: Rows) -> str:
    if check.bad:
        return f"count(*) FILTER (WHERE {check.bad})"
    return f"(SELECT count(*) FROM {_bad_table(database, check)})"


def _bad_table(database: duckdb.DuckDBPyConnection, check: Rows) -> str:
    """Table of the bad rows' ``nr``, made once for all checks that share the query."""
    name = f"bad_{hashlib.sha256(check.bad_rows.encode()).hexdigest()[:16]}"
    database.execute(f"CREATE TEMP TABLE IF NOT EXISTS {name} AS {check.bad_rows}")
    return name


def _shown(value: str | None, *, is_masked: bool) -> str:
    if value is None:
        return "null"
    text = pii.mask(value) if is_masked else value
    text = text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if text.strip() else repr(text)
