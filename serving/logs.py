"""One line of JSON per request, request ids and trace context, and the metrics of requests.

No text of a shopper is logged: neither queries, nor titles, nor paths that are not ours.
"""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Collection, MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import metrics
from serving.refusals import Refusal, refused

LOG = logging.getLogger("querylift.requests")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# W3C Trace Context, version 00
_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")
_KEY = "querylift.facts"


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; ``extra={"facts": {...}}`` adds fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


@dataclass
class Facts:
    """What is known of a request, filled while it is answered."""

    request_id: str
    traceparent: str | None = None
    is_tei: bool = False
    """Whether errors are in text-embeddings-inference's shape."""
    status: int = 0
    reason: str | None = None
    """Why it was refused."""
    documents: int | None = None
    tokens: int | None = None
    truncated: int | None = None
    unknown: int | None = None
    version: str | None = None
    """Of the model."""


def facts_of(scope: MutableMapping[str, Any]) -> Facts:
    """The facts of a request that ``Observed`` let in."""
    facts: Facts = scope[_KEY]
    return facts


class Observed:
    """Middleware: gives a request its id, answers its trace context, counts and logs it.

    An error that nobody caught is logged with its traceback and answered with 500.
    """

    def __init__(self, app: ASGIApp, paths: Collection[str]) -> None:
        self._app = app
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        facts = scope[_KEY] = _facts(Headers(scope=scope))
        endpoint = scope["path"] if scope["path"] in self._paths else "unmatched"
        started = time.perf_counter()
        is_started = False

        async def sent(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                facts.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = facts.request_id
                if facts.traceparent:
                    headers["traceparent"] = facts.traceparent
                if facts.version:
                    headers["x-model-version"] = facts.version
            await send(message)

        try:
            with metrics.IN_FLIGHT.track_inprogress():
                await self._app(scope, receive, sent)
        except Exception:
            facts.reason = "internal"
            LOG.exception("unexpected error", extra={"facts": {"request_id": facts.request_id}})
            if not is_started:
                message = f"internal error; the log has it under request id {facts.request_id}"
                answer = refused(Refusal(500, "internal", message), is_tei=False)
                await answer(scope, receive, sent)
        finally:
            _record(facts, scope["method"], endpoint, time.perf_counter() - started)


def _facts(headers: Headers) -> Facts:
    given = headers.get("x-request-id", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    traceparent = headers.get("traceparent", "")
    return Facts(request_id, traceparent if _TRACEPARENT.fullmatch(traceparent) else None)


def _record(facts: Facts, method: str, endpoint: str, seconds: float) -> None:
    metrics.REQUESTS.labels(endpoint, str(facts.status)).inc()
    metrics.REQUEST_SECONDS.labels(endpoint).observe(seconds)
    if facts.reason:
        metrics.ERRORS.labels(endpoint, facts.reason).inc()
    if facts.documents is not None:
        metrics.DOCUMENTS.labels(endpoint).observe(facts.documents)
    metrics.TOKENS.inc(facts.tokens or 0)
    metrics.TRUNCATED.inc(facts.truncated or 0)
    metrics.UNKNOWN_ITEMS.inc(facts.unknown or 0)
    line: dict[str, Any] = {
        "request_id": facts.request_id,
        "method": method if method.isalpha() and len(method) < 10 else "other",
        "endpoint": endpoint,
        "status": facts.status,
        "seconds": round(seconds, 6),
    }
    if match := _TRACEPARENT.fullmatch(facts.traceparent or ""):
        line |= {"trace_id": match[1], "parent_span_id": match[2]}
    for name in ("reason", "documents", "tokens", "truncated", "unknown", "version"):
        if (value := getattr(facts, name)) is not None:
            line[name] = value
    # probes and scrapes come every few seconds and say nothing
    quiet = endpoint in ("/livez", "/readyz", "/metrics", "/v1/status") and facts.status == 200
    LOG.log(logging.DEBUG if quiet else logging.INFO, "request", extra={"facts": line})
