"""Records and their door: valid UBI 1.3 and our profile go in, everything else has a reason."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID, uuid4

import jsonschema
import msgspec
import pyarrow as pa
import pytest

from abtest.event_door import Door, Malformed, Refused, TooMany, decode_events
from abtest.record_tables import schema_of, table_of
from abtest.records import (
    KINDS,
    Action,
    Event,
    InExperiment,
    Query,
    QueryAttributes,
    exposure,
    is_uuid7,
    uuid7,
    uuid7_time,
)

NOW = datetime(2026, 11, 5, 12, 30, 15, 123_456, tzinfo=UTC)
CORNER = {"position": {"ordinal": 0}}
MONEY = {"order_id": "O1", "amount": 12.5, "currency": "EUR"}
MET = {
    "experiment_id": "e",
    "layer": "ranking",
    "phase": 1,
    "variant": "control",
    "bucket": 9_999,
    "config_version": 7,
    "is_fallback": False,
    "is_forced": False,
}

# github.com/o19s/ubi, schema/1.3.0/event.schema.json, with anyOf for oneOf where an action's name
# would otherwise match both branches
TEXT = {"type": "string", "maxLength": 100}
UBI_EVENT = {
    "type": "object",
    "required": ["action_name", "timestamp"],
    "properties": {
        "application": TEXT,
        "action_name": {"anyOf": [{"enum": ["add_to_cart", "click"]}, TEXT]},
        "query_id": TEXT,
        "session_id": TEXT,
        "client_id": TEXT,
        "user_id": TEXT,
        "timestamp": {"type": "string", "format": "date-time"},
        "message_type": TEXT,
        "message": {"type": "string", "maxLength": 1_024},
        "event_attributes": {
            "type": "object",
            "required": ["position"],
            "properties": {
                "object": {
                    "type": "object",
                    "required": ["object_id"],
                    "properties": {
                        "object_id": {
                            "anyOf": [{"type": "string", "maxLength": 256}, {"type": "integer"}]
                        },
                        "object_id_type": TEXT,
                        "object_id_field": TEXT,
                    },
                },
                "position": {
                    "type": "object",
                    "oneOf": [
                        {
                            "properties": {"ordinal": {"type": "integer"}},
                            "required": ["ordinal"],
                        },
                        {
                            "properties": {
                                "xy": {
                                    "type": "object",
                                    "properties": {
                                        "x": {"type": "number"},
                                        "y": {"type": "number"},
                                    },
                                    "required": ["x", "y"],
                                }
                            },
                            "required": ["xy"],
                        },
                    ],
                },
            },
        },
    },
}


def click(**fields: Any) -> dict[str, Any]:
    """A click as it is sent; None leaves a field out."""
    sent = {
        "event_id": str(uuid7(NOW)),
        "action_name": "click",
        "timestamp": NOW.isoformat(),
        "client_id": "shopper-ü",
        "event_attributes": {"position": {"ordinal": 1}, "object": {"object_id": "A1"}},
        **fields,
    }
    return {name: value for name, value in sent.items() if value is not None}


def about(action: str, **attributes: Any) -> dict[str, Any]:
    return click(action_name=action, event_attributes=CORNER | attributes)


def let_in(sent: Any, door: Door | None = None) -> Event | Refused:
    (answer,) = decode_events(json.dumps(sent).encode(), NOW, door or Door())
    return answer


def kept(sent: Any) -> Event:
    answer = let_in(sent)
    assert isinstance(answer, Event), answer
    return answer


GOOD = [
    click(),
    click(event_id=None),
    click(client_id=None, query_id="q", application="shop", message_type="QUERY", message="m"),
    click(timestamp="2026-11-05T13:30:15+01:00"),
    click(timestamp="2026-11-05T12:30:15Z"),
    about("impression", position={"xy": {"x": 1.5, "y": 2}}, object={"object_id": 12}),
    about("watch"),
    click(action_name="view", event_attributes=None),
    about("exposure", experiment=MET),
    about("exposure", experiment=MET | {"model_version": "abc"}),
    about("pay", commerce=MONEY),
    about("order", commerce=MONEY | {"amount": 0, "quantity": 3}),
    about("refund", commerce=MONEY | {"amount": -12.5}),
]

BAD = [
    (click(action_name=None), "missing required field `action_name`"),
    (click(timestamp=None), "missing required field `timestamp`"),
    (click(action_name="clik"), f"want {', '.join(get_args(Action))}"),
    (click(query="sofa"), "unknown field `query`"),
    (click(timestamp="2026-11-05T12:30:15"), "timezone"),
    (click(timestamp="yesterday"), "timestamp"),
    (click(timestamp="2026-11-05T12:35:16Z"), "ahead of the server; want 0:05:00"),
    (click(timestamp="2026-10-06T12:30:14Z"), "ago; want 30 days"),
    (click(timestamp="0001-01-01T00:00:00+14:00"), "ago; want 30 days"),
    (click(timestamp="9999-12-31T23:59:59-14:00"), "ahead of the server"),
    (click(received_at=NOW.isoformat()), "received_at: given"),
    (click(schema_version=2), "schema_version"),
    (click(event_id="1"), "Invalid UUID"),
    (click(event_id=str(uuid4())), "of version 4, want a UUIDv7"),
    (click(event_id=str(uuid7(NOW - timedelta(days=1, minutes=1)))), "more than a day from"),
    (click(event_id="ffffffff-ffff-7fff-bfff-ffffffffffff"), "after the year 9999"),
    (click(client_id=""), "length >= 1"),
    (click(client_id="x" * 513), "length <= 512"),
    (click(client_id=5), "client_id"),
    (click(query_id="q" * 101), "length <= 100"),
    (click(message="m" * 1_025), "length <= 1024"),
    (click(event_attributes={}), "missing required field `position`"),
    (click(event_attributes={"position": {}}), "exactly one of ordinal and xy"),
    (
        about("view", position={"ordinal": 1, "xy": {"x": 1, "y": 2}}),
        "exactly one of ordinal and xy",
    ),
    (about("view", position={"ordinal": -1}), ">= 0"),
    (about("view", position={"xy": {"x": 1}}), "missing required field `y`"),
    (about("click"), "event_attributes.object: none; click wants one"),
    (about("click", object={}), "missing required field `object_id`"),
    (about("exposure"), "event_attributes.experiment: none"),
    (about("exposure", experiment=MET) | {"client_id": None}, "client_id"),
    (about("exposure", experiment=MET | {"bucket": 10_000}), "<= 9999"),
    (about("pay"), "event_attributes.commerce: none; pay wants one"),
    (about("pay", commerce={"order_id": "O1", "amount": 1}), "currency: none"),
    (about("pay", commerce=MONEY | {"currency": "euro"}), "currency"),
    (about("pay", commerce=MONEY | {"amount": -1}), "pay wants 0 or more"),
    (about("pay", commerce=MONEY | {"amount": float("nan")}), "not JSON compliant"),
    (about("pay", commerce=MONEY | {"amount": float("inf")}), "not JSON compliant"),
    (about("pay", commerce=MONEY | {"amount": "12"}), "amount"),
    (about("refund", commerce=MONEY), "a refund wants 0 or less"),
    (click(user_query="sofa \ud83d"), "surrogate"),
    (7, "Expected `object`"),
]


@pytest.mark.parametrize("sent", GOOD)
def test_a_good_event_is_kept_and_valid_in_ubi(sent: dict[str, Any]) -> None:
    event = kept(sent)
    assert event.received_at == NOW
    assert event.schema_version == 1
    assert event.timestamp == datetime.fromisoformat(sent["timestamp"])
    assert event.event_id is not None
    assert is_uuid7(event.event_id)
    if "event_id" in sent:
        assert event.event_id == UUID(sent["event_id"])
    stored = json.loads(msgspec.json.encode(event))
    jsonschema.validate(stored, UBI_EVENT)
    assert msgspec.json.decode(msgspec.json.encode(event), type=Event) == event
    assert table_of([msgspec.json.encode(event)], Event)["event_id"].to_pylist() == [
        str(event.event_id)
    ]


@pytest.mark.parametrize(("sent", "reason"), BAD, ids=range(len(BAD)))
def test_a_bad_event_is_refused_for_a_reason(sent: Any, reason: str) -> None:
    body = json.dumps([click(), sent, click()]).encode()
    first, answer, last = decode_events(body, NOW, Door())
    assert isinstance(first, Event)
    assert isinstance(last, Event)
    assert isinstance(answer, Refused), answer
    assert reason in answer.error
    assert answer.index == 1


def test_an_id_in_another_spelling_is_the_same_id() -> None:
    event_id = uuid7(NOW)
    assert kept(click(event_id=event_id.hex.upper())).event_id == event_id


def test_an_event_without_an_id_gets_one_of_its_own_time() -> None:
    early = click(event_id=None, timestamp="2026-10-20T00:00:00Z")
    event_id = kept(early).event_id
    assert event_id is not None
    assert uuid7_time(event_id) == datetime(2026, 10, 20, tzinfo=UTC)


def test_whole_numbers_that_name_items_become_texts() -> None:
    attributes = kept(about("click", object={"object_id": 12, "internal_id": 3})).event_attributes
    assert attributes is not None
    assert attributes.object is not None
    assert (attributes.object.object_id, attributes.object.internal_id) == ("12", "3")


def test_one_bad_byte_is_one_event_s_fault() -> None:
    bad = json.dumps(click(user_query="sofa")).encode().replace(b"sofa", b"so\xffa")
    body = b"[" + json.dumps(click()).encode() + b"," + bad + b"]"
    assert [type(answer) for answer in decode_events(body, NOW, Door())] == [Event, Refused]


@pytest.mark.parametrize("body", [b"", b"[", b"{", b"5", b"null", b"[" * 99_999, b'{"a":' * 99_999])
def test_a_body_that_holds_no_events_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        decode_events(body, NOW, Door())


def test_a_list_may_be_empty_but_not_too_long() -> None:
    assert decode_events(b"[]", NOW, Door()) == []
    with pytest.raises(TooMany, match="3 events in one request; want 2 at most"):
        decode_events(b"[{},{},{}]", NOW, Door(max_events=2))


def test_clocks_may_differ_by_what_the_door_is_told() -> None:
    door = Door(max_ahead=timedelta(hours=1), max_age=timedelta(hours=1))
    assert isinstance(let_in(click(timestamp="2026-11-05T13:30:00Z"), door), Event)
    assert isinstance(let_in(click(timestamp="2026-11-05T11:29:00Z"), door), Refused)


def test_ids_sort_by_time_and_say_it() -> None:
    ids = [uuid7(NOW + timedelta(milliseconds=step)) for step in range(100)]
    assert sorted(map(str, ids)) == [str(each) for each in ids]
    assert all(map(is_uuid7, ids))
    assert {each.version for each in ids} == {7}
    assert uuid7_time(ids[0]) == NOW.replace(microsecond=123_000)
    assert not is_uuid7(uuid4())


def test_an_exposure_made_here_passes_the_door() -> None:
    made = exposure(NOW, "shopper-1", "query-1", msgspec.convert(MET, InExperiment))
    sent = msgspec.structs.replace(made, received_at=None, schema_version=None)
    event = kept(msgspec.to_builtins(sent))
    assert event == msgspec.structs.replace(made, received_at=NOW)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_has_its_columns_and_its_id(kind: Any) -> None:
    schema = schema_of(kind.struct)
    assert schema.names == [field.name for field in msgspec.structs.fields(kind.struct)]
    assert schema.field(kind.id_field).type == pa.string()
    assert schema.field(kind.time_field).type == pa.timestamp("us", "UTC")
    assert table_of([], kind.struct).num_rows == 0


def test_lists_and_long_lines_become_columns() -> None:
    hits = tuple(f"item-{number}" for number in range(100_000))
    query = Query(
        request_id=uuid7(NOW),
        query_id="q",
        timestamp=NOW,
        user_query="velvet sofa\n",
        query_response_hit_ids=hits,
        query_attributes=QueryAttributes(
            path="/rerank", n_items=100_000, scorer="bert", latency_ms=1.0, is_fallback=False
        ),
    )
    (row,) = table_of([msgspec.json.encode(query)], Query).to_pylist()
    assert tuple(row["query_response_hit_ids"]) == hits
    assert row["timestamp"] == NOW
    assert row["user_query"] == "velvet sofa\n"


def test_a_field_that_no_record_has_is_refused() -> None:
    with pytest.raises(pa.ArrowInvalid):
        table_of([b'{"event_id":"a","other":1}'], Event)
