"""What a request for an order of items asks, as much of it as routing needs.

It knows how many items there are and which, reads a scorer's answer strictly enough to tell
garbage, and can answer by itself: the items in the order they came in, in the shape asked for.
Everything else in the body is for the scorer to judge.
"""

from __future__ import annotations

import math
import struct
import uuid
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Raw, Struct

from serving import arrow, schemas
from serving.bodies import ARROW, JSON, MSGPACK, Body, decoded
from serving.limits import Limits

T = TypeVar("T", covariant=True)

GIVEN_ORDER = "given-order"
"""What answers name as their model where no scorer had a part in them."""


class Ranked(NamedTuple):
    """The order that an answer puts items in, best first."""

    places: list[int]
    """Of items in the request. [results]"""
    scores: list[float]
    """[results]"""


class Garbage(Exception):
    """A scorer's answer is none to what was asked."""


class Asked(Protocol):
    """A request for an order of items."""

    answer_type: str
    """Media type of the answer."""

    @property
    def query(self) -> str:
        """As the shopper typed it."""

    @property
    def count(self) -> int:
        """Items."""

    def keys(self, places: Sequence[int]) -> list[str]:
        """What names items: their ids, or their places where only their texts are known."""

    def ranked(self, content: bytes) -> Ranked:
        """Read a scorer's answer.

        Raises:
            Garbage: It is not of the shape asked for, names other items, names one twice, has too
                few or too many, or a score is not finite.
        """

    def in_given_order(self) -> bytes:
        """An answer without a scorer: the first items asked for, in the order they came in.

        Scores fall from 1 by equal steps, so that whoever sorts by them keeps the order; they say
        nothing of relevance.

        Raises:
            Refusal: A scorer would have refused the request.
        """


def asked(path: str, body: Body, answer_type: str, limits: Limits, *, is_tei: bool) -> Asked:
    """Read a request's body.

    Args:
        path: ``/v1/relevance`` or one that ends in ``/rerank``.
        body: Inflated.
        answer_type: Media type of the answer.
        limits: For Arrow, whose rows are counted while they are read.
        is_tei: See ``serving.bodies.is_tei``.

    Raises:
        Refusal: 400 or 422; no scorer could read it either.
    """
    if path == "/v1/relevance":
        return _Relevance(body, answer_type, limits)
    return _Tei(body) if is_tei else _Cohere(body, path)


class _CohereBody(Struct, gc=False):
    query: str
    documents: list[Raw]
    top_n: int | None = None


class _CohereHit(Struct, gc=False):
    index: int
    relevance_score: float


class _CohereAnswer(Struct, gc=False):
    results: list[_CohereHit]


_COHERE_ANSWER = msgspec.json.Decoder(_CohereAnswer)


class _Cohere:
    answer_type = JSON

    def __init__(self, body: Body, path: str) -> None:
        self._content = body.content
        self._path = path
        self._read = decoded(body.content, JSON, _CohereBody)

    @property
    def query(self) -> str:
        return self._read.query

    @property
    def count(self) -> int:
        return len(self._read.documents)

    def keys(self, places: Sequence[int]) -> list[str]:
        return list(map(str, places))

    def ranked(self, content: bytes) -> Ranked:
        count = len(self._read.documents)
        results = _decoded(_COHERE_ANSWER, content).results
        _check_count(len(results), min(count, self._read.top_n or count))
        return _ranked(
            [hit.index for hit in results], [hit.relevance_score for hit in results], count
        )

    def in_given_order(self) -> bytes:
        asked = decoded(self._content, JSON, schemas.CohereRequest)
        count = len(asked.documents)
        results = [
            schemas.CohereResult(
                place,
                1 - place / count,
                schemas.TextDocument(text=item if isinstance(item, str) else item.text)
                if asked.return_documents
                else msgspec.UNSET,
            )
            for place, item in enumerate(asked.documents[: asked.top_n or None])
        ]
        version = schemas.CohereVersion("2" if self._path == "/v2/rerank" else "1")
        nothing = schemas.CohereMeta(version, schemas.CohereUnits(0), schemas.CohereTokens(0, 0))
        return msgspec.json.encode(
            schemas.CohereResponse(
                str(uuid.uuid4()), GIVEN_ORDER, results, schemas.Usage(0), nothing
            )
        )


class _TeiBody(Struct, gc=False):
    query: str
    texts: list[Raw]
    top_n: int | None = None


class _TeiHit(Struct, gc=False):
    index: int
    score: float


_TEI_ANSWER = msgspec.json.Decoder(list[_TeiHit])


class _Tei:
    answer_type = JSON

    def __init__(self, body: Body) -> None:
        self._content = body.content
        self._read = decoded(body.content, JSON, _TeiBody)

    @property
    def query(self) -> str:
        return self._read.query

    @property
    def count(self) -> int:
        return len(self._read.texts)

    def keys(self, places: Sequence[int]) -> list[str]:
        return list(map(str, places))

    def ranked(self, content: bytes) -> Ranked:
        count = len(self._read.texts)
        hits = _decoded(_TEI_ANSWER, content)
        _check_count(len(hits), min(count, self._read.top_n or count))
        return _ranked([hit.index for hit in hits], [hit.score for hit in hits], count)

    def in_given_order(self) -> bytes:
        asked = decoded(self._content, JSON, schemas.TeiRequest)
        count = len(asked.texts)
        return msgspec.json.encode(
            [
                schemas.TeiRank(
                    place, 1 - place / count, text if asked.return_text else msgspec.UNSET
                )
                for place, text in enumerate(asked.texts[: asked.top_n or None])
            ]
        )


class _RelevanceBody(Struct, gc=False):
    query: str
    item_ids: list[str]
    max_results: int = schemas.RelevanceOptions(query="").max_results


class _RelevanceFacts(Struct, gc=False):
    unknown: list[str]
    below_threshold: int


class _RelevanceHit(Struct, gc=False):
    item_id: str
    index: int
    relevance: float
    score: float


class _RelevanceAnswer(_RelevanceFacts, gc=False):
    results: list[_RelevanceHit]


_RELEVANCE_ANSWERS: Mapping[str, _Decoder[_RelevanceAnswer]] = {
    JSON: msgspec.json.Decoder(_RelevanceAnswer),
    MSGPACK: msgspec.msgpack.Decoder(_RelevanceAnswer),
}
_FACTS = msgspec.json.Decoder(_RelevanceFacts)


class _Relevance:
    def __init__(self, body: Body, answer_type: str, limits: Limits) -> None:
        self._body = body
        self._limits = limits
        self.answer_type = answer_type
        self._read: _RelevanceBody | schemas.RelevanceRequest
        if body.media_type == ARROW:
            self._read = arrow.relevance_request(body.content, limits)
        else:
            self._read = decoded(body.content, body.media_type, _RelevanceBody)

    @property
    def query(self) -> str:
        return self._read.query

    @property
    def count(self) -> int:
        return len(self._read.item_ids)

    def keys(self, places: Sequence[int]) -> list[str]:
        return [self._read.item_ids[place] for place in places]

    def ranked(self, content: bytes) -> Ranked:
        facts, hits = self._hits(content)
        item_ids = self._read.item_ids
        kept = len(item_ids) - len(facts.unknown) - facts.below_threshold
        _check_count(len(hits), min(kept, self._read.max_results))
        for hit in hits:
            if not 0 <= hit.index < len(item_ids) or item_ids[hit.index] != hit.item_id:
                raise Garbage(f"item {hit.item_id[:40]!r} at {hit.index}: not what was asked")
            if not math.isfinite(hit.relevance):
                raise Garbage(f"relevance {hit.relevance} at {hit.index}: not finite")
        return _ranked([hit.index for hit in hits], [hit.score for hit in hits], len(item_ids))

    def _hits(self, content: bytes) -> tuple[_RelevanceFacts, list[_RelevanceHit]]:
        if self.answer_type != ARROW:
            answer = _decoded(_RELEVANCE_ANSWERS[self.answer_type], content)
            return answer, answer.results
        try:
            with pa.ipc.open_stream(content) as reader:
                table = reader.read_all()
            table.validate(full=True)
            names = ("item_id", "index", "relevance", "score")
            rows = zip(*(table[name].to_pylist() for name in names), strict=True)
            hits = msgspec.convert([list(row) for row in rows], list[tuple[str, int, float, float]])
        except (pa.ArrowException, OSError, ValueError, KeyError, struct.error) as error:
            raise Garbage(f"no Arrow stream of results: {error}"[:200]) from None
        facts = _decoded(_FACTS, (table.schema.metadata or {}).get(b"querylift", b""))
        return facts, [_RelevanceHit(*hit) for hit in hits]

    def in_given_order(self) -> bytes:
        read = self._read
        if not isinstance(read, schemas.RelevanceRequest):
            content, media_type = self._body.content, self._body.media_type
            read = decoded(content, media_type, schemas.RelevanceRequest)
        item_ids = read.item_ids[: read.max_results]
        facts = schemas.RelevanceFacts(
            model=GIVEN_ORDER, version="", unknown=[], below_threshold=0, usage=schemas.Usage(0)
        )
        falling = 1 - np.arange(len(item_ids)) / max(1, len(read.item_ids))
        if self.answer_type == ARROW:
            places = np.arange(len(item_ids))
            return arrow.relevance_response(
                facts, item_ids, places, falling.astype(np.float32), falling
            )
        results = [
            schemas.RelevanceResult(item_id, place, score, score)
            for place, (item_id, score) in enumerate(zip(item_ids, falling.tolist(), strict=True))
        ]
        response = schemas.RelevanceResponse(**msgspec.structs.asdict(facts), results=results)
        encode = msgspec.msgpack.encode if self.answer_type == MSGPACK else msgspec.json.encode
        return encode(response)


class _Decoder(Protocol[T]):
    def decode(self, content: bytes, /) -> T: ...


def _decoded(decoder: _Decoder[T], content: bytes) -> T:
    try:
        return decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Garbage(str(error)[:200]) from None


def _check_count(given: int, wanted: int) -> None:
    if given != wanted:
        raise Garbage(f"{given} results; want {wanted}")


def _ranked(places: list[int], scores: list[float], count: int) -> Ranked:
    if places and not 0 <= min(places) <= max(places) < count:
        raise Garbage(f"indices {min(places)} to {max(places)}; want 0 to {count - 1}")
    if len(set(places)) != len(places):
        raise Garbage("an index twice")
    if not all(map(math.isfinite, scores)):
        raise Garbage("a score that is not finite")
    return Ranked(places, scores)
