"""One request's way through the splitter: unit, variant, scorer, log, answer.

The shopper always gets an order. The variant's scorer is asked first, then the champion, and if
neither answers in time and in shape, the items come back as they were sent. What the log holds of
it is appended before the answer leaves.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, NamedTuple
from uuid import UUID

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from abtest.assignment import Assignment, scorer_of
from abtest.records import uuid7
from serving.asked import GIVEN_ORDER, Asked, asked
from serving.bodies import ARROW, JSON, MSGPACK, ClientGone, accepted, is_tei, read_body
from serving.course import Course, run
from serving.event_log import EventLog, LogFull
from serving.limits import Limits
from serving.logs import Facts, facts_of
from serving.privacy import hashed
from serving.query_records import query_records
from serving.refusals import Refusal, refused
from serving.running import InForce, Running
from serving.shadowing import Shadowed, Shadows
from serving.traffic import Answered, Traffic
from serving.upstreams import Question, Reply

LOG = logging.getLogger("querylift.splitter")

PATHS = {
    "/rerank": (JSON,),
    "/v1/rerank": (JSON,),
    "/v2/rerank": (JSON,),
    "/v1/relevance": (JSON, MSGPACK, ARROW),
}
"""What is routed, and the media types of each."""

Unassigned = Literal["", "no_unit", "bad_unit", "log_full"]

_CLIENT_GONE = 499
_RESERVE = 0.05
"""Share of the deadline that is kept for our own work."""
_RETRY_LOG_S = 1.0
"""That nobody is assigned after the log took nothing, lest every variant is asked in vain."""


@dataclass(frozen=True)
class Routing:
    """How requests are routed.

    Raises:
        ValueError: A setting is out of its range.
    """

    unit_header: str = "x-client-id"
    unit_cookie: str = "ql_client"
    """Read where the header is absent."""
    deadline_s: float = 0.5
    """From the last byte of a request to its answer."""
    variant_share: float = 0.6
    """Of the deadline that a variant's scorer has; the champion has the rest."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.deadline_s > 0:
            raise ValueError(f"routing.deadline_s: {self.deadline_s}; want more than 0")
        if not 0 < self.variant_share < 1:
            raise ValueError(f"routing.variant_share: {self.variant_share}; want 0 to 1")


class Unit(NamedTuple):
    """Whose request it is."""

    unit_id: str | None
    hashed: str | None
    """As the log has it."""
    unassigned: Unassigned


class Splitter:
    """Routes requests. Belongs to one event loop."""

    def __init__(
        self,
        running: Running,
        log: EventLog,
        key: bytes,
        traffic: Traffic,
        shadows: Shadows,
        routing: Routing,
    ) -> None:
        self._running = running
        self._log = log
        self._key = key
        self._traffic = traffic
        self._shadows = shadows
        self._routing = routing
        self._log_full_until = 0.0

    async def post(self, request: Request) -> Response:
        """Answer a request to one of ``PATHS``."""
        facts = facts_of(request.scope)
        try:
            return await self._post(request, facts)
        except ClientGone:
            facts.reason = "client_gone"
            return Response(status_code=_CLIENT_GONE)
        except Refusal as refusal:
            facts.reason = refusal.reason
            self._traffic.wrong[refusal.status] += 1
            return refused(refusal, is_tei=facts.is_tei)

    async def _post(self, request: Request, facts: Facts) -> Response:
        path, limits = request.scope["path"], self._routing.limits
        body = await read_body(request, limits, PATHS[path])
        end = asyncio.get_running_loop().time() + (1 - _RESERVE) * self._routing.deadline_s
        facts.is_tei = path != "/v1/relevance" and is_tei(body.content)
        answer_type = accepted(request, PATHS[path], body.media_type)
        wanted = asked(path, body, answer_type, limits, is_tei=facts.is_tei)
        headers = {
            "content-type": body.media_type,
            "accept": answer_type,
            "x-request-id": facts.request_id,
        }
        if facts.traceparent:
            headers["traceparent"] = facts.traceparent
        facts.documents = wanted.count
        question = Question(path, body.content, headers, answer_type, wanted.ranked)
        try:
            return await self._routed(request, facts, wanted, question, end)
        except Refusal:
            raise
        except Exception:
            # a mistake of ours is no reason to show a shopper nothing
            LOG.exception("unexpected error", extra={"facts": {"request_id": facts.request_id}})
            facts.reason = "internal"
            return Response(
                wanted.in_given_order(),
                headers={"x-querylift-scorer": GIVEN_ORDER, "x-querylift-fallback": "internal"},
                media_type=answer_type,
            )

    async def _routed(
        self, request: Request, facts: Facts, wanted: Asked, question: Question, end: float
    ) -> Response:
        started = time.perf_counter()
        in_force = self._running.now
        champion = in_force.experiments.champion
        unit = self._unit(request)
        assignments: tuple[Assignment, ...] = ()
        if unit.unit_id is not None and not unit.unassigned:
            assignments = in_force.split.assign(unit.unit_id)
        query_id = _query_id(request)
        course = await self._ask(in_force, scorer_of(assignments, champion), question, end)
        if course.reply is not None and course.reply.ranked is None:
            return self._passed_on(course.reply, facts)

        seconds = time.perf_counter() - started
        try:
            self._log.append(
                query_records(
                    in_force,
                    assignments,
                    unit.hashed,
                    query_id,
                    wanted,
                    question.path,
                    course,
                    seconds,
                )
            )
            self._log_full_until = 0.0
        except LogFull:
            # what is not logged is no experiment: the champion answers
            self._log_full_until = time.monotonic() + _RETRY_LOG_S
            unit, assignments = unit._replace(unassigned="log_full"), ()
            if course.reply is not None and course.answered_by != champion:
                course = await self._ask(in_force, champion, question, end)
                if course.reply is not None and course.reply.ranked is None:
                    return self._passed_on(course.reply, facts)
        content = course.reply.content if course.reply else wanted.in_given_order()
        self._traffic.count(
            Answered(
                assignments,
                course.answered_by,
                course.fallback,
                unit.unassigned,
                time.perf_counter() - started,
            ),
            int(unit.hashed[:16], 16) if unit.hashed else 0,
        )
        facts.reason = course.fallback or unit.unassigned or None
        facts.version = (course.reply and course.reply.model_version) or None
        copy = None
        if course.reply is not None and not course.fallback and assignments:
            shadowed = Shadowed(query_id, unit.hashed, course.answered_by, wanted, course.reply)
            copy = BackgroundTask(self._shadows.copy, in_force, assignments, question, shadowed)
        return Response(
            content,
            headers=_headers(query_id, assignments, course, unit.unassigned),
            media_type=question.answer_type,
            background=copy,
        )

    async def _ask(
        self, in_force: InForce, assigned: str, question: Question, end: float
    ) -> Course:
        share = self._routing.variant_share
        return await run(in_force, assigned, question, end, share, self._traffic)

    def _passed_on(self, reply: Reply, facts: Facts) -> Response:
        """A scorer's word that the request is wrong."""
        self._traffic.wrong[reply.status] += 1
        facts.reason = "wrong"
        return Response(reply.content, reply.status, {"content-type": reply.content_type})

    def _unit(self, request: Request) -> Unit:
        given = request.headers.get(self._routing.unit_header)
        if given is None:
            given = request.cookies.get(self._routing.unit_cookie)
        unit_id = (given or "").strip()
        if not unit_id:
            return Unit(None, None, "no_unit")
        # anything else reaches us as Latin-1, whatever was meant
        if not unit_id.isascii() or len(unit_id) > 512:
            return Unit(None, None, "bad_unit")
        is_full = time.monotonic() < self._log_full_until
        return Unit(unit_id, hashed(unit_id, self._key), "log_full" if is_full else "")


def _query_id(request: Request) -> str:
    """The client's, if it is a UUID, so that pages of one query share it; else a fresh one."""
    given = request.headers.get("x-query-id", "")
    try:
        return str(UUID(given)) if len(given) == 36 else str(uuid7(datetime.now(UTC)))
    except ValueError:
        return str(uuid7(datetime.now(UTC)))


def _headers(
    query_id: str, assignments: Sequence[Assignment], course: Course, unassigned: str
) -> dict[str, str]:
    headers = {"x-query-id": query_id, "x-querylift-scorer": course.answered_by}
    if assignments:
        variants = (f"{a.experiment_id}={a.variant}" for a in assignments)
        headers["x-querylift-variant"] = ", ".join(variants)
    if course.fallback:
        headers["x-querylift-fallback"] = course.fallback
    if unassigned:
        headers["x-querylift-unassigned"] = unassigned
    return headers
