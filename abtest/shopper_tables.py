"""Numbers of simulated shoppers as the tables of an event log, without an object a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from abtest.assignment import Assignment
from abtest.record_tables import schema_of
from abtest.records import SCHEMA_VERSION, Event, Query
from abtest.shop import PAGE, Ints
from abtest.shoppers import ACTIONS, EXPOSURE, ORDER, PAY, REFUND

NONE = -1
_EVENTS = schema_of(Event)
_QUERIES = schema_of(Query)
_HEX = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), np.uint16)
_GROUPS = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
"""Of the digits of a UUID."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Events as numbers, one array a column. What is ``NONE`` is absent."""

    time_ms: NDArray[np.int64]
    received_ms: NDArray[np.int64]
    action: NDArray[np.int8]
    search: NDArray[np.int64]
    """Of ``Searches``."""
    item: NDArray[np.int32]
    position: NDArray[np.int8]
    """1 for the first item."""
    amount: NDArray[np.float64]
    """NaN without money."""
    met: NDArray[np.int16]
    """Of ``Names.met``."""
    bucket: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.time_ms)

    def take(self, rows: NDArray[Any]) -> Rows:
        """Rows by number or mask."""
        return Rows(*(getattr(self, field.name)[rows] for field in fields(self)))

    @staticmethod
    def join(parts: list[Rows]) -> Rows:
        """All rows of ``parts``."""
        names = [field.name for field in fields(Rows)]
        return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True, eq=False)
class Searches:
    """Who searched what, when, and met what, in order of time."""

    time_ms: NDArray[np.int64]
    bits: NDArray[np.uint64]
    """Random ones, of the ids."""
    shopper: NDArray[np.int32]
    query: NDArray[np.int32]
    met: NDArray[np.int16]
    """``Names.met`` by layer. [searches, layers]"""
    bucket: NDArray[np.int16]
    """[searches, layers]"""

    def __len__(self) -> int:
        return len(self.time_ms)


@dataclass(frozen=True, eq=False)
class Names:
    """What the numbers stand for."""

    clients: pa.StringArray
    queries: pa.StringArray
    item_ids: pa.StringArray
    met: tuple[Assignment, ...]
    """Variants that can be met; their buckets mean nothing."""
    champion: str
    config_version: int
    currency: str


def event_table(rows: Rows, bits: NDArray[np.uint64], searches: Searches, names: Names) -> pa.Table:
    """Events as the store has them.

    Args:
        rows: By time; those of one time by ``bits``.
        bits: Random ones, of the ids.
        searches: All there are.
        names: What numbers stand for.
    """
    search, count = rows.search, len(rows)
    is_money = np.isin(rows.action, (ORDER, PAY, REFUND))
    position = _struct(
        _type("event_attributes", "position"), {"ordinal": pa.array(rows.position, pa.int32())}
    )
    item = _struct(
        _type("event_attributes", "object"),
        {"object_id": names.item_ids.take(pa.array(np.maximum(rows.item, 0)))},
        rows.item == NONE,
    )
    experiment = _struct(
        _type("event_attributes", "experiment"),
        {
            **{
                field: _named([getattr(met, field) for met in names.met], rows.met)
                for field in ("experiment_id", "layer", "phase", "variant", "is_forced")
            },
            "bucket": pa.array(rows.bucket, pa.int32()),
            "config_version": _all(names.config_version, count, pa.int32()),
            "is_fallback": _all(False, count, pa.bool_()),
        },
        rows.action != EXPOSURE,
    )
    commerce = _struct(
        _type("event_attributes", "commerce"),
        {
            "order_id": _order_ids(rows, is_money),
            "amount": pa.array(rows.amount),
            "currency": _all(names.currency, count, pa.string()),
            "quantity": _all(1, count, pa.int32()),
        },
        ~is_money,
    )
    columns = {
        "event_id": uuid7_texts(rows.time_ms, bits),
        "schema_version": _all(SCHEMA_VERSION, count, pa.int32()),
        "received_at": _moments(rows.received_ms),
        "action_name": pa.array(ACTIONS, pa.string()).take(pa.array(rows.action)),
        "timestamp": _moments(rows.time_ms),
        "query_id": uuid7_texts(searches.time_ms[search], searches.bits[search]),
        "client_id": names.clients.take(pa.array(searches.shopper[search])),
        "user_query": names.queries.take(pa.array(searches.query[search])),
        "event_attributes": _struct(
            _EVENTS.field("event_attributes").type,
            {
                "position": position,
                "object": item,
                "experiment": experiment,
                "commerce": commerce,
            },
        ),
    }
    return _table(_EVENTS, columns, count)


def query_table(
    searches: Searches, rows: Ints, items: Ints, latency_ms: NDArray[np.float64], names: Names
) -> pa.Table:
    """Queries as the store has them, by id.

    Args:
        searches: All there are.
        rows: Those to tell of.
        items: That each of these showed, best first. [rows, PAGE]
        latency_ms: Of each answer. [rows]
        names: What numbers stand for.
    """
    # another id than the query's
    bits = ~searches.bits[rows]
    order = np.lexsort((bits, searches.time_ms[rows]))
    rows, items, bits, latency_ms = rows[order], items[order], bits[order], latency_ms[order]
    count, time_ms, chosen = len(rows), searches.time_ms[rows], _chosen(searches.met[rows], names)
    scorer = _named([met.scorer for met in names.met] + [names.champion], chosen)
    attributes = _struct(
        _QUERIES.field("query_attributes").type,
        {
            "path": _all("/rerank", count, pa.string()),
            "n_items": _all(PAGE, count, pa.int32()),
            "experiment_id": _named([met.experiment_id for met in names.met] + [None], chosen),
            "variant": _named([met.variant for met in names.met] + [None], chosen),
            "scorer": scorer,
            "answered_by": scorer,
            "latency_ms": pa.array(latency_ms),
            "is_fallback": _all(False, count, pa.bool_()),
        },
    )
    hits = names.item_ids.take(pa.array(items.ravel()))
    columns = {
        "request_id": uuid7_texts(time_ms, bits),
        "query_id": uuid7_texts(time_ms, ~bits),
        "timestamp": _moments(time_ms),
        "user_query": names.queries.take(pa.array(searches.query[rows])),
        "client_id": names.clients.take(pa.array(searches.shopper[rows])),
        "query_response_hit_ids": pa.ListArray.from_arrays(
            pa.array(PAGE * np.arange(count + 1, dtype=np.int32)), hits
        ),
        "query_attributes": attributes,
    }
    return _table(_QUERIES, columns, count)


def uuid7_texts(time_ms: NDArray[np.int64], bits: NDArray[np.uint64]) -> pa.StringArray:
    """UUIDv7s in the order of their times, those of one time in that of their bits.

    >>> uuid7_texts(np.array([1_793_836_800_000]), np.array([2**64 - 1], np.uint64))[0].as_py()
    '01a1a901-5800-7fff-bfff-ffffffffffff'
    """
    count = len(bits)
    halves = np.empty((count, 2), ">u8")
    halves[:, 0] = time_ms.astype(np.uint64) << np.uint64(16) | np.uint64(0x7000)
    halves[:, 0] |= bits >> np.uint64(52)
    halves[:, 1] = np.uint64(1 << 63) | (bits & np.uint64((1 << 62) - 1))
    digits = _HEX[halves.view(np.uint8).reshape(count, 16)].view(np.uint8).reshape(count, 32)
    texts = np.full((count, 36), ord("-"), np.uint8)
    for dashes, (start, end) in enumerate(_GROUPS):
        texts[:, start + dashes : end + dashes] = digits[:, start:end]
    ends = 36 * np.arange(count + 1, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(ends), pa.py_buffer(texts))


def _chosen(met: NDArray[np.int16], names: Names) -> NDArray[np.int16]:
    """Of each search's variants the one that chose the scorer.

    One layer at most has others than the champion.
    """
    is_other = np.array([one.scorer != names.champion for one in names.met] + [False])
    chosen = np.full(len(met), NONE, np.int16)
    for layer in range(met.shape[1]):
        better = (met[:, layer] != NONE) & ((chosen == NONE) | is_other[met[:, layer]])
        chosen[better] = met[better, layer]
    return chosen


def _order_ids(rows: Rows, is_money: NDArray[np.bool_]) -> pa.StringArray:
    # of a page an item is ordered once
    parts = [
        pa.array(column, mask=~is_money).cast(pa.string()) for column in (rows.search, rows.item)
    ]
    return pc.binary_join_element_wise("order", *parts, "-")


def _type(*path: str) -> pa.DataType:
    found = _EVENTS.field(path[0]).type
    for name in path[1:]:
        found = found.field(name).type
    return found


def _struct(
    kind: pa.DataType, columns: Mapping[str, pa.Array], is_null: NDArray[np.bool_] | None = None
) -> pa.StructArray:
    """A group of columns; those that are not given are null."""
    count = len(next(iter(columns.values())))
    arrays = [
        columns[field.name].cast(field.type)
        if field.name in columns
        else pa.nulls(count, field.type)
        for field in kind
    ]
    mask = None if is_null is None else pa.array(is_null)
    return pa.StructArray.from_arrays(arrays, fields=list(kind), mask=mask)


def _table(schema: pa.Schema, columns: Mapping[str, pa.Array], count: int) -> pa.Table:
    arrays = [columns.get(field.name, pa.nulls(count, field.type)) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _named(values: list[Any], numbers: Ints) -> pa.Array:
    """Values by number, where ``NONE`` is the last."""
    if not values:
        return pa.nulls(len(numbers))
    return pa.array(values).take(pa.array(np.where(numbers == NONE, len(values) - 1, numbers)))


def _all(value: Any, count: int, kind: pa.DataType) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), count)


def _moments(time_ms: NDArray[np.int64]) -> pa.Array:
    return pa.array(1_000 * time_ms).cast(pa.timestamp("us", "UTC"))
