"""No bytes that a client sends are answered with 500, and no answer has another shape than said.

``corpus/`` keeps requests that once had a wrong answer here, and those that a plain server falls
over; they are tried first. ``QUERYLIFT_FUZZ=20000 pytest tests/serving/test_fuzz.py``
looks for more.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
from pathlib import Path
from typing import Any

import hypothesis
import msgspec
import pyarrow as pa
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from serving.api import application
from serving.bodies import ARROW, JSON, MSGPACK
from serving.limits import Limits
from tests.serving.fake import FakeAnswering

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.json"))
LIMITS = Limits(
    max_documents=40, max_text_bytes=400, max_body_bytes=9_000, max_inflated_bytes=9_000
)
STATUSES = {200, 400, 413, 415, 422}
EXAMPLES = int(os.environ.get("QUERYLIFT_FUZZ", "150"))

FUZZ = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="QUERYLIFT_FUZZ" not in os.environ,
    suppress_health_check=list(hypothesis.HealthCheck),
)

FAKE = FakeAnswering()
APP = application(lambda: FAKE, LIMITS)
# an error of ours is to be an answer here, not an exception in the test
CLIENT = TestClient(APP, raise_server_exceptions=False)


def check(path: str, content: bytes, headers: dict[str, str]) -> int:
    got = CLIENT.post(path, content=content, headers=headers)
    assert got.status_code in STATUSES, f"{got.status_code} {got.text}"
    kind = got.headers["content-type"]
    if kind == ARROW:
        pa.ipc.open_stream(got.content).read_all().validate(full=True)
    elif kind == MSGPACK:
        msgspec.msgpack.decode(got.content)
    else:
        body = json.loads(got.content, parse_constant=lambda name: pytest.fail(name))
        if got.status_code != 200:
            assert set(body) in ({"message"}, {"error", "error_type"})
    return got.status_code


@pytest.mark.parametrize("found", CORPUS, ids=lambda path: path.stem)
def test_the_corpus_is_answered_as_it_should_be(found: Path) -> None:
    case = json.loads(found.read_text())
    content = base64.b64decode(case["base64"]) if "base64" in case else case["text"].encode()
    assert check(case["path"], content, case["headers"]) == case["status"]


def test_the_corpus_is_there() -> None:
    assert CORPUS


TEXTS = st.one_of(
    st.text(max_size=30), st.sampled_from(["", " ", "velvet sofa", "A1", "A2", "\u00fc" * 300])
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    TEXTS,
    st.sampled_from([10**30, -(10**30), 1e308, 5e-324]),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=3)
)
SCHEMAS = json.loads(CLIENT.get("/openapi.json").content)["components"]["schemas"]
NAMES = sorted({name for shape in SCHEMAS.values() for name in shape.get("properties", {})})
ANY = st.dictionaries(st.sampled_from([*NAMES, "nope"]), VALUES, max_size=6)

MANY = st.lists(TEXTS, min_size=1, max_size=42)
QUERY = st.text(min_size=1, max_size=30) | st.sampled_from(["velvet sofa", "a\x00", "\U0001f6cb"])
RANKED = st.lists(st.tuples(TEXTS, st.floats()), min_size=1, max_size=42)
COUNTS = st.none() | st.integers(0, 50)
PAIRS = st.lists(st.fixed_dictionaries({"query": QUERY, "title": TEXTS}), min_size=1, max_size=42)
COHERE = st.fixed_dictionaries(
    {"query": QUERY, "documents": MANY | MANY.map(lambda texts: [{"text": t} for t in texts])},
    optional={"top_n": COUNTS, "return_documents": st.booleans(), "model": TEXTS},
)
TEI = st.fixed_dictionaries(
    {"query": QUERY, "texts": MANY},
    optional={"top_n": COUNTS, "return_text": st.booleans(), "raw_scores": st.booleans()},
)
OPTIONS = {"threshold": st.floats(0, 1), "weight": st.floats(0, 1), "max_results": COUNTS}
RELEVANCE = st.fixed_dictionaries({"query": QUERY, "item_ids": MANY}, optional=OPTIONS) | st.builds(
    lambda query, ranked, options: {
        "query": query,
        "item_ids": [item_id for item_id, _ in ranked],
        "ranking_scores": [score for _, score in ranked],
        **options,
    },
    QUERY,
    RANKED,
    st.fixed_dictionaries({}, optional=OPTIONS),
)
FITTING = {
    **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), COHERE | TEI),
    "/score": st.fixed_dictionaries({"pairs": PAIRS}),
    "/v1/relevance": RELEVANCE,
    "/v1/explain": st.fixed_dictionaries({"query": QUERY, "titles": MANY}),
}


def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes that were whole once."""
    broken = bytearray(content)
    for _ in range(max(0, draw(st.integers(-3, 3)))):
        if not broken:
            break
        at = draw(st.integers(0, len(broken) - 1))
        match draw(st.sampled_from(["cut", "byte", "insert", "twice"])):
            case "cut":
                del broken[at:]
            case "byte":
                broken[at] = draw(st.integers(0, 255))
            case "insert":
                broken[at:at] = draw(
                    st.sampled_from([rb"\ud800", b"\xff", b"\x00", b"[", b'"', b"1e999", b"NaN"])
                )
            case _:
                broken += broken[at:]
    return bytes(broken)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, bytes, dict[str, str]]:
    path = draw(st.sampled_from(sorted(FITTING)))
    kind = draw(st.sampled_from([JSON, MSGPACK]) if path in ("/score", "/v1/relevance")
                else st.just(JSON))  # fmt: skip
    body = draw(FITTING[path] if draw(st.integers(0, 3)) else ANY)
    # json has NaN, Infinity and lone surrogates, which are no JSON: so much the better
    content = json.dumps(body).encode()
    if kind == MSGPACK:
        content = packed(body)
    content = mutated(draw, content)
    headers = {"content-type": kind}
    if draw(st.booleans()):
        headers["accept"] = draw(st.sampled_from([JSON, MSGPACK, ARROW, "*/*", "", ",;", "\x7f"]))
    if draw(st.integers(0, 4)) == 0:
        headers["content-encoding"] = "gzip"
        content = mutated(draw, gzip.compress(content, mtime=0))
    return path, content, headers


def packed(body: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(body)
    except (OverflowError, UnicodeEncodeError):
        return json.dumps(body).encode()


@FUZZ
@hypothesis.given(requests())
def test_no_bytes_are_answered_with_500(request: tuple[str, bytes, dict[str, str]]) -> None:
    check(*request)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    rows = draw(st.integers(0, 42))
    columns = {
        "item_id": pa.array(draw(st.lists(TEXTS, min_size=rows, max_size=rows)), pa.string())
    }
    if draw(st.booleans()):
        scores = draw(st.lists(st.floats(), min_size=rows, max_size=rows))
        columns["ranking_score"] = pa.array(scores, pa.float64())
    options = draw(st.fixed_dictionaries({"query": QUERY}, optional=OPTIONS) | ANY)
    table = pa.table(columns).replace_schema_metadata({"querylift": json.dumps(options)})
    sink = pa.BufferOutputStream()
    compression = draw(st.sampled_from([None, None, None, "zstd", "lz4"]))
    settings = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=settings) as writer:
        writer.write_table(table, max_chunksize=draw(st.integers(1, 50)))
    return mutated(draw, sink.getvalue().to_pybytes())


@FUZZ
@hypothesis.given(streams(), st.sampled_from([JSON, ARROW]))
def test_no_arrow_stream_is_answered_with_500(content: bytes, wanted: str) -> None:
    check("/v1/relevance", content, {"content-type": ARROW, "accept": wanted})


SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP)


@SCHEMA.parametrize()
@hypothesis.settings(
    max_examples=max(10, EXAMPLES // 10),
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_answers_are_as_described(case: Any) -> None:
    # that a query is not empty, and limits, are not in the schema
    case.call_and_validate(excluded_checks=[positive_data_acceptance])
