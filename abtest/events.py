"""The event log as tables: what is read of it, for which experiment, over which windows.

Tables are Ibis expressions, so that the same rules run on DuckDB, the default, and on Spark.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import ibis
from ibis.expr.datatypes import Timestamp

from abtest.store_files import StoreFiles

MEMORY = "640MB"
"""For DuckDB; more goes to the disk. Python and what it loads come on top."""

_EVENT_COLUMNS = {
    "event_id": "event_id",
    "received_at": "received_at",
    "at": "timestamp",
    "action": "action_name",
    "application": "application",
    "query_id": "query_id",
    "client_id": "client_id",
    "client_check": "client_id",
    "item_id": "event_attributes.object.object_id",
    "experiment_id": "event_attributes.experiment.experiment_id",
    "phase": "event_attributes.experiment.phase",
    "variant": "event_attributes.experiment.variant",
    "is_fallback": "event_attributes.experiment.is_fallback",
    "is_forced": "event_attributes.experiment.is_forced",
    "order_id": "event_attributes.commerce.order_id",
    "amount": "event_attributes.commerce.amount",
    "currency": "event_attributes.commerce.currency",
}
_QUERY_COLUMNS = {
    "at": "timestamp",
    "client_id": "client_id",
    "client_check": "client_id",
    "n_items": "query_attributes.n_items",
    "latency_ms": "query_attributes.latency_ms",
    "is_fallback": "query_attributes.is_fallback",
}
_MOMENTS = ("at", "received_at")
_IDS = ("client_id", "client_check", "query_id", "item_id", "order_id")
_A_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Windows:
    """When something must happen to count.

    Raises:
        ValueError: A moment without a zone, an end that is not after the start, or a negative
            length.
    """

    start: datetime
    end: datetime
    """The first moment that is outside."""
    late_days: float = 3
    """After ``end``; a row received later is left out, so that a result stays what it was."""
    click_minutes: float = 30
    """From an impression to a click on it."""
    order_hours: float = 24
    """From a click to an order of the same item."""
    pre_days: float = 0
    """Before ``start``, for covariates."""

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            if getattr(self, name).tzinfo is None:
                raise ValueError(f"windows.{name}: {getattr(self, name)} has no zone")
        if self.end <= self.start:
            raise ValueError(f"windows.end: {self.end}, want after the start {self.start}")
        for name in ("late_days", "click_minutes", "order_hours", "pre_days"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"windows.{name}: {getattr(self, name)}, want 0 or more")

    @property
    def first(self) -> datetime:
        """Begin of the pre-period."""
        return self.start - timedelta(days=self.pre_days)

    @property
    def days(self) -> list[date]:
        """Days in UTC of which anything is read."""
        first = self.first.astimezone(UTC).date()
        last = (self.end.astimezone(UTC) - timedelta(microseconds=1)).date()
        return [first + timedelta(days=n) for n in range((last - first).days + 1)]


@dataclass(frozen=True)
class Bots:
    """Clients that are no shoppers: all their rows are dropped.

    A page of a hundred results sends a hundred impressions at once, so the bounds are far above
    the pages that a person opens.

    Raises:
        ValueError: A bound is not positive.
    """

    max_a_minute: int = 1_000
    """Events of one client in a minute of the clock."""
    max_a_day: int = 20_000
    """Events of one client in a day in UTC."""
    client_ids: frozenset[str] = frozenset()
    """Known ones, as the log has them: hashed."""

    def __post_init__(self) -> None:
        for name in ("max_a_minute", "max_a_day"):
            if getattr(self, name) < 1:
                raise ValueError(f"bots.{name}: {getattr(self, name)}, want 1 or more")


@dataclass(frozen=True)
class Study:
    """What is looked at: one phase of an experiment, and the rules."""

    experiment_id: str
    phase: int
    windows: Windows
    bots: Bots = Bots()

    def settings(self) -> dict[str, Any]:
        """As plain JSON, in a fixed order."""
        windows = {field.name: getattr(self.windows, field.name) for field in fields(Windows)}
        for name in ("start", "end"):
            windows[name] = windows[name].astimezone(UTC).isoformat()
        return {
            "experiment_id": self.experiment_id,
            "phase": self.phase,
            "windows": windows,
            "bots": {
                "max_a_minute": self.bots.max_a_minute,
                "max_a_day": self.bots.max_a_day,
                "client_ids": sorted(self.bots.client_ids),
            },
        }


class Log(NamedTuple):
    """Events and queries, one column a field.

    Moments are UTC, without a zone. Ids of clients, queries, items and orders are numbers: see
    ``hashed``. ``client_check`` is another number of the client: if one ``client_id`` has two of
    them, it stands for two clients.
    """

    events: Any
    queries: Any | None

    def between(self, start: datetime, end: datetime) -> Log:
        """Rows from ``start`` to before ``end``, both in UTC without a zone."""
        return Log(*(None if t is None else t.filter(t.at >= start, t.at < end) for t in self))


def flat_events(table: Any) -> Any:
    """Events as ``abtest.records`` has them, flat.

    Raises:
        ValueError: A column is missing, or moments have no zone.
    """
    return _flat(table, _EVENT_COLUMNS, "events")


def flat_queries(table: Any) -> Any:
    """Queries as ``abtest.records`` has them, flat."""
    return _flat(table, _QUERY_COLUMNS, "queries")


def naive(moment: datetime) -> datetime:
    """A moment as tables have it: in UTC, without the zone."""
    return moment.astimezone(UTC).replace(tzinfo=None)


@contextlib.contextmanager
def open_duckdb(memory: str = MEMORY) -> Iterator[Any]:
    """A database that lives as long as the block and spills to a directory of its own."""
    with tempfile.TemporaryDirectory() as spill:
        connection = ibis.duckdb.connect(
            memory_limit=memory, temp_directory=spill, preserve_insertion_order=False
        )
        connection.raw_sql("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
        try:
            yield connection
        finally:
            connection.disconnect()


def read_log(connection: Any, store: StoreFiles, days: list[date]) -> Log:
    """The rows of a store whose moment is in ``days``, on any engine.

    Raises:
        FileNotFoundError: The store has no events near these days.
        ValueError: A column is missing, or moments have no zone.
    """
    if not store.of("events", near(days)):
        raise FileNotFoundError(f"{store.url}/events: nothing from {min(days)} to {max(days)}")
    start = datetime(min(days).year, min(days).month, min(days).day)
    end = datetime(max(days).year, max(days).month, max(days).day) + _A_DAY

    def read(table: str) -> Any:
        return _between(scan(connection, store, table, near(days)), start, end)

    has_queries = bool(store.of("queries", near(days)))
    return Log(flat_events(read("events")), flat_queries(read("queries")) if has_queries else None)


def scan(connection: Any, store: StoreFiles, table: str, days: list[date]) -> Any:
    """A table of the store as its files of some days have it, on any engine."""
    if connection.name != "duckdb":
        there = [f"date={day}" for day in days if store.of(table, [day])]
        return connection.read_parquet(f"{store.url}/{table}/{{{','.join(there)}}}/*.parquet")
    store.attach(connection)
    # Ibis's own would load an extension for S3, which fsspec reads already
    name = ibis.util.gen_name("stored")
    files = store.of(table, days)
    connection.raw_sql(f"CREATE TEMP VIEW {name} AS SELECT * FROM read_parquet({files})")
    return connection.table(name)


def near(days: list[date]) -> list[date]:
    """Days whose folders may have rows of some days: what is identified may be a day off."""
    first, last = min(days) - _A_DAY, max(days) + _A_DAY
    return [first + n * _A_DAY for n in range((last - first).days + 1)]


def _between(table: Any, start: datetime, end: datetime) -> Any:
    # on the column as it is stored: files say between which moments they are
    type_ = table.timestamp.type()
    zone = None if type_.timezone is None else UTC
    first, last = (ibis.literal(at.replace(tzinfo=zone), type=type_) for at in (start, end))
    return table.filter(table.timestamp >= first, table.timestamp < last)


def _flat(table: Any, columns: Mapping[str, str], name: str) -> Any:
    flat, engine = {}, table.get_backend().name
    for column, path in columns.items():
        value = table
        for part in path.split("."):
            names = value.columns if value is table else value.type().names
            if part not in names:
                raise ValueError(f"{name}: no column {path}; want the columns of abtest.records")
            value = value[part]
        if column in _MOMENTS:
            # what Spark calls a timestamp is an instant
            if value.type().timezone is None and engine == "duckdb":
                raise ValueError(f"{name}.{path}: moments without a zone, want UTC")
            value = _in_utc(value, engine)
        if column == "client_check":
            value = value.reverse()
        flat[column] = hashed(value, engine) if column in _IDS else value
    return table.select(**flat)


def _in_utc(moment: Any, engine: str) -> Any:
    # DuckDB's own cast asks a calendar for each row, which takes longer than all else
    return _make_timestamp(_epoch_us(moment)) if engine == "duckdb" else moment.cast("timestamp")


def hashed(id_: Any, engine: str) -> Any:
    """An id as a number of 64 bits, by the engine's own hash; nothing stays nothing.

    Numbers are joined and grouped in a third of the time of texts, and a third of the memory. Two
    of five million clients have the same number once in a million logs, which is refused: see
    ``Log``.
    """
    number = _hash(id_) if engine == "duckdb" else _xxhash64(id_)
    return ibis.ifelse(id_.isnull(), ibis.null(), number)


@ibis.udf.scalar.builtin(name="hash", signature=(("string",), "uint64"))
def _hash(text):  # type: ignore[no-untyped-def]
    """DuckDB's."""


@ibis.udf.scalar.builtin(name="xxhash64", signature=(("string",), "int64"))
def _xxhash64(text):  # type: ignore[no-untyped-def]
    """Spark's."""


@ibis.udf.scalar.builtin(name="epoch_us", signature=((Timestamp("UTC"),), "int64"))
def _epoch_us(moment):  # type: ignore[no-untyped-def]
    """DuckDB's: microseconds since 1970."""


@ibis.udf.scalar.builtin(name="make_timestamp", signature=(("int64",), Timestamp()))
def _make_timestamp(microseconds):  # type: ignore[no-untyped-def]
    """DuckDB's: a moment without a zone."""
