"""The API against a scorer whose answers are known."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import math
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from serving.answers import NotReady, Overloaded, TooLate
from serving.api import application
from serving.bodies import ARROW, JSON, MSGPACK
from serving.limits import Limits
from serving.logs import JsonFormatter
from tests.serving.fake import TITLES, FakeAnswering, answer, overlap

LIMITS = Limits(
    max_documents=50, max_text_bytes=1_000, max_body_bytes=20_000, max_inflated_bytes=30_000
)
DOCUMENTS = ["Garden Hose", "Velvet Sofa", "Velvet Cushion", "Green Sofa"]
RERANKS = ["/rerank", "/v1/rerank", "/v2/rerank"]


@pytest.fixture
def fake() -> FakeAnswering:
    return FakeAnswering()


@pytest.fixture
def client(fake: FakeAnswering) -> Iterator[TestClient]:
    with TestClient(application(lambda: fake, LIMITS)) as client:
        yield client


def probabilities(query: str, titles: list[str]) -> list[float]:
    scores = np.array([overlap(query, title) for title in titles], np.float32)
    return answer(scores, 0, 0).probabilities.tolist()


def cohere(**fields: Any) -> dict[str, Any]:
    return {"query": "velvet sofa", "documents": DOCUMENTS, **fields}


def tei(**fields: Any) -> dict[str, Any]:
    return {"query": "velvet sofa", "texts": DOCUMENTS, **fields}


def relevance(**fields: Any) -> dict[str, Any]:
    return {"query": "velvet office", "item_ids": ["A4", "A1", "A2", "A3"], **fields}


# Cohere and Jina


@pytest.mark.parametrize("path", RERANKS)
def test_documents_are_sorted_by_probability_and_ties_by_index(
    client: TestClient, path: str
) -> None:
    got = client.post(path, json=cohere(model="any")).json()
    assert [result["index"] for result in got["results"]] == [1, 2, 3, 0]
    expected = probabilities("velvet sofa", DOCUMENTS)
    assert got["results"] == [{"index": i, "relevance_score": expected[i]} for i in (1, 2, 3, 0)]
    assert set(got) == {"id", "model", "results", "usage", "meta"}
    assert got["model"] == "shop-relevance"
    assert got["usage"] == {"total_tokens": 16}
    assert got["meta"] == {
        "api_version": {"version": "2" if path == "/v2/rerank" else "1"},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": 16, "output_tokens": 0},
    }


@pytest.mark.parametrize(("top_n", "count"), [(None, 4), (0, 4), (1, 1), (3, 3), (9, 4)])
def test_top_n_keeps_the_best(client: TestClient, top_n: int | None, count: int) -> None:
    results = client.post("/rerank", json=cohere(top_n=top_n)).json()["results"]
    assert [result["index"] for result in results] == [1, 2, 3, 0][:count]


def test_documents_may_be_objects_and_come_back_where_asked(client: TestClient) -> None:
    documents = ["Garden Hose", {"text": "Velvet Sofa"}]
    body = cohere(documents=documents, return_documents=True)
    results = client.post("/v2/rerank", json=body).json()["results"]
    assert [result["document"] for result in results] == [
        {"text": "Velvet Sofa"}, {"text": "Garden Hose"},
    ]  # fmt: skip


def test_what_coheres_clients_may_add_is_taken(client: TestClient) -> None:
    more = {"max_tokens_per_doc": 4096, "max_chunks_per_doc": None, "rank_fields": ["text"]}
    assert client.post("/v2/rerank", json=cohere(**more)).status_code == 200


# text-embeddings-inference


def test_texts_are_answered_as_a_sorted_list(client: TestClient) -> None:
    expected = probabilities("velvet sofa", DOCUMENTS)
    got = client.post("/rerank", json=tei()).json()
    assert got == [{"index": i, "score": expected[i]} for i in (1, 2, 3, 0)]


def test_raw_scores_and_texts_come_where_asked(client: TestClient) -> None:
    got = client.post("/rerank", json=tei(raw_scores=True, return_text=True)).json()
    assert got == [
        {"index": i, "score": overlap("velvet sofa", DOCUMENTS[i]), "text": DOCUMENTS[i]}
        for i in (1, 2, 3, 0)
    ]


def test_a_text_beyond_the_caps_is_cut_unless_truncate_is_false(client: TestClient) -> None:
    long = tei(texts=["word " * 40])
    assert client.post("/rerank", json=long).status_code == 200
    assert client.post("/rerank", json=long | {"truncate": True}).status_code == 200
    got = client.post("/rerank", json=long | {"truncate": False})
    assert got.status_code == 413
    assert got.json()["error_type"] == "Validation"


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (tei(texts=[]), 400, "Empty"),
        (tei(query=" "), 400, "Empty"),
        (tei(texts=["a"] * 51), 413, "Validation"),
        (tei(texts=[None]), 422, "Validation"),
        (tei(documents=["a"]), 422, "Validation"),
    ],
)
def test_errors_of_texts_have_their_own_shape(
    client: TestClient, body: dict[str, Any], status: int, kind: str
) -> None:
    got = client.post("/rerank", json=body)
    assert got.status_code == status
    assert set(got.json()) == {"error", "error_type"}
    assert got.json()["error_type"] == kind


# pairs


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
def test_pairs_are_scored_in_the_order_asked(client: TestClient, kind: str) -> None:
    pairs = [{"query": "velvet", "title": "Hose"}, {"query": "hose", "title": "Garden Hose"}]
    content = encode({"pairs": pairs}, kind)
    got = decode(client.post("/score", content=content, headers={"content-type": kind}))
    assert got["scores"] == [-2.0, 2.0]
    assert got["probabilities"] == probabilities("hose", ["none", "hose"])
    assert got["version"] == "0123456789abcdef"


def test_an_empty_query_among_pairs_is_named(client: TestClient) -> None:
    pairs = [{"query": "velvet", "title": "Hose"}, {"query": "", "title": "Hose"}]
    got = client.post("/score", json={"pairs": pairs})
    assert got.status_code == 400
    assert got.json() == {"message": "pairs[1].query: empty; want at least a word"}


# a search engine's call


def encode(body: dict[str, Any], kind: str) -> bytes:
    return msgspec.msgpack.encode(body) if kind == MSGPACK else msgspec.json.encode(body)


def decode(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    if response.headers["content-type"] == MSGPACK:
        return msgspec.msgpack.decode(response.content)
    return response.json()


def test_items_are_ordered_by_relevance_where_there_is_no_ranking(client: TestClient) -> None:
    got = client.post("/v1/relevance", json=relevance()).json()
    assert [result["item_id"] for result in got["results"]] == ["A1", "A2", "A3", "A4"]
    for result in got["results"]:
        p = result["relevance"]
        assert result["score"] == pytest.approx(math.log(p / (1 - p)), rel=1e-6)


def test_the_order_follows_the_stated_formula(client: TestClient) -> None:
    ranking = [900.0, 100.0, 400.0, 200.0]
    body = relevance(ranking_scores=ranking, weight=0.3)
    results = client.post("/v1/relevance", json=body).json()["results"]
    p = np.array(probabilities("velvet office", [TITLES[i] for i in body["item_ids"]]))
    z = (np.array(ranking) - np.mean(ranking)) / np.std(ranking)
    expected = 0.3 * np.log(p / (1 - p)) + 0.7 * z
    order = np.argsort(-expected, kind="stable")
    assert [result["index"] for result in results] == order.tolist()
    assert [result["score"] for result in results] == pytest.approx(expected[order].tolist())


@pytest.mark.parametrize("change", [lambda r: 7 * r - 3, lambda r: r * 1e-300, lambda r: r * 1e305])
def test_unit_and_offset_of_a_ranking_score_do_not_matter(
    client: TestClient, change: Callable[[float], float]
) -> None:
    ranking = [9.0, 1.0, 4.0, 2.0]

    def order(scores: list[float]) -> list[str]:
        got = client.post("/v1/relevance", json=relevance(ranking_scores=scores)).json()
        return [result["item_id"] for result in got["results"]]

    assert order([change(value) for value in ranking]) == order(ranking)


def test_equal_ranking_scores_leave_relevance_alone(client: TestClient) -> None:
    body = relevance(ranking_scores=[0.1] * 4, weight=0.25)
    got = client.post("/v1/relevance", json=body).json()["results"]
    assert [result["item_id"] for result in got] == ["A1", "A2", "A3", "A4"]


def test_items_under_the_threshold_go_and_no_other_moves(client: TestClient) -> None:
    ranking = {"ranking_scores": [9.0, 1.0, 4.0, 2.0]}
    everything = client.post("/v1/relevance", json=relevance(**ranking)).json()["results"]
    threshold = sorted(result["relevance"] for result in everything)[1]
    got = client.post("/v1/relevance", json=relevance(threshold=threshold, **ranking)).json()
    assert got["results"] == [r for r in everything if r["relevance"] >= threshold]
    assert got["below_threshold"] == 1


def test_at_most_max_results_are_kept(client: TestClient) -> None:
    got = client.post("/v1/relevance", json=relevance(max_results=2)).json()
    assert [result["item_id"] for result in got["results"]] == ["A1", "A2"]
    assert got["below_threshold"] == 0


def test_unknown_items_are_named_and_the_rest_scored(client: TestClient) -> None:
    ids = ["nope", "A4", "A1", "\u00fc"]
    body = relevance(item_ids=ids, ranking_scores=[1e308, 1.0, 2.0, -1e308])
    got = client.post("/v1/relevance", json=body).json()
    assert got["unknown"] == ["nope", "\u00fc"]
    assert [result["item_id"] for result in got["results"]] == ["A1", "A4"]
    assert all(math.isfinite(result["score"]) for result in got["results"])
    assert got["below_threshold"] == 0


def test_only_unknown_items_give_no_results(client: TestClient) -> None:
    body = relevance(item_ids=["x"], ranking_scores=[1.0])
    got = client.post("/v1/relevance", json=body).json()
    assert (got["results"], got["unknown"]) == ([], ["x"])


def arrow_body(
    options: dict[str, Any], columns: dict[str, pa.Array], compression: str | None = None
) -> bytes:
    table = pa.table(columns).replace_schema_metadata({"querylift": json.dumps(options)})
    sink = pa.BufferOutputStream()
    write = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=write) as writer:
        writer.write_table(table, max_chunksize=2)
    return sink.getvalue().to_pybytes()


IDS = pa.array(["A4", "nope", "A1", "A2", "A3"])
RANKING = pa.array([9.0, 1.0, 4.0, 2.0, 5.0])


def test_json_msgpack_and_arrow_say_the_same(client: TestClient) -> None:
    options = {"query": "velvet office", "threshold": 0.2, "weight": 0.4}
    body = {**options, "item_ids": IDS.to_pylist(), "ranking_scores": RANKING.to_pylist()}
    columns = {"item_id": IDS, "ranking_score": RANKING}
    contents = {
        JSON: encode(body, JSON),
        MSGPACK: encode(body, MSGPACK),
        ARROW: arrow_body(options, columns),
    }
    expected = client.post("/v1/relevance", json=body).json()
    assert len(expected["results"]) == 4
    for sent, content in contents.items():
        for wanted in (JSON, MSGPACK, ARROW, "*/*", None):
            headers = {"content-type": sent, "accept": wanted or ""}
            got = client.post("/v1/relevance", content=content, headers=headers)
            assert got.headers["content-type"] == (
                wanted if wanted in (JSON, MSGPACK, ARROW) else sent
            )
            if got.headers["content-type"] == ARROW:
                table = pa.ipc.open_stream(got.content).read_all()
                facts = json.loads(table.schema.metadata[b"querylift"])
                assert {**facts, "results": table.to_pylist()} == expected
            else:
                assert decode(got) == expected


BIG = pa.array(["A1" * 200_000])


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (b"", 400, "no Arrow stream"),
        (b"\xff" * 64, 400, "no Arrow stream"),
        (arrow_body({"query": "a"}, {"item_id": IDS})[:-80], 400, "no Arrow stream"),
        (arrow_body({"query": "a"}, {"item": IDS}), 422, "want item_id: string"),
        (arrow_body({"query": "a"}, {"item_id": RANKING}), 422, "want item_id: string"),
        (arrow_body({"query": "a"}, {"item_id": IDS.dictionary_encode()}), 422, "want item_id"),
        (arrow_body({"query": "a"}, {"item_id": pa.array(["a", None])}), 422, "nulls"),
        (arrow_body({"query": "a"}, {"item_id": pa.array(["a"] * 51)}), 413, "50 rows"),
        (arrow_body({"query": "a"}, {"item_id": BIG}, "zstd"), 422, "compressed"),
        (arrow_body({"query": "a"}, {"item_id": BIG}, "lz4"), 422, "compressed"),
        (arrow_body({"query": "a", "nope": 1}, {"item_id": IDS}), 422, "unknown field `nope`"),
        (arrow_body({}, {"item_id": IDS}), 422, "query"),
        (
            arrow_body({"query": "a"}, {"item_id": IDS, "ranking_score": pa.array([math.nan] * 5)}),
            422,
            "ranking_scores[0]: nan; want a finite number",
        ),
    ],
)
def test_bad_arrow_is_refused(client: TestClient, content: bytes, status: int, says: str) -> None:
    got = client.post("/v1/relevance", content=content, headers={"content-type": ARROW})
    assert got.status_code == status, got.text
    assert says in got.json()["message"]


def test_item_ids_without_a_table_are_refused(client: TestClient, fake: FakeAnswering) -> None:
    fake.titles = None
    got = client.post("/v1/relevance", json=relevance())
    assert got.status_code == 422
    assert "item table" in got.json()["message"]


# bad input

HEADERS = {"content-type": JSON}


@pytest.mark.parametrize("path", [*RERANKS, "/score", "/v1/relevance", "/v1/explain"])
@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"query', 400),
        (b"\xff\xfe", 400),
        (b"null", 422),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"nope": 1}', 422),
    ],
)
def test_what_is_no_request_is_refused(
    client: TestClient, path: str, content: bytes, status: int
) -> None:
    got = client.post(path, content=content, headers=HEADERS)
    assert got.status_code == status, got.text
    assert got.json()["message"]


@pytest.mark.parametrize("path", [*RERANKS, "/score", "/v1/relevance", "/v1/explain"])
@pytest.mark.parametrize(
    "content",
    [
        b'{"query": "a", "documents": ["b"',
        b'{"query": "\xff"}',
        b'{"query": "a", "texts": ["\xff"]}',
        b'{"\xff": 1}',
        b'{"a":' + b"[" * 9_000 + b"]" * 9_000 + b"}",
        b'{"a":' * 3_000 + b"1" + b"}" * 3_000,
    ],
)
def test_broken_bodies_are_refused_whichever_fault_is_found_first(
    client: TestClient, path: str, content: bytes
) -> None:
    got = client.post(path, content=content, headers=HEADERS)
    assert got.status_code in (400, 422), got.text
    assert got.json()


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (cohere(query=""), 400, "query: empty; want at least a word"),
        (cohere(query=" \n\u3000"), 400, "query: empty"),
        (cohere(query=None), 422, "got `null` - at `$.query`"),
        (cohere(query=7), 422, "Expected `str`, got `int` - at `$.query`"),
        (cohere(documents=[]), 400, "documents: none; want 1 to 50"),
        (cohere(documents=["a"] * 51), 413, "documents: 51; want 1 to 50"),
        (cohere(documents=None), 422, "$.documents"),
        (cohere(documents="a"), 422, "$.documents"),
        (cohere(documents=["a", None]), 422, "$.documents[1]"),
        (cohere(documents=["a", 3]), 422, "$.documents[1]"),
        (cohere(documents=[{"title": "a"}]), 422, "$.documents[0]"),
        (cohere(documents=["\u00fc" * 501]), 413, "documents[0]: 1,002 bytes; want at most 1,000"),
        (cohere(query="q" * 1_001), 413, "query: 1,001 bytes; want at most 1,000"),
        (cohere(top_n=-1), 422, "$.top_n"),
        (cohere(top_n=1.5), 422, "$.top_n"),
        (cohere(top_n="3"), 422, "$.top_n"),
        (cohere(top_n=10**30), 422, "$.top_n"),
        (cohere(top_k=3), 422, "unknown field `top_k`; want query, documents, model, top_n"),
    ],
)
def test_bad_fields_are_named(
    client: TestClient, fake: FakeAnswering, body: dict[str, Any], status: int, says: str
) -> None:
    got = client.post("/v1/rerank", json=body)
    assert got.status_code == status
    assert says in got.json()["message"]
    assert fake.asked == 0


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"item_ids": ["a", None]}, "$.item_ids[1]"),
        ({"item_ids": [7]}, "$.item_ids[0]"),
        ({"ranking_scores": [1.0]}, "ranking_scores: 1; want 4, one per item"),
        ({"ranking_scores": [1.0, 2.0, 3.0, "4"]}, "$.ranking_scores[3]"),
        ({"ranking_scores": [1.0, 2.0, 3.0, None]}, "$.ranking_scores[3]"),
        ({"threshold": 1.5}, "$.threshold"),
        ({"weight": -0.1}, "$.weight"),
        ({"max_results": 0}, "$.max_results"),
    ],
)
def test_bad_fields_of_relevance_are_named(
    client: TestClient, fields: dict[str, Any], says: str
) -> None:
    got = client.post("/v1/relevance", json=relevance(**fields))
    assert got.status_code == 422
    assert says in got.json()["message"]


@pytest.mark.parametrize("text", [rb"\ud800", rb"a\udc00", rb"\udc00\ud800", rb"\ud83d \ude00"])
@pytest.mark.parametrize("body", [b'{"query":"%s","documents":["b"]}',
                                  b'{"query":"a","documents":["b","%s"]}',
                                  b'{"query":"a","texts":["b","%s"]}'])  # fmt: skip
def test_half_a_surrogate_pair_is_named(client: TestClient, body: bytes, text: bytes) -> None:
    got = client.post("/rerank", content=body % text, headers=HEADERS)
    assert got.status_code == 400
    assert "half of a surrogate pair" in got.text


def test_whole_surrogate_pairs_and_nul_are_texts(client: TestClient) -> None:
    content = rb'{"query":"\ud83d\ude00 \u0000","documents":["\ud83d\ude00"]}'
    assert client.post("/rerank", content=content, headers=HEADERS).status_code == 200


@pytest.mark.parametrize(
    "given", ["", "text/plain", "application/x-www-form-urlencoded", ARROW, MSGPACK,
              "application/json; charset=latin-1"],
)  # fmt: skip
def test_another_content_type_is_refused(client: TestClient, given: str) -> None:
    got = client.post("/rerank", content=b"{}", headers={"content-type": given})
    assert got.status_code == 415
    assert "want application/json" in got.json()["message"]


@pytest.mark.parametrize(
    "given",
    ["application/json; charset=utf-8", 'application/json;charset="UTF-8"', "Application/JSON"],
)
def test_utf_8_may_be_said(client: TestClient, given: str) -> None:
    content = json.dumps(cohere()).encode()
    assert client.post("/rerank", content=content, headers={"content-type": given}).is_success


@pytest.mark.parametrize(
    ("encoding", "deflate"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_compressed_bodies_inflate_within_bounds(
    client: TestClient, encoding: str, deflate: Callable[[bytes], bytes]
) -> None:
    headers = {**HEADERS, "content-encoding": encoding}
    fine = deflate(json.dumps(cohere()).encode())
    assert client.post("/rerank", content=fine, headers=headers).status_code == 200
    bomb = deflate(b" " * 5_000_000)
    assert len(bomb) < LIMITS.max_body_bytes
    got = client.post("/rerank", content=bomb, headers=headers)
    assert (got.status_code, "30,000 bytes" in got.text) == (413, True)
    for broken in (fine[:-9], fine + b"more", b"", b"{}"):
        assert client.post("/rerank", content=broken, headers=headers).status_code == 400


def test_another_encoding_is_refused(client: TestClient) -> None:
    headers = {**HEADERS, "content-encoding": "br"}
    assert client.post("/rerank", content=b"{}", headers=headers).status_code == 415


def test_a_large_body_is_refused_while_it_arrives(client: TestClient, fake: FakeAnswering) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1_000):
            sent += 1_000
            yield b" " * 1_000

    declared = client.post("/rerank", content=b" " * 20_001, headers=HEADERS)
    streamed = client.post("/rerank", content=chunks(), headers=HEADERS)
    assert [declared.status_code, streamed.status_code] == [413, 413]
    assert "20,000 bytes" in streamed.json()["message"]


async def asgi(
    fake: FakeAnswering, limits: Limits, messages: list[dict[str, Any]], then: float = 60.0
) -> list[dict[str, Any]]:
    """Call the application as a server does; after ``messages`` the client hangs up."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await asyncio.sleep(then)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/rerank", "raw_path": b"/rerank",
        "root_path": "", "query_string": b"", "headers": [(b"content-type", JSON.encode())],
        "scheme": "http", "server": ("test", 80), "http_version": "1.1",
    }  # fmt: skip
    await application(lambda: fake, limits)(scope, receive, send)
    return sent


def test_a_body_that_drips_is_refused(fake: FakeAnswering) -> None:
    part = {"type": "http.request", "body": b"{", "more_body": True}
    sent = asyncio.run(asgi(fake, Limits(max_body_seconds=0.05), [part]))
    assert sent[0]["status"] == 408


def test_a_request_whose_client_hangs_up_is_cancelled(fake: FakeAnswering) -> None:
    fake.delay_s = 60.0
    whole = {"type": "http.request", "body": json.dumps(cohere()).encode(), "more_body": False}
    asyncio.run(asyncio.wait_for(asgi(fake, LIMITS, [whole], then=0.02), timeout=10))
    assert (fake.asked, fake.cancelled) == (1, 1)


def test_limits_are_positive() -> None:
    with pytest.raises(ValueError, match=r"limits.max_documents: 0; want more than 0"):
        Limits(max_documents=0)


# when the scorer cannot


@pytest.mark.parametrize(
    ("error", "status", "kind", "retry"),
    [
        (Overloaded(2.2), 429, "Overloaded", "3"),
        (Overloaded(0.01), 429, "Overloaded", "1"),
        (TooLate(), 503, "Unhealthy", "1"),
        (NotReady(), 503, "Unhealthy", "1"),
    ],
)
def test_a_busy_scorer_says_when_to_come_back(
    client: TestClient, fake: FakeAnswering, error: Exception, status: int, kind: str, retry: str
) -> None:
    fake.error = error
    got = client.post("/rerank", json=cohere())
    assert (got.status_code, got.headers["retry-after"]) == (status, retry)
    assert got.json()["message"]
    got = client.post("/rerank", json=tei())
    assert (got.status_code, got.headers["retry-after"]) == (status, retry)
    assert got.json()["error_type"] == kind


def test_a_bug_answers_500_without_its_text(
    client: TestClient, fake: FakeAnswering, caplog: pytest.LogCaptureFixture
) -> None:
    fake.error = RuntimeError("secret of the shop")
    got = client.post("/rerank", json=cohere(), headers={"x-request-id": "r-1"})
    assert got.status_code == 500
    assert got.json() == {"message": "internal error; the log has it under request id r-1"}
    assert got.headers["x-request-id"] == "r-1"
    assert "secret of the shop" in caplog.text


def test_nothing_is_answered_before_the_model_is_loaded() -> None:
    def answering() -> FakeAnswering:
        raise NotReady

    with TestClient(application(answering, LIMITS)) as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/").status_code == 200
        assert client.get("/metrics").status_code == 200
        for response in (
            client.get("/readyz"),
            client.get("/v1/models"),
            client.post("/rerank", json=cohere()),
            client.post("/v1/relevance", json=relevance()),
        ):
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"


# operating it


def test_probes_and_the_model(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ok"}
    assert client.get("/v1/models").json()["data"] == [
        {"id": "shop-relevance", "version": "0123456789abcdef", "source": "runs/fake",
         "object": "model"}
    ]  # fmt: skip


def test_paths_and_methods_that_are_not_ours(client: TestClient) -> None:
    assert client.get("/velvet").status_code == 404
    assert client.post("/rerank/", json=cohere()).status_code == 404
    got = client.get("/rerank")
    assert (got.status_code, got.headers["allow"]) == (405, "POST")
    assert got.json() == {"message": "GET: want POST"}


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\u00fc", '"'])
def test_a_request_id_that_is_not_sane_is_replaced(client: TestClient, given: str) -> None:
    headers = {"x-request-id": given.encode()}
    got = client.get("/livez", headers=headers).headers["x-request-id"]  # type: ignore[arg-type]
    assert len(got) == 32


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_request_is_one_line_without_its_texts(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="querylift")
    headers = {"x-request-id": "r-2", "traceparent": TRACE}
    got = client.post("/rerank", json=cohere(query="zebra hose"), headers=headers)
    assert got.headers["x-request-id"] == "r-2"
    assert got.headers["traceparent"] == TRACE
    assert got.headers["x-model-version"] == "0123456789abcdef"
    client.get("/zebra")
    lines = [JsonFormatter().format(record) for record in caplog.records]
    first, second = (json.loads(line) for line in lines if '"querylift.requests"' in line)
    assert first | {"time": 0, "seconds": 0} == {
        "time": 0, "level": "info", "logger": "querylift.requests", "message": "request",
        "request_id": "r-2", "method": "POST", "endpoint": "/rerank", "status": 200, "seconds": 0,
        "trace_id": TRACE[3:35], "parent_span_id": TRACE[36:52], "documents": 4, "tokens": 16,
        "truncated": 0, "unknown": 0, "version": "0123456789abcdef",
    }  # fmt: skip
    assert (second["endpoint"], second["status"]) == ("unmatched", 404)
    assert "zebra" not in " ".join(lines)


@pytest.mark.parametrize(
    "given", ["", "x", "00-0-0-0", TRACE.upper(), "ff" + TRACE[2:], "00-" + "0" * 32 + TRACE[35:]]
)
def test_a_trace_that_is_none_is_not_answered(client: TestClient, given: str) -> None:
    got = client.get("/livez", headers={"traceparent": given})
    assert "traceparent" not in got.headers


def samples(client: TestClient) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_requests_are_counted(client: TestClient) -> None:
    before = samples(client)
    client.post("/rerank", json=cohere())
    client.post("/rerank", json=cohere(query=""))
    client.post("/v1/relevance", json=relevance(item_ids=["A1", "x", "y"]))
    after = samples(client)

    def more(*key: str) -> float:
        return after[key] - before.get(key, 0)

    assert more("querylift_requests_total", "/rerank", "200") == 1
    assert more("querylift_requests_total", "/rerank", "400") == 1
    assert more("querylift_errors_total", "/rerank", "empty") == 1
    assert more("querylift_request_documents_sum", "/rerank") == 4
    assert more("querylift_request_seconds_count", "/rerank") == 2
    assert more("querylift_unknown_items_total") == 2
    assert more("querylift_tokens_total") > 16


def test_the_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    got = client.get("/")
    assert got.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in got.headers["content-security-policy"]
    assert "unsafe" not in got.headers["content-security-policy"]
    assert "http://" not in got.text
    assert "https://" not in got.text
    # the policy forbids them, and innerHTML is how a title would become markup
    assert ' style="' not in got.text
    assert "innerHTML" not in got.text


def test_words_are_explained_with_their_classes(client: TestClient) -> None:
    body = {"query": "velvet sofa", "titles": ["Garden Hose", "Velvet Sofa"]}
    got = client.post("/v1/explain", json=body).json()
    assert got["query"] == [
        {"text": "velvet", "term_class": "material"}, {"text": "sofa", "term_class": "core"},
    ]  # fmt: skip
    assert [result["index"] for result in got["results"]] == [1, 0]
    assert got["results"][1]["words"][0] == {"text": "Garden", "term_class": ""}
    assert got["results"][1]["score"] == -2.0


def test_few_titles_are_explained_at_once(fake: FakeAnswering) -> None:
    with TestClient(application(lambda: fake, Limits(max_explained=1))) as client:
        got = client.post("/v1/explain", json={"query": "a", "titles": ["b", "c"]})
    assert got.status_code == 413


def test_the_description_has_every_path_and_shape(client: TestClient) -> None:
    got = client.get("/openapi.json").json()
    assert set(got["paths"]) == {
        *RERANKS, "/score", "/v1/relevance", "/v1/explain", "/v1/models", "/livez", "/readyz",
        "/metrics", "/openapi.json", "/",
    }  # fmt: skip
    request = got["components"]["schemas"]["CohereRequest"]
    assert request["additionalProperties"] is False
    assert request["required"] == ["query", "documents"]


PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
CALLS = re.findall(r"curl \$SCORER(\S+) [^{]*?-d '(\{.*?\})'", PAGE, re.DOTALL)


def test_every_endpoint_with_a_body_has_an_example() -> None:
    assert {path for path, _ in CALLS} == {
        "/rerank", "/v2/rerank", "/score", "/v1/relevance", "/v1/explain",
    }  # fmt: skip


@pytest.mark.parametrize(("path", "body"), CALLS)
def test_examples_are_answered_in_the_shape_that_the_page_shows(
    client: TestClient, path: str, body: str
) -> None:
    got = client.post(path, content=body, headers=HEADERS)
    assert got.status_code == 200, got.text
    after = PAGE[PAGE.index(body) :]
    shown = json.loads(re.search(r"```json\n(.*?)```", after, re.DOTALL)[1])  # type: ignore[index]
    first, *_ = shown if isinstance(shown, list) else [shown]
    answered, *_ = got.json() if isinstance(shown, list) else [got.json()]
    assert set(answered) == set(first)


def test_the_page_states_the_limits() -> None:
    limits = Limits()
    assert f"more than {limits.max_documents:,} titles" in PAGE
    assert f"a text of more than {limits.max_text_bytes // 1024} KiB" in PAGE
    assert f"an id of more than {limits.max_item_id_bytes} bytes" in PAGE
    assert f"a body of more than {limits.max_body_bytes // 2**20} MiB" in PAGE
    assert f"{limits.max_inflated_bytes // 2**20} MiB inflated" in PAGE
    assert f"longer than {limits.max_body_seconds:g} s" in PAGE
    assert f"at most {limits.max_explained} titles" in PAGE
