"""Why a request gets no answer: one exception, and the error bodies of the conventions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
from starlette.responses import Response

from serving.answers import ItemTableMissing, NotReady, Overloaded, TooLate
from serving.schemas import CohereError, TeiError, TeiErrorType

_RETRY_S = 1
_MAX_MESSAGE = 400
EMPTY = "empty"
"""The reason that text-embeddings-inference has a word for."""
_TEI_TYPES: dict[int, TeiErrorType] = {429: "Overloaded", 503: "Unhealthy"}


@dataclass
class Refusal(Exception):
    """A request that is not answered."""

    status: int
    """Of HTTP."""
    reason: str
    """For metrics and logs: few different values, no text of the request."""
    message: str
    """For whoever sent it: what was given, what is wanted."""
    retry_after_s: int | None = None

    def __str__(self) -> str:
        return f"{self.status} {self.reason}: {self.message}"


def refusal_of(error: Exception) -> Refusal | None:
    """What ``serving.answers`` may raise, in terms of HTTP; None for anything else."""
    match error:
        case Refusal():
            return error
        case Overloaded():
            seconds = max(_RETRY_S, math.ceil(error.retry_after_s))
            return Refusal(429, "overloaded", str(error), seconds)
        case TooLate():
            return Refusal(503, "too_late", "the deadline passed in the queue; try again", _RETRY_S)
        case NotReady():
            message = "the model is being loaded, or the server is going down; try again"
            return Refusal(503, "not_ready", message, _RETRY_S)
        case ItemTableMissing():
            message = "item_ids: this scorer has no item table; send titles to /rerank"
            return Refusal(422, "no_item_table", message)
        case _:
            return None


def refused(refusal: Refusal, *, is_tei: bool) -> Response:
    """The error body of text-embeddings-inference, or Cohere's, which all else here uses."""
    message = refusal.message[:_MAX_MESSAGE]
    body: TeiError | CohereError
    if is_tei:
        other: TeiErrorType = "Empty" if refusal.reason == EMPTY else "Validation"
        body = TeiError(message, _TEI_TYPES.get(refusal.status, other))
    else:
        body = CohereError(message)
    headers = {}
    if refusal.retry_after_s is not None:
        headers["retry-after"] = str(refusal.retry_after_s)
    return Response(
        msgspec.json.encode(body), refusal.status, headers, media_type="application/json"
    )
