"""POST /v1/events: a defined answer to whatever is sent, and nothing kept that was refused."""

import asyncio
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from abtest.event_door import Door
from abtest.records import Event
from serving import segments
from serving.bodies import JSON
from serving.collector import Collector
from serving.event_log import EventLog, Spool
from serving.limits import Limits
from serving.privacy import hashed
from tests.serving.collecting import KEY, event, id_of


class Collecting:
    """A collector, a client of it, and what its log holds."""

    def __init__(self, spool: Path, *, least_free: int = 1) -> None:
        self.spool = spool
        self.log = EventLog.open(spool, Spool(min_free_bytes=least_free))
        limits = Limits(max_body_bytes=20_000, max_inflated_bytes=30_000)
        self.collector = Collector(self.log, KEY, Door(max_events=50), limits)
        app = Starlette(routes=[Route("/v1/events", self.collector.post, methods=["POST"])])
        self.client = TestClient(app, raise_server_exceptions=True)

    def post(self, sent: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        content = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
        headers = {"content-type": JSON} | headers
        answer = self.client.post("/v1/events", content=content, headers=headers)
        return answer.status_code, answer.json()

    def logged(self) -> list[Event]:
        return [
            msgspec.json.decode(line.content, type=Event)
            for segment in segments.segments(self.spool)
            for line in segments.read_lines(segment.path)
            if line is not None
        ]


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collecting]:
    collecting = Collecting(tmp_path / "log")
    yield collecting
    collecting.log.close()


def test_an_event_is_kept_with_hashed_ids_and_masked_texts(collecting: Collecting) -> None:
    sent = event(
        client_id="shopper-ü",
        user_id="u",
        session_id="s",
        user_query="mail anna@example.com",
        message="call +49 30 1234567",
    )
    assert collecting.post(sent) == (200, {"accepted": 1, "refused": []})
    (got,) = collecting.logged()
    assert got.event_id == id_of(sent)
    assert got.client_id == hashed("shopper-ü", KEY)
    assert (got.user_id, got.session_id) == (hashed("u", KEY), hashed("s", KEY))
    assert (got.user_query, got.message) == ("mail [e-mail]", "call [phone]")
    assert got.received_at is not None
    assert got.received_at >= got.timestamp
    assert got.schema_version == 1
    raw = b"".join(path.read_bytes() for path in collecting.spool.iterdir())
    assert "shopper-ü".encode() not in raw
    assert b"anna" not in raw


def test_what_was_answered_is_on_the_disk(collecting: Collecting) -> None:
    collecting.post([event(), event()])
    stats = collecting.log.stats()
    assert (stats.written, stats.synced) == (2, 2)


def test_good_events_are_kept_and_bad_ones_named_by_index(collecting: Collecting) -> None:
    good = [event(), event()]
    bad = [event(action_name="clik"), {"action_name": "click"}, 7, event(query="velvet")]
    status, answer = collecting.post([bad[0], good[0], *bad[1:], good[1]])
    assert (status, answer["accepted"]) == (200, 2)
    assert [refused["index"] for refused in answer["refused"]] == [0, 2, 3, 4]
    assert "want impression, click" in answer["refused"][0]["error"]
    assert [each.event_id for each in collecting.logged()] == [id_of(each) for each in good]
    assert (collecting.collector.accepted, collecting.collector.refused) == (2, 4)


def test_half_of_a_surrogate_pair_is_one_event_s_fault(collecting: Collecting) -> None:
    status, answer = collecting.post([event(), event(user_query="sofa \ud83d"), event()])
    assert (status, answer["accepted"]) == (200, 2)
    assert [refused["index"] for refused in answer["refused"]] == [1]


def test_only_bad_events_are_422_and_none_is_200(collecting: Collecting) -> None:
    status, answer = collecting.post(event(client_id=""))
    assert (status, answer["accepted"], len(answer["refused"])) == (422, 0, 1)
    assert collecting.post([]) == (200, {"accepted": 0, "refused": []})


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"7", b'"a"', b"[" * 9_000, b"\xff", b"[}"])
def test_a_body_that_is_no_event_and_no_list_is_400(collecting: Collecting, body: bytes) -> None:
    assert collecting.post(body)[0] == 400


def test_bodies_have_limits(collecting: Collecting) -> None:
    assert collecting.post(b" " * 20_001)[0] == 413
    assert collecting.post([{}] * 51)[0] == 413
    assert collecting.post(gzip.compress(b" " * 30_001), **{"content-encoding": "gzip"})[0] == 413
    assert collecting.post(b"no", **{"content-encoding": "gzip"})[0] == 400
    assert collecting.post(b"[]", **{"content-encoding": "br"})[0] == 415
    assert collecting.post(b"[]", **{"content-type": "text/plain"})[0] == 415


def test_bodies_may_be_gzipped(collecting: Collecting) -> None:
    body = gzip.compress(json.dumps([event()] * 3).encode())
    assert collecting.post(body, **{"content-encoding": "gzip"})[1]["accepted"] == 3


def test_a_full_log_is_503_and_says_when_to_come_back(tmp_path: Path) -> None:
    collecting = Collecting(tmp_path / "log", least_free=2**62)
    answer = collecting.client.post("/v1/events", json=[event(), event()])
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert collecting.log.stats().refused == 2
    assert collecting.collector.turned_away == 1
    assert collecting.collector.accepted == 0
    collecting.log.close()


def test_many_clients_share_a_sync(collecting: Collecting) -> None:
    async def post(count: int) -> None:
        positions = [collecting.log.append([]) for _ in range(count)]
        await asyncio.gather(*map(collecting.log.synced, positions))

    asyncio.run(post(100))


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ALMOST_EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "event_id": st.sampled_from(["x", str(id_of(event()))]) | JSONS,
        "action_name": st.sampled_from(["click", "pay", "exposure", "refund"]) | JSONS,
        "timestamp": st.sampled_from([event()["timestamp"], "2026-11-05", "9999-12-31T23:59:60Z"])
        | st.datetimes().map(str)
        | JSONS,
        "client_id": st.text() | JSONS,
        "user_query": st.text() | JSONS,
        "event_attributes": st.fixed_dictionaries(
            {"position": st.fixed_dictionaries({"ordinal": st.integers(-1, 3)}) | JSONS},
            optional={
                "object": st.fixed_dictionaries({"object_id": st.integers() | st.text()}) | JSONS,
                "commerce": st.fixed_dictionaries({"amount": st.floats() | st.integers()}) | JSONS,
                "experiment": JSONS,
            },
        )
        | JSONS,
    },
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sent=st.lists(ALMOST_EVENTS | JSONS, max_size=4) | ALMOST_EVENTS | JSONS)
def test_whatever_is_sent_each_event_is_kept_or_refused(collecting: Collecting, sent: Any) -> None:
    before = len(collecting.logged())
    status, answer = collecting.post(sent)
    assert status in (200, 400, 413, 422)
    if "accepted" in answer:
        count = len(sent) if isinstance(sent, list) else 1
        assert answer["accepted"] + len(answer["refused"]) == count
        assert len(collecting.logged()) - before == answer["accepted"]
    else:
        assert set(answer) == {"message"}


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    body=st.binary(max_size=40)
    | st.sampled_from([b"[", b"{"]).flatmap(
        lambda first: st.binary(max_size=40).map(lambda rest: first + rest)
    )
)
def test_whatever_bytes_are_sent_there_is_an_answer(collecting: Collecting, body: bytes) -> None:
    assert collecting.post(body)[0] in (200, 400, 422)
