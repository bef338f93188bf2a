"""From the bytes that a client sends to events that may be kept.

One bad event never spoils those sent with it: each has an answer of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import get_args
from uuid import UUID

import msgspec

from abtest.records import (
    SCHEMA_VERSION,
    Action,
    Event,
    EventAttributes,
    is_uuid7,
    uuid7,
    uuid7_time,
)

ABOUT_AN_ITEM = frozenset({"impression", "click", "add_to_cart", "contact_supplier"})
ABOUT_MONEY = frozenset({"order", "pay", "refund"})

_EVENT = msgspec.json.Decoder(Event)
_EVENTS = msgspec.json.Decoder(list[Event])
_A_DAY = timedelta(days=1)
_MAX_ERROR = 300


class Malformed(ValueError):
    """A body that is neither an event nor a list of events, so that none can be told apart."""


class TooMany(ValueError):
    """A list of more events than are taken at once."""


@dataclass(frozen=True)
class Door:
    """Which events are let in."""

    max_events: int = 1_000
    """Of one request; thousands decode in milliseconds, which other requests wait for."""
    max_ahead: timedelta = timedelta(minutes=5)
    """Of the client's clock before the server's."""
    max_age: timedelta = timedelta(days=30)


@dataclass(frozen=True)
class Refused:
    """An event that is not kept."""

    index: int
    """Place in the list that was sent."""
    error: str


def decode_events(body: bytes, now: datetime, door: Door) -> list[Event | Refused]:
    """Events of a JSON body, in its order, each complete or refused.

    An event without an id gets one here; sent again it counts again.

    Args:
        body: One event or a list of them.
        now: The server's clock, in UTC.
        door: What is let in.

    Raises:
        Malformed: The body is no JSON, or no event and no list.
        TooMany: The list is too long.
    """
    sent: Sequence[object]
    is_list = body.lstrip()[:1] == b"["
    try:
        # nearly always all are well, and one call reads them
        sent = _EVENTS.decode(body) if is_list else [_EVENT.decode(body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        sent = _apart(body, is_list=is_list)
    if len(sent) > door.max_events:
        raise TooMany(f"{len(sent):,} events in one request; want {door.max_events:,} at most")
    return [_let_in(index, event, now, door) for index, event in enumerate(sent)]


def _apart(body: bytes, *, is_list: bool) -> list[object]:
    """The events of a body in which something is wrong, none checked yet.

    Python reads what is nearly JSON too, such as NaN and half of a surrogate pair, which browsers
    do send: so it is one event's fault and not that of all.
    """
    try:
        read = json.loads(body.decode(errors="surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the body is no JSON: {_said(error)}") from None
    if is_list:
        assert isinstance(read, list)
        return read
    if isinstance(read, dict):
        return [read]
    raise Malformed("the body is JSON, but no event and no list of events")


def _let_in(index: int, sent: object, now: datetime, door: Door) -> Event | Refused:
    try:
        if not isinstance(sent, Event):
            sent = _EVENT.decode(json.dumps(sent, allow_nan=False, ensure_ascii=False).encode())
        return _complete(sent, now, door)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        return Refused(index, _said(error))


def _complete(event: Event, now: datetime, door: Door) -> Event:
    """An event as it is kept but for its ids and texts, which are not private yet.

    Raises:
        ValueError: What is wrong with it.
    """
    if event.received_at is not None:
        raise ValueError("received_at: given, but it is the server's to say; want none")
    age = now - event.timestamp
    if age < -door.max_ahead:
        raise ValueError(f"timestamp: {-age} ahead of the server; want {door.max_ahead} at most")
    if age > door.max_age:
        raise ValueError(f"timestamp: {age} ago; want {door.max_age} at most")
    at = event.timestamp.astimezone(UTC)
    event_id = uuid7(at) if event.event_id is None else event.event_id
    if not is_uuid7(event_id):
        raise ValueError(f"event_id: {event_id} is of version {event_id.version}, want a UUIDv7")
    # the id's time chooses the folder, so that all copies of an event meet in one
    if not at - _A_DAY <= _time_in(event_id) <= at + _A_DAY:
        raise ValueError("event_id: made more than a day from the timestamp")
    _check_attributes(event)
    return msgspec.structs.replace(
        event,
        event_id=event_id,
        schema_version=SCHEMA_VERSION,
        received_at=now,
        timestamp=at,
        event_attributes=_with_text_ids(event.event_attributes),
    )


def _time_in(event_id: UUID) -> datetime:
    try:
        return uuid7_time(event_id)
    except (OverflowError, ValueError):
        raise ValueError("event_id: made after the year 9999") from None


def _check_attributes(event: Event) -> None:
    action, attributes = event.action_name, event.event_attributes
    if attributes is not None:
        position = attributes.position
        if (position.ordinal is None) == (position.xy is None):
            raise ValueError("event_attributes.position: want exactly one of ordinal and xy")
    if action in ABOUT_AN_ITEM and (attributes is None or attributes.object is None):
        raise ValueError(f"event_attributes.object: none; {action} wants one")
    if action == "exposure":
        if attributes is None or attributes.experiment is None:
            raise ValueError("event_attributes.experiment: none; exposure wants one")
        if event.client_id is None:
            raise ValueError("client_id: none; exposure wants one")
    if action in ABOUT_MONEY:
        _check_money(event)


def _check_money(event: Event) -> None:
    action, attributes = event.action_name, event.event_attributes
    commerce = None if attributes is None else attributes.commerce
    if commerce is None:
        raise ValueError(f"event_attributes.commerce: none; {action} wants one")
    for name in ("order_id", "amount", "currency"):
        if getattr(commerce, name) is None:
            raise ValueError(f"event_attributes.commerce.{name}: none; {action} wants one")
    assert commerce.amount is not None
    if action == "refund" and commerce.amount > 0:
        raise ValueError(f"commerce.amount: {commerce.amount:g}; a refund wants 0 or less")
    if action != "refund" and commerce.amount < 0:
        raise ValueError(f"commerce.amount: {commerce.amount:g}; {action} wants 0 or more")


def _with_text_ids(attributes: EventAttributes | None) -> EventAttributes | None:
    """The same, with ids of items as texts: UBI lets them be whole numbers too."""
    if attributes is None or attributes.object is None:
        return attributes
    item = attributes.object
    if not (isinstance(item.object_id, int) or isinstance(item.internal_id, int)):
        return attributes
    item = msgspec.structs.replace(
        item,
        object_id=str(item.object_id),
        internal_id=None if item.internal_id is None else str(item.internal_id),
    )
    return msgspec.structs.replace(attributes, object=item)


def _said(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, UnicodeEncodeError):
        return "a text is not UTF-8, or has half of a surrogate pair"
    if str(error).endswith("`$.action_name`"):
        return f"{error}; want {', '.join(get_args(Action))}"
    return str(error)[:_MAX_ERROR]
