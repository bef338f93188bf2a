"""The scorer over HTTP.

Reranking as Cohere, Jina and text-embeddings-inference have it, a search engine's own call, and
what operating it takes.

Starlette carries it, so any ASGI server can host it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving import arrow, metrics, schemas
from serving.answers import Answer, Answering
from serving.bodies import ARROW, JSON, MSGPACK, ClientGone, accepted, decoded, encoded, is_tei
from serving.bodies import read_body as read
from serving.limits import Limits
from serving.logs import Observed, facts_of
from serving.openapi import OPERATIONS, document
from serving.ordering import combined, falling
from serving.pages import html_page
from serving.refusals import EMPTY, Refusal, refusal_of, refused

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]

_SEARCH_UNIT = 100
"""Documents that Cohere counts as one unit."""
_CLIENT_GONE = 499
"""What logs say of a request whose client hung up; nobody reads it."""


def application(answering: Callable[[], Answering], limits: Limits) -> Starlette:
    """The API as an ASGI application.

    Args:
        answering: The loaded checkpoint; raises ``serving.answers.NotReady`` until it is warm, and
            while the server drains.
        limits: Of every request.
    """
    api = _Api(answering, limits)
    routes = [
        Route(operation.path, _handled(getattr(api, operation.handler)), methods=[operation.method])
        for operation in OPERATIONS
    ]
    paths = {operation.path for operation in OPERATIONS}
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Observed, paths=paths)],
        exception_handlers={HTTPException: _unrouted},
    )
    app.router.redirect_slashes = False
    return app


def _handled(handler: Handler) -> Handler:
    async def handle(request: Request) -> Response:
        facts = facts_of(request.scope)
        try:
            return await handler(request)
        except ClientGone:
            facts.reason = "client_gone"
            return Response(status_code=_CLIENT_GONE)
        except Exception as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise
            facts.reason = refusal.reason
            return refused(refusal, is_tei=facts.is_tei)

    return handle


async def _unrouted(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    wanted = (error.headers or {}).get("Allow", "another method")
    message = "no such path; GET /openapi.json lists them"
    if error.status_code == 405:
        message = f"{request.method[:10]}: want {wanted}"
    facts_of(request.scope).reason = "unrouted"
    response = refused(Refusal(error.status_code, "unrouted", message), is_tei=False)
    response.headers.update(error.headers or {})
    return response


class _Api:
    def __init__(self, answering: Callable[[], Answering], limits: Limits) -> None:
        self._answering = answering
        self._limits = limits
        self._openapi = msgspec.json.encode(document())
        self._page = html_page("page.html")

    async def rerank(self, request: Request) -> Response:
        """Cohere's and Jina's shape, or text-embeddings-inference's."""
        body = await read(request, self._limits, (JSON,))
        if is_tei(body.content):
            facts_of(request.scope).is_tei = True
            return await self._rerank_tei(request, decoded(body.content, JSON, schemas.TeiRequest))
        asked = decoded(body.content, JSON, schemas.CohereRequest)
        texts = [item if isinstance(item, str) else item.text for item in asked.documents]
        model, answer = await self._texts(request, asked.query, texts, "documents")
        shown = asked.return_documents
        results = [
            schemas.CohereResult(
                index, score, schemas.TextDocument(text=texts[index]) if shown else msgspec.UNSET
            )
            for index, score in _ranked(answer.probabilities, asked.top_n)
        ]
        version = "2" if request.url.path.endswith("/v2/rerank") else "1"
        meta = schemas.CohereMeta(
            schemas.CohereVersion(version),
            schemas.CohereUnits(-(-len(texts) // _SEARCH_UNIT)),
            schemas.CohereTokens(answer.tokens, 0),
        )
        return _answered(
            schemas.CohereResponse(
                str(uuid.uuid4()), model.model, results, schemas.Usage(answer.tokens), meta
            )
        )

    async def _rerank_tei(self, request: Request, asked: schemas.TeiRequest) -> Response:
        may_cut = asked.truncate is not False
        _, answer = await self._texts(request, asked.query, asked.texts, "texts", may_cut=may_cut)
        scores = answer.scores if asked.raw_scores else answer.probabilities
        return _answered(
            [
                schemas.TeiRank(
                    index, score, asked.texts[index] if asked.return_text else msgspec.UNSET
                )
                for index, score in _ranked(scores, asked.top_n)
            ]
        )

    async def score(self, request: Request) -> Response:
        """Pairs, in JSON or msgpack."""
        body = await read(request, self._limits, (JSON, MSGPACK))
        asked = decoded(body.content, body.media_type, schemas.ScoreRequest)
        _check_count("pairs", len(asked.pairs), self._limits.max_documents)
        for place, pair in enumerate(asked.pairs):
            self._check_query(f"pairs[{place}].query", pair.query)
            self._check_text(f"pairs[{place}].title", pair.title)
        facts_of(request.scope).documents = len(asked.pairs)
        model = self._answering()
        queries = [pair.query for pair in asked.pairs]
        titles = [pair.title for pair in asked.pairs]
        answer = await _asked(request, model, model.pairs(queries, titles))
        return _answered(
            schemas.ScoreResponse(
                model.model,
                model.version,
                answer.scores.tolist(),
                answer.probabilities.tolist(),
                schemas.Usage(answer.tokens),
            ),
            accepted(request, (JSON, MSGPACK), body.media_type),
        )

    async def relevance(self, request: Request) -> Response:
        """A search engine's call, in JSON, msgpack or Arrow."""
        kinds = (JSON, MSGPACK, ARROW)
        body = await read(request, self._limits, kinds)
        if body.media_type == ARROW:
            asked = arrow.relevance_request(body.content, self._limits)
        else:
            asked = decoded(body.content, body.media_type, schemas.RelevanceRequest)
        ranking_scores = self._check_relevance(asked)
        facts_of(request.scope).documents = len(asked.item_ids)
        model = self._answering()
        answer = await _asked(request, model, model.items(asked.query, asked.item_ids))
        relevance = answer.probabilities
        score = combined(relevance, ranking_scores, asked.weight)
        # an unknown item is not a number, which is above no threshold
        kept = relevance >= asked.threshold
        order = falling(score)
        order = order[kept[order]][: asked.max_results]
        facts = schemas.RelevanceFacts(
            model=model.model,
            version=model.version,
            unknown=[asked.item_ids[place] for place in answer.unknown],
            below_threshold=len(relevance) - int(kept.sum()) - len(answer.unknown),
            usage=schemas.Usage(answer.tokens),
        )
        item_ids = [asked.item_ids[place] for place in order]
        kind = accepted(request, kinds, body.media_type)
        if kind == ARROW:
            content = arrow.relevance_response(
                facts, item_ids, order, relevance[order], score[order]
            )
            return Response(content, media_type=ARROW)
        rows = zip(
            item_ids, order.tolist(), relevance[order].tolist(), score[order].tolist(), strict=True
        )
        results = [schemas.RelevanceResult(*row) for row in rows]
        return _answered(
            schemas.RelevanceResponse(**msgspec.structs.asdict(facts), results=results), kind
        )

    async def explain(self, request: Request) -> Response:
        """Scores and the term classes of words, for the page."""
        body = await read(request, self._limits, (JSON,))
        asked = decoded(body.content, JSON, schemas.ExplainRequest)
        _check_count("titles", len(asked.titles), self._limits.max_explained)
        model, answer = await self._texts(request, asked.query, asked.titles, "titles")
        # classes of words are computed, not looked up: others need not wait
        words = await asyncio.to_thread(
            lambda: [_words(model, text) for text in (asked.query, *asked.titles)]
        )
        results = [
            schemas.ExplainedTitle(
                index, float(answer.scores[index]), probability, words[1 + index]
            )
            for index, probability in _ranked(answer.probabilities, None)
        ]
        return _answered(schemas.ExplainResponse(model.model, model.version, words[0], results))

    async def models(self, request: Request) -> Response:
        """The model that answers."""
        model = self._answering()
        return _answered(
            schemas.ModelList([schemas.ModelCard(model.model, model.version, model.source)])
        )

    async def livez(self, request: Request) -> Response:
        """Whether the process answers."""
        return _answered(schemas.Health())

    async def readyz(self, request: Request) -> Response:
        """Whether the model is loaded and warm."""
        self._answering()
        return _answered(schemas.Health())

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        return Response(metrics.exposition(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def openapi(self, request: Request) -> Response:
        """This API, described."""
        return Response(self._openapi, media_type=JSON)

    async def page(self, request: Request) -> Response:
        """For people."""
        return self._page

    async def _texts(
        self,
        request: Request,
        query: str,
        texts: Sequence[str],
        name: str,
        *,
        may_cut: bool = True,
    ) -> tuple[Answering, Answer]:
        self._check_query("query", query)
        _check_count(name, len(texts), self._limits.max_documents)
        for place, text in enumerate(texts):
            self._check_text(f"{name}[{place}]", text)
        facts_of(request.scope).documents = len(texts)
        model = self._answering()
        # told before anything is scored, and of texts whose scores are remembered too
        if not may_cut and (cut := await asyncio.to_thread(model.cut, query, texts)):
            message = f"{cut} {name} are longer than the model reads; set truncate"
            raise Refusal(413, "too_long", message)
        return model, await _asked(request, model, model.texts(query, texts))

    def _check_relevance(self, asked: schemas.RelevanceRequest) -> Any:
        self._check_query("query", asked.query)
        _check_count("item_ids", len(asked.item_ids), self._limits.max_documents)
        for place, item_id in enumerate(asked.item_ids):
            _check_bytes(f"item_ids[{place}]", item_id, self._limits.max_item_id_bytes)
        if asked.ranking_scores is None:
            return None
        scores = np.asarray(asked.ranking_scores, dtype=np.float64)
        if len(scores) != len(asked.item_ids):
            message = f"ranking_scores: {len(scores)}; want {len(asked.item_ids)}, one per item"
            raise Refusal(422, "shape", message)
        if not np.isfinite(scores).all():
            place = int(np.flatnonzero(~np.isfinite(scores))[0])
            message = f"ranking_scores[{place}]: {scores[place]}; want a finite number"
            raise Refusal(422, "shape", message)
        return scores

    def _check_query(self, name: str, query: str) -> None:
        if not query.strip():
            raise Refusal(400, EMPTY, f"{name}: empty; want at least a word")
        self._check_text(name, query)

    def _check_text(self, name: str, text: str) -> None:
        _check_bytes(name, text, self._limits.max_text_bytes)


def _check_count(name: str, count: int, most: int) -> None:
    if count == 0:
        raise Refusal(400, EMPTY, f"{name}: none; want 1 to {most:,}")
    if count > most:
        raise Refusal(413, "documents", f"{name}: {count:,}; want 1 to {most:,}")


def _check_bytes(name: str, text: str, most: int) -> None:
    # a character has four bytes at most, and most texts are far shorter
    if 4 * len(text) > most and (size := len(text.encode())) > most:
        raise Refusal(413, "text_bytes", f"{name}: {size:,} bytes; want at most {most:,}")


def _ranked(values: Any, top_n: int | None) -> list[tuple[int, float]]:
    order = falling(values)[: top_n or None]
    return list(zip(order.tolist(), values[order].tolist(), strict=True))


def _words(model: Answering, text: str) -> list[schemas.Word]:
    return [schemas.Word(word, term_class) for word, term_class in model.explain(text)]


def _answered(body: object, media_type: str = JSON) -> Response:
    return Response(encoded(body, media_type), media_type=media_type)


async def _asked(request: Request, model: Answering, ask: Coroutine[Any, Any, Answer]) -> Answer:
    answer = await _while_connected(request, ask)
    facts = facts_of(request.scope)
    facts.version = model.version
    facts.tokens = answer.tokens
    facts.truncated = answer.truncated
    facts.unknown = len(answer.unknown)
    return answer


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, and cancel it once its client hangs up, so that nothing is scored for nobody.

    Raises:
        ClientGone: The client hung up first.
    """
    task = asyncio.ensure_future(work)
    # the body has been read: all that can still arrive is the end of the connection
    end = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, end}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        end.cancel()
        await asyncio.gather(task, end, return_exceptions=True)
