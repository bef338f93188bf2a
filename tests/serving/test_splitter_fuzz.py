"""Whatever a client sends, a shopper sees no error but those that are stated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.bodies import ARROW, JSON, MSGPACK
from serving.event_log import EventLog
from serving.limits import Limits
from serving.splitter import PATHS, Routing
from serving.splitter_app import Settings, application
from tests.serving.live import KEY, FaultyScorer, experiments, logged, served, write

STATED = {200, 400, 408, 413, 415, 422}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
NAMES = ["query", "documents", "texts", "item_ids", "top_n", "ranking_scores", "max_results", "x"]
TEXTS = st.lists(st.text(max_size=9), max_size=9)
BODIES = st.one_of(
    st.binary(max_size=200),
    st.dictionaries(st.sampled_from(NAMES), VALUES).map(json.dumps).map(str.encode),
    st.fixed_dictionaries(
        {"query": st.text(max_size=9)},
        optional={"documents": TEXTS, "texts": TEXTS, "item_ids": TEXTS, "top_n": st.integers()},
    )
    .map(json.dumps)
    .map(str.encode),
)
VALUE = st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=40).map(
    lambda text: text.encode("latin-1")
)
HEADERS = st.dictionaries(
    st.sampled_from(
        "x-client-id cookie x-query-id x-request-id traceparent accept content-encoding".split()
    ),
    VALUE,
)


@pytest.fixture(scope="module", params=["", "500", "not JSON"])
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[httpx.Client, Path]]:
    directory = tmp_path_factory.mktemp("splitter")
    scorer = FaultyScorer("1", fault=request.param)
    with served(scorer) as url, closing(EventLog.open(directory / "log")) as log:
        file = write(
            directory / "experiments.yaml", experiments({"champion": url, "challenger": url})
        )
        routing = Routing(deadline_s=20, limits=Limits(max_body_bytes=10_000))
        app = application(Settings(file, directory / "log", KEY, routing=routing), log)
        with served(app) as splitter, httpx.Client(base_url=splitter, timeout=60) as client:
            yield client, directory / "log"


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(PATHS)),
    BODIES,
    HEADERS,
    st.sampled_from([JSON, MSGPACK, ARROW, "text/plain", "application/json; charset=latin-1"]),
)
def test_no_request_makes_an_error_that_is_not_stated(
    client: tuple[httpx.Client, Path],
    path: str,
    body: bytes,
    headers: dict[str, Any],
    media_type: str,
) -> None:
    http, _ = client
    answer = http.post(path, content=body, headers=headers | {"content-type": media_type})
    assert answer.status_code in STATED
    assert answer.headers.get("x-querylift-fallback") != "internal"


def test_all_that_was_logged_can_be_read(client: tuple[httpx.Client, Path]) -> None:
    _, log = client
    for kind in ("event", "query"):
        assert all(record is not None for record in logged(log, kind))
