"""Shapes of requests: what routing reads of them, and the answers it makes without a scorer."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.asked import Asked, Garbage, Ranked, asked
from serving.bodies import ARROW, JSON, MSGPACK, Body, is_tei
from serving.limits import Limits
from serving.refusals import Refusal

IDS = ["A4", "A1", "A2", "A3"]


def of(body: Any, path: str = "/rerank", accept: str = JSON) -> Asked:
    content = json.dumps(body).encode()
    return asked(path, Body(content, JSON), accept, Limits(), is_tei=is_tei(content))


def relevance(accept: str = JSON, **fields: Any) -> Asked:
    return of({"query": "sofa", "item_ids": IDS, **fields}, "/v1/relevance", accept)


TEXTS = st.lists(st.text(max_size=5), min_size=1, max_size=30)
TOPS = st.integers(0, 40) | st.none()


@given(TEXTS, TOPS, st.sampled_from(["documents", "texts"]))
def test_the_given_order_reads_as_an_answer_to_what_was_asked(
    texts: list[str], top_n: int | None, field: str
) -> None:
    wanted = of({"query": "sofa", field: texts, "top_n": top_n})
    ranked = wanted.ranked(wanted.in_given_order())
    assert ranked.places == list(range(min(len(texts), top_n or len(texts))))
    assert ranked.scores == sorted(set(ranked.scores), reverse=True)


@pytest.mark.parametrize("accept", [JSON, MSGPACK, ARROW])
@pytest.mark.parametrize("most", [2, 2_000])
def test_the_given_order_of_items_reads_as_an_answer(accept: str, most: int) -> None:
    wanted = relevance(accept, max_results=most, threshold=0.5)
    assert wanted.ranked(wanted.in_given_order()).places == list(range(min(4, most)))
    assert wanted.keys([0, 1]) == ["A4", "A1"]


def answer(**changes: Any) -> dict[str, Any]:
    hits = [{"item_id": i, "index": n, "relevance": 0.5, "score": 1.0} for n, i in enumerate(IDS)]
    return {"unknown": [], "below_threshold": 0, "results": hits, **changes}


def hit(**changes: Any) -> list[dict[str, Any]]:
    return [answer()["results"][0] | changes, *answer()["results"][1:]]


@pytest.mark.parametrize(
    "content",
    [
        answer(results=[]),
        answer(results=hit(item_id="A1")),
        answer(results=hit(index=9)),
        answer(results=hit(index=-1)),
        answer(results=hit(score=math.nan)),
        answer(results=hit(relevance=math.inf)),
        answer(results=hit(score=None)),
        answer(results=[*hit(), *hit()[:1]]),
        answer(below_threshold=1),
        answer(unknown=["A9"]),
        [],
        {},
    ],
)
def test_garbage_is_told_from_answers(content: Any) -> None:
    wanted = relevance(MSGPACK)
    assert wanted.ranked(msgspec.msgpack.encode(answer())) == Ranked([0, 1, 2, 3], [1.0] * 4)
    with pytest.raises(Garbage):
        wanted.ranked(msgspec.msgpack.encode(content))


def test_items_that_a_scorer_drops_with_a_reason_are_no_garbage() -> None:
    some = answer(results=answer()["results"][1:], below_threshold=1)
    assert relevance().ranked(msgspec.json.encode(some)).places == [1, 2, 3]


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@pytest.mark.parametrize(
    "wanted",
    [
        of({"query": "a", "documents": ["b"]}),
        of({"query": "a", "texts": ["b"]}),
        relevance(),
        relevance(MSGPACK),
        relevance(ARROW),
    ],
)
def test_any_bytes_are_garbage_and_nothing_worse(wanted: Asked, content: bytes) -> None:
    with pytest.raises(Garbage):
        wanted.ranked(content)


@pytest.mark.parametrize(
    "body",
    [
        {"query": "a", "documents": ["b"], "top_n": -1},
        {"query": "a", "documents": ["b", 1]},
        {"query": "a", "documents": ["b"], "no_such": 1},
    ],
)
def test_a_wrong_request_has_no_given_order(body: Any) -> None:
    with pytest.raises(Refusal):
        of(body).in_given_order()
