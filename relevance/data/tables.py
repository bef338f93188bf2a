"""The four tables of a dataset: a directory of Parquet files with these schemas."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from relevance.data.rows import check_unique, check_values
from relevance.data.splits import SPLITS as SPLITS
from relevance.data.splits import most_held_out, query_key
from relevance.files import new_dir, sha256

ACTIONS = ("click", "add_to_cart", "contact_supplier", "order", "pay")
"""Depths of interest, shallow to deep; ``impression`` precedes them all."""

MAX_GRADE = 3
"""Grades run 0 (irrelevant), 1, 2 to 3: subject, core keywords and units all agree."""


def _field(name: str, kind: pa.DataType, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable)


TABLES: Mapping[str, pa.Schema] = {
    "queries": pa.schema(
        [
            _field("query_id", pa.string()),
            _field("query", pa.string()),
            _field("split", pa.string()),
            _field("source", pa.string()),
            # how often it was searched in the log's span; null without a log
            _field("searches", pa.int64(), nullable=True),
        ]
    ),
    "products": pa.schema(
        [
            _field("item_id", pa.string()),
            _field("title", pa.string()),
            _field("description", pa.string(), nullable=True),
            _field("category", pa.string(), nullable=True),
            _field("brand", pa.string(), nullable=True),
            _field("attributes", pa.map_(pa.string(), pa.string()), nullable=True),
        ]
    ),
    "events": pa.schema(
        [
            _field("event_id", pa.string()),
            _field("timestamp", pa.timestamp("ms", tz="UTC")),
            _field("unit_id", pa.string()),
            # one page of results shown to one shopper
            _field("search_id", pa.string()),
            _field("query_id", pa.string()),
            _field("item_id", pa.string()),
            # "impression" or one of ACTIONS
            _field("action", pa.string()),
            # rank on the page, the first is 1
            _field("position", pa.int32(), nullable=True),
        ]
    ),
    "judgments": pa.schema(
        [
            _field("query_id", pa.string()),
            _field("item_id", pa.string()),
            _field("grade", pa.int8()),
            # null: the consensus of all raters
            _field("rater", pa.string(), nullable=True),
        ]
    ),
}

ALLOWED: Mapping[str, Sequence[object]] = {
    "split": SPLITS,
    "action": ("impression", *ACTIONS),
    "grade": tuple(range(MAX_GRADE + 1)),
}
"""Values of the columns that take few."""

KEYS: Mapping[str, Sequence[str]] = {
    "queries": ("query_id",),
    "products": ("item_id",),
    "judgments": ("query_id", "item_id", "rater"),
}
"""Columns that name a row of a table. Events have no key here: there may be too many to compare,
and no step counts on it."""


@dataclass(frozen=True)
class DatasetCard:
    """What a dataset is, in ``dataset.json`` beside its tables."""

    name: str
    """Short name, for example ``esci-us`` or ``market``."""
    is_generated: bool
    """True for data that no shopper or rater made."""
    licence: str
    """Licence of the text, as its owner states it."""
    settings: Mapping[str, str | int | float | bool]
    """How it was imported or generated."""


def table_path(data: Path, table: str) -> Path:
    """Where ``table`` of the dataset ``data`` lives."""
    return data / f"{table}.parquet"


def has_table(data: Path, table: str) -> bool:
    """Whether the dataset carries ``table``; events and judgments are optional."""
    return table_path(data, table).exists()


def open_table(data: Path, table: str) -> pq.ParquetFile:
    """Open ``table`` after checking its columns and types against ``TABLES``.

    Raises:
        FileNotFoundError: The table is absent.
        ValueError: It is no Parquet file, lacks a column or has one of another type.
    """
    path = table_path(data, table)
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing; a dataset holds {', '.join(TABLES)}")
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: not a readable Parquet file: {reason}") from error
    check_schema(str(path), file.schema_arrow, TABLES[table])
    return file


def read_table(data: Path, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read ``table`` whole, or only ``columns`` of it, and check the rows.

    Raises:
        FileNotFoundError: See ``open_table``.
        ValueError: See ``open_table`` and ``check_table``.
    """
    with open_table(data, table) as file:
        batches = list(_checked_batches(file, data, table, columns or file.schema_arrow.names))
        rows = pa.Table.from_batches(batches)
    key = KEYS.get(table)
    if key and set(key) <= set(rows.column_names):
        check_unique(str(table_path(data, table)), rows, key)
    return rows


def check_table(data: Path, table: str, columns: Sequence[str]) -> None:
    """Check the rows of ``table``, as far as ``columns`` tell, in pieces.

    Raises:
        FileNotFoundError: See ``open_table``.
        ValueError: See ``open_table``; no rows, a damaged file, or a row that no step can use:
            see ``relevance.data.rows``. Two rows with one key, where ``columns`` hold it.
    """
    key = KEYS.get(table, ())
    with open_table(data, table) as file:
        batches = _checked_batches(file, data, table, columns)
        if not key or not set(key) <= set(columns):
            for _ in batches:
                pass
            return
        keys = pa.Table.from_batches([batch.select(key) for batch in batches])
    check_unique(str(table_path(data, table)), keys, key)


def _checked_batches(
    file: pq.ParquetFile, data: Path, table: str, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    path = table_path(data, table)
    if file.metadata.num_rows == 0:
        raise ValueError(f"{path}: no rows, want at least one")
    known = [name for name in columns if name in TABLES[table].names]
    row = 1
    try:
        for batch in file.iter_batches(columns=list(columns)):
            rows = pa.Table.from_batches([batch]).select(known)
            check_values(str(path), rows, TABLES[table], ALLOWED, row)
            row += len(rows)
            yield batch
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: damaged after row {row - 1}: {reason}") from error


def write_table(rows: pa.Table, data: Path, table: str) -> None:
    """Write ``rows`` as ``table`` into a dataset directory under construction."""
    pq.write_table(rows.cast(TABLES[table]), table_path(data, table), compression="zstd")


def check_schema(name: str, given: pa.Schema, wanted: pa.Schema) -> None:
    """Raise ``ValueError`` on the first column of ``wanted`` that is absent or mistyped."""
    for field in wanted:
        index = given.get_field_index(field.name)
        if index < 0:
            raise ValueError(
                f"{name}: no column {field.name!r} ({field.type}); it has {', '.join(given.names)}"
            )
        found = given.field(index).type
        if _plain(found) != field.type:
            raise ValueError(f"{name}: column {field.name!r} is {found}, want {field.type}")


def _plain(kind: pa.DataType) -> pa.DataType:
    """``kind`` without what differs between writers of the same values."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_map(kind):
        return pa.map_(_plain(kind.key_type), _plain(kind.item_type))
    return kind


def write_card(card: DatasetCard, data: Path) -> None:
    """Write ``dataset.json``."""
    text = json.dumps(asdict(card), indent=2)
    (data / "dataset.json").write_text(text + "\n", encoding="utf-8")


def read_card(data: Path) -> DatasetCard:
    """Read ``dataset.json``.

    Raises:
        FileNotFoundError: ``data`` is no dataset directory.
        ValueError: The card is damaged.
    """
    path = data / "dataset.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: missing; make a dataset with `querylift import` or `querylift market`"
        )
    try:
        return DatasetCard(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, OSError) as error:
        wanted = ", ".join(field.name for field in fields(DatasetCard))
        raise ValueError(f"{path}: {error}; want a JSON object with {wanted}") from error


def data_hash(data: Path) -> str:
    """One sha256 over the card and every table, for lineage."""
    digest = hashlib.sha256()
    for path in [data / "dataset.json", *(table_path(data, table) for table in TABLES)]:
        if path.exists():
            digest.update(f"{path.name} {sha256(path)}\n".encode())
    return digest.hexdigest()


def merge(sources: Sequence[Path], out: Path) -> None:
    """Join datasets into one; what a single source has and merging leaves alone is linked.

    Each source split its own queries. Where one source holds a query out further than another
    holds a variant of it, the other loses that query, its judgments and its events. Ids of
    imported datasets begin with their name, so sources do not collide; a duplicate id, a null
    and a leak within a source are left for ``validate_data`` to report.

    Raises:
        FileNotFoundError: A source is no dataset, or lacks queries or products.
        ValueError: No source, or a table breaks its schema.
    """
    if not sources:
        raise ValueError("no dataset to merge, want one or more")
    cards = [read_card(source) for source in sources]
    leaks = _leaks(sources)
    with new_dir(out) as partial:
        for table, schema in TABLES.items():
            required = table in ("queries", "products")
            present = [source for source in sources if required or has_table(source, table)]
            dropped = leaks if "query_id" in schema.names else leaks[:0]
            if len(present) == 1 and not dropped:
                open_table(present[0], table).close()
                _link(table_path(present[0], table), table_path(partial, table))
            elif present:
                _join(present, dropped, partial, table)
        write_card(
            DatasetCard(
                name="+".join(card.name for card in cards),
                is_generated=any(card.is_generated for card in cards),
                licence="; ".join(sorted({card.licence for card in cards})),
                settings={f"{c.name}.{k}": v for c in cards for k, v in c.settings.items()}
                | {"merge.queries_dropped": len(leaks)},
            ),
            partial,
        )


def _join(sources: Sequence[Path], dropped: Sequence[str], out: Path, table: str) -> None:
    """Write the rows of all ``sources``, batch by batch, without those of queries ``dropped``."""
    # nulls pass: a report that names them all beats an error that names one
    schema = pa.schema([field.with_nullable(True) for field in TABLES[table]])
    ids = pa.array(dropped, pa.string())
    with pq.ParquetWriter(table_path(out, table), schema, compression="zstd") as writer:
        for source in sources:
            with open_table(source, table) as file:
                for batch in file.iter_batches(columns=schema.names):
                    rows = pa.Table.from_batches([batch]).cast(schema)
                    if len(ids):
                        rows = rows.filter(pc.invert(pc.is_in(rows["query_id"], value_set=ids)))
                    writer.write_table(rows)


def _leaks(sources: Sequence[Path]) -> list[str]:
    """Ids of queries of which another source holds a variant out further."""
    if len(sources) == 1:
        return []
    columns = ["query_id", "query", "split"]
    queries = [
        [
            (query_id, query, split)
            for query_id, query, split in zip(
                *(column.to_pylist() for column in _unchecked(source, columns).columns),
                strict=True,
            )
            if query is not None and split in SPLITS
        ]
        for source in sources
    ]
    strongest = most_held_out((query, split) for rows in queries for _, query, split in rows)
    own = [most_held_out((query, split) for _, query, split in rows) for rows in queries]
    return [
        query_id
        for rows, held_out in zip(queries, own, strict=True)
        for query_id, query, split in rows
        if split != strongest[query_key(query)] != held_out[query_key(query)]
    ]


def _unchecked(source: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of the queries, whatever is in their rows: a report names what is bad."""
    with open_table(source, "queries") as file:
        return file.read(columns=list(columns))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)
