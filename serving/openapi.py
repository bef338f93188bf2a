"""The API's operations, and their description in OpenAPI 3.1, made from ``serving.schemas``."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from serving import schemas
from serving.bodies import ARROW, JSON, MSGPACK

_TEXT = "text/plain"
_HTML = "text/html"
_REQUEST_ERRORS = (400, 405, 408, 413, 415, 422, 429, 500, 503)
_DESCRIPTIONS = {
    400: "Unreadable, or nothing to score",
    405: "Another method is wanted",
    408: "The body took too long",
    413: "Beyond a limit",
    415: "Another Content-Type or Content-Encoding is wanted",
    422: "Another shape is wanted",
    429: "Overloaded: try again after Retry-After",
    500: "A bug of ours; the log has it under the request id",
    503: "Not ready, or too late: try again after Retry-After",
}


@dataclass(frozen=True)
class Operation:
    """A path, what it takes and what it answers."""

    method: Literal["GET", "POST"]
    path: str
    handler: str
    """Of ``serving.api``."""
    summary: str
    answers: tuple[Any, ...]
    """Shapes of the answer; none for what is no JSON."""
    requests: tuple[Any, ...] = ()
    media_types: tuple[str, ...] = (JSON,)
    """Of request and answer."""
    needs_model: bool = True


_RERANK = "Rerank documents, as Cohere and Jina do, or as text-embeddings-inference does"
_RERANK_REQUESTS = (schemas.CohereRequest, schemas.TeiRequest)
_RERANK_ANSWERS = (schemas.CohereResponse, list[schemas.TeiRank])

OPERATIONS = (
    *(
        Operation("POST", path, "rerank", _RERANK, _RERANK_ANSWERS, _RERANK_REQUESTS)
        for path in ("/rerank", "/v1/rerank", "/v2/rerank")
    ),
    Operation(
        "POST",
        "/score",
        "score",
        "Score pairs of a query and a title",
        (schemas.ScoreResponse,),
        (schemas.ScoreRequest,),
        (JSON, MSGPACK),
    ),
    Operation(
        "POST",
        "/v1/relevance",
        "relevance",
        "Keep a query's relevant items, in an order that minds the ranking score",
        (schemas.RelevanceResponse,),
        (schemas.RelevanceRequest,),
        (JSON, MSGPACK, ARROW),
    ),
    Operation(
        "POST",
        "/v1/explain",
        "explain",
        "Score titles and class their words",
        (schemas.ExplainResponse,),
        (schemas.ExplainRequest,),
    ),
    Operation("GET", "/v1/models", "models", "The model that answers", (schemas.ModelList,)),
    Operation(
        "GET",
        "/livez",
        "livez",
        "Whether the process answers",
        (schemas.Health,),
        needs_model=False,
    ),
    Operation("GET", "/readyz", "readyz", "Whether the model is ready", (schemas.Health,)),
    Operation(
        "GET",
        "/metrics",
        "metrics",
        "Metrics for Prometheus",
        (),
        media_types=(_TEXT,),
        needs_model=False,
    ),
    Operation(
        "GET", "/openapi.json", "openapi", "This description", (dict[str, Any],), needs_model=False
    ),
    Operation("GET", "/", "page", "A page to try it", (), media_types=(_HTML,), needs_model=False),
)


def document() -> dict[str, Any]:
    """The whole description."""
    shapes = [
        shape for operation in OPERATIONS for shape in (*operation.requests, *operation.answers)
    ]
    types = list(dict.fromkeys([*shapes, schemas.CohereError, schemas.TeiError]))
    found, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    references = dict(zip(types, found, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(
            operation, references
        )
    return {
        "openapi": "3.1.0",
        "info": {"title": "querylift scorer", "version": importlib.metadata.version("querylift")},
        "paths": paths,
        "components": {"schemas": components},
    }


def _described(operation: Operation, references: Mapping[Any, Any]) -> dict[str, Any]:
    answers = _content(operation.media_types, [references[s] for s in operation.answers])
    responses: dict[str, Any] = {"200": {"description": "The answer", "content": answers}}
    errors = [references[schemas.CohereError]]
    if schemas.TeiRequest in operation.requests:
        errors.append(references[schemas.TeiError])
    for status in _REQUEST_ERRORS if operation.requests else (405, 500):
        responses[str(status)] = _error(status, errors)
    if operation.needs_model:
        responses["503"] = _error(503, errors)
    described: dict[str, Any] = {
        "operationId": operation.path.strip("/").replace("/", "_").replace(".", "_") or "page",
        "summary": operation.summary,
        "responses": responses,
    }
    if operation.requests:
        described["requestBody"] = {
            "required": True,
            "content": _content(operation.media_types, [references[s] for s in operation.requests]),
        }
    return described


def _content(media_types: tuple[str, ...], shapes: list[Any]) -> dict[str, Any]:
    shape: dict[str, Any] = {}
    if shapes:
        shape = {"schema": shapes[0] if len(shapes) == 1 else {"anyOf": shapes}}
    # Arrow's columns are in docs/api.md: JSON schema has no words for them
    return {name: {} if name == ARROW else shape for name in media_types}


def _error(status: int, shapes: list[Any]) -> dict[str, Any]:
    return {"description": _DESCRIPTIONS[status], "content": _content((JSON,), shapes)}
