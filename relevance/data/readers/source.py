"""What the readers share: checked Parquet input, and streamed output."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from relevance.data.rows import MAX_TEXT_BYTES
from relevance.data.tables import TABLES, table_path

MEMORY_LIMIT = "2GB"
"""DuckDB spills to disk above this."""

_BATCH_ROWS = 16_384
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
TAG_SQL = _TAG.pattern
"""An HTML tag, for DuckDB's ``regexp_replace``."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a layout promises."""

    name: str
    wanted: str
    """Its type, in words."""
    fits: Callable[[pa.DataType], bool]
    nullable: bool = False


def text(name: str, *, nullable: bool = False) -> Column:
    """A column of strings."""
    return Column(name, "text", _is_text, nullable)


def integer(name: str, *, nullable: bool = False) -> Column:
    """A column of whole numbers."""
    return Column(name, "integer", pa.types.is_integer, nullable)


def number(name: str, *, nullable: bool = False) -> Column:
    """A column of numbers, which pandas makes of integers with gaps."""
    return Column(name, "number", _is_number, nullable)


def key(name: str, *, nullable: bool = False) -> Column:
    """A column of ids: text or integer."""
    return Column(
        name, "text or integer", lambda kind: _is_text(kind) or pa.types.is_integer(kind), nullable
    )


def moment(name: str) -> Column:
    """A column of times: timestamps, or text in ISO 8601."""
    return Column(
        name, "timestamp or text", lambda kind: _is_text(kind) or pa.types.is_timestamp(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def checked_parquet(path: Path, columns: Sequence[Column]) -> pa.Schema:
    """Read the file ``path`` once, in pieces, and refuse what its layout does not promise.

    Returns:
        Schema of the file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: No Parquet, no rows, a column missing or mistyped, a null where there may be
            none, a text over ``MAX_TEXT_BYTES`` or not UTF-8. Rows count from 1.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing")
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a readable Parquet file: {_line(error)}") from error
    with file:
        schema = file.schema_arrow
        for column in columns:
            if column.name not in schema.names:
                raise ValueError(
                    f"{path}: no column {column.name!r} ({column.wanted}); "
                    f"it has {', '.join(schema.names)}"
                )
        if file.metadata.num_rows == 0:
            raise ValueError(f"{path}: empty, want at least one row")
        for column in columns:
            found = schema.field(column.name).type
            if not column.fits(found) and not (column.nullable and pa.types.is_null(found)):
                raise ValueError(f"{path}: column {column.name!r} is {found}, want {column.wanted}")
        names = [column.name for column in columns]
        row = 1
        try:
            for batch in file.iter_batches(_BATCH_ROWS, columns=names):
                for column in columns:
                    _check_values(path, column, batch.column(column.name), row)
                row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path}: unreadable after row {row - 1}: {_line(error)}") from error
    return schema


def _check_values(path: Path, column: Column, values: pa.Array, first_row: int) -> None:
    if not column.nullable and values.null_count:
        row = first_row + values.is_null().index(True).as_py()
        raise ValueError(f"{path}: column {column.name!r}, row {row}: null, want {column.wanted}")
    if not _is_text(values.type):
        return
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    raw = values.cast(pa.large_string()).cast(pa.large_binary())
    size = pc.max(pc.binary_length(raw)).as_py() or 0
    if size > MAX_TEXT_BYTES:
        row = first_row + pc.index(pc.binary_length(raw), size).as_py()
        refuse_long(f"{path}: column {column.name!r}, row {row}", size)
    try:
        raw.cast(pa.large_string())
    except pa.ArrowInvalid:
        bad = next(i for i, value in enumerate(raw) if not _is_utf8(value.as_py()))
        raise ValueError(
            f"{path}: column {column.name!r}, row {first_row + bad}: "
            f"{raw[bad].as_py()[:40]!r} is not UTF-8"
        ) from None


def refuse_long(where: str, size: int) -> NoReturn:
    """Refuse a text over ``MAX_TEXT_BYTES``."""
    raise ValueError(f"{where}: a text of {size:,} bytes, want {MAX_TEXT_BYTES:,} at most")


def _is_utf8(value: bytes | None) -> bool:
    try:
        (value or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


@contextlib.contextmanager
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in memory, bounded, in UTC."""
    with tempfile.TemporaryDirectory() as spill, duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        connection.execute(f"SET temp_directory = '{spill}'")
        yield connection


def rows_of(path: Path) -> str:
    """SQL for the rows of a Parquet file, with ``file_row_number`` from 0."""
    quoted = str(path).replace("'", "''")
    # no glob: a file's name may hold * or [
    escaped = re.sub(r"([*?\[])", r"[\1]", quoted)
    return f"read_parquet('{escaped}', file_row_number = true)"


def refuse_row(
    connection: duckdb.DuckDBPyConnection, sql: str, message: Callable[..., str]
) -> None:
    """Raise ``ValueError`` with ``message`` of the first row that ``sql`` finds, if any."""
    found = connection.execute(f"{sql} LIMIT 1").fetchone()
    if found is not None:
        raise ValueError(message(*found))


def write_sql(connection: duckdb.DuckDBPyConnection, sql: str, out: Path, table: str) -> int:
    """Stream the result of ``sql`` into ``table`` of the dataset under construction.

    Returns:
        Rows written.
    """
    schema = TABLES[table]
    rows = 0
    with pq.ParquetWriter(table_path(out, table), schema, compression="zstd") as writer:
        for batch in connection.execute(sql).to_arrow_reader(_BATCH_ROWS):
            writer.write_table(pa.Table.from_batches([batch]).cast(schema))
            rows += batch.num_rows
    return rows


def write_rows(rows: Iterable[Mapping[str, Any]], out: Path, table: str) -> int:
    """Stream ``rows`` into ``table`` of the dataset under construction.

    Returns:
        Rows written.
    """
    schema = TABLES[table]
    count = 0
    with pq.ParquetWriter(table_path(out, table), schema, compression="zstd") as writer:
        for chunk in _chunks(rows):
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
            count += len(chunk)
    return count


def _chunks(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    chunk: list[Mapping[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _BATCH_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
