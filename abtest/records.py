"""What the event log holds: events, queries, and comparisons of a shadow with the main scorer.

Events and queries are those of OpenSearch's User Behavior Insights (UBI) 1.3, with our own fields
beside them. Every event that is valid here is valid there, read with ``anyOf`` where the published
schema has ``oneOf`` for action names, which refuses each of its own.

Source: github.com/o19s/ubi, schema/1.3.0.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta, Struct

SCHEMA_VERSION: Literal[1] = 1

Moment = Annotated[datetime, Meta(tz=True)]
"""With a zone."""
Text = Annotated[str, Meta(min_length=1, max_length=100)]
UnitId = Annotated[str, Meta(min_length=1, max_length=512)]
"""Longer than UBI's 100 characters on the wire; what is kept is a hash of 32."""
ItemId = Annotated[str, Meta(min_length=1, max_length=256)]
UserQuery = Annotated[str, Meta(max_length=16_384)]
Ordinal = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Action = Literal[
    "impression",
    "click",
    "add_to_cart",
    "watch",
    "view",
    "purchase",
    "exposure",
    "contact_supplier",
    "order",
    "pay",
    "refund",
]


class Strict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What all records share."""


class Point(Strict, frozen=True, kw_only=True):
    """Of a screen."""

    x: float
    y: float


class Position(Strict, frozen=True, kw_only=True):
    """Where an event took place: exactly one of the two."""

    ordinal: Ordinal | None = None
    """Place among the results, 1 for the first; 0 for an event of no single place."""
    xy: Point | None = None


class Item(Strict, frozen=True, kw_only=True):
    """What UBI calls an object."""

    object_id: ItemId | int
    object_id_type: Text | None = None
    object_id_field: Text | None = None
    internal_id: ItemId | int | None = None


class InExperiment(Strict, frozen=True, kw_only=True):
    """The variant that a unit met."""

    experiment_id: Text
    layer: Text
    phase: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    variant: Text
    bucket: Annotated[int, Meta(ge=0, le=9_999)]
    config_version: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    model_version: Text | None = None
    """Of the scorer that answered."""
    is_fallback: bool
    """The variant's scorer did not answer; somebody else did."""
    is_forced: bool
    """Put there by hand; no part of any analysis."""


class Commerce(Strict, frozen=True, kw_only=True):
    """An order and its money."""

    order_id: Text | None = None
    amount: Annotated[float, Meta(ge=-1e12, le=1e12)] | None = None
    """In units of the currency; of a refund 0 or less."""
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] | None = None
    """ISO 4217."""
    quantity: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None


class EventAttributes(Strict, frozen=True, kw_only=True):
    """The part of an event that UBI leaves open."""

    position: Position
    object: Item | None = None
    experiment: InExperiment | None = None
    commerce: Commerce | None = None


class Event(Strict, frozen=True, kw_only=True):
    """What a shopper did, or met.

    ``event_id``, ``schema_version`` and ``received_at`` are None on the wire alone.
    """

    event_id: UUID | None = None
    """UUIDv7: two events with the same one are one event."""
    schema_version: Literal[1] | None = None
    received_at: Moment | None = None
    """By the clock of the server."""
    action_name: Action
    timestamp: Moment
    """By the clock of the client."""
    application: Text | None = None
    query_id: Text | None = None
    session_id: UnitId | None = None
    client_id: UnitId | None = None
    """The unit of an experiment; kept hashed, as are the other two ids of people."""
    user_id: UnitId | None = None
    message_type: Annotated[str, Meta(max_length=100)] | None = None
    message: Annotated[str, Meta(max_length=1_024)] | None = None
    user_query: UserQuery | None = None
    event_attributes: EventAttributes | None = None


class QueryAttributes(Strict, frozen=True, kw_only=True):
    """How a query was answered."""

    path: str
    n_items: int
    experiment_id: str | None = None
    """The experiment that chose the scorer."""
    variant: str | None = None
    scorer: str
    """Assigned."""
    answered_by: str | None = None
    """The scorer whose order was given; None: the order that was sent."""
    model_version: str | None = None
    latency_ms: float
    is_fallback: bool
    reason: str | None = None
    """Of the fallback."""


class Query(Strict, frozen=True, kw_only=True):
    """A request to rerank."""

    request_id: UUID
    """UUIDv7 of this request; pages of one query share its ``query_id``."""
    query_id: str
    timestamp: Moment
    user_query: str
    client_id: str | None = None
    query_response_id: str | None = None
    query_response_hit_ids: tuple[str, ...] = ()
    """Item ids, best first; indices where titles were sent."""
    query_attributes: QueryAttributes


class Shadow(Strict, frozen=True, kw_only=True):
    """A request's scores by the scorer that answered and by its shadow."""

    shadow_id: UUID
    """UUIDv7."""
    query_id: str
    timestamp: Moment
    client_id: str | None = None
    """So that what is known of a shopper can be found."""
    experiment_id: str
    main_scorer: str
    shadow_scorer: str
    item_keys: tuple[str, ...] = ()
    main_scores: tuple[float | None, ...] = ()
    shadow_scores: tuple[float | None, ...] = ()
    """Of the same items in the same order, None where an answer left the item out; empty after a
    failure."""
    main_ms: float
    shadow_ms: float
    failure: str | None = None


Record = Event | Query | Shadow


@dataclass(frozen=True)
class Kind:
    """A sort of record."""

    struct: type[Any]
    id_field: str
    """Of a UUIDv7; two records with the same one are one record."""
    time_field: str
    """Of duplicates the one with the smallest is kept."""
    table: str
    """Folder in the store."""


KINDS: Mapping[str, Kind] = {
    "event": Kind(Event, "event_id", "received_at", "events"),
    "query": Kind(Query, "request_id", "timestamp", "queries"),
    "shadow": Kind(Shadow, "shadow_id", "timestamp", "shadows"),
}


def exposure(
    at: datetime,
    client_id: str,
    query_id: str,
    experiment: InExperiment,
    *,
    application: str | None = None,
) -> Event:
    """The event that a unit met a variant, made where it was met."""
    return Event(
        event_id=uuid7(at),
        schema_version=SCHEMA_VERSION,
        received_at=at,
        action_name="exposure",
        timestamp=at,
        application=application,
        query_id=query_id,
        client_id=client_id,
        # UBI asks for a position of whatever has attributes
        event_attributes=EventAttributes(position=Position(ordinal=0), experiment=experiment),
    )


def uuid7(at: datetime) -> UUID:
    """A fresh UUIDv7 of a moment.

    >>> uuid7_time(uuid7(datetime(2026, 11, 5, tzinfo=UTC)))
    datetime.datetime(2026, 11, 5, 0, 0, tzinfo=datetime.timezone.utc)
    """
    random = int.from_bytes(os.urandom(10))
    version_and_variant = 0x7 << 76 | 0b10 << 62
    random &= ~(0xF << 76 | 0b11 << 62)
    return UUID(int=int(at.timestamp() * 1_000) << 80 | version_and_variant | random)


def is_uuid7(uuid: UUID) -> bool:
    """Whether a UUID is of version 7, in RFC 9562's variant."""
    return uuid.int >> 76 & 0xF == 7 and uuid.int >> 62 & 0b11 == 0b10


def uuid7_time(uuid: UUID) -> datetime:
    """The moment in a UUIDv7, to the millisecond.

    Raises:
        OverflowError, ValueError: It is beyond the year 9999.
    """
    return datetime.fromtimestamp((uuid.int >> 80) / 1_000, UTC)
