"""``POST /v1/events``: events of shoppers, answered once they are on the disk."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from abtest.event_door import Door, Malformed, Refused, TooMany, decode_events
from serving.bodies import JSON, ClientGone, read_body
from serving.event_log import EventLog, LogFull
from serving.limits import Limits
from serving.privacy import private
from serving.refusals import Refusal, refused

LIMITS = Limits(max_body_bytes=512 * 1024, max_inflated_bytes=1024 * 1024)
_CLIENT_GONE = 499
_RETRY_S = 1


class EventsAnswer(msgspec.Struct, frozen=True):
    """What became of the events of a request."""

    accepted: int
    """On the disk."""
    refused: list[Refused]
    """By place in the request; sent again they would be refused again."""


class Collector:
    """The endpoint, and what it has counted."""

    def __init__(
        self, log: EventLog, key: bytes, door: Door | None = None, limits: Limits = LIMITS
    ) -> None:
        self._log = log
        self._key = key
        self._door = door or Door()
        self._limits = limits
        self.accepted = 0
        """Events."""
        self.refused = 0
        """Events that were wrong."""
        self.turned_away = 0
        """Requests that came while the log took nothing."""

    async def post(self, request: Request) -> Response:
        """Keep the good events of a request and name the others.

        200 if any was kept or none was sent, 422 if all are wrong, 503 if the log takes nothing:
        then none was kept, and the same events may be sent again.
        """
        try:
            body = await read_body(request, self._limits, (JSON,))
            return await self._keep(body.content)
        except ClientGone:
            return Response(status_code=_CLIENT_GONE)
        except Refusal as refusal:
            return refused(refusal, is_tei=False)

    async def _keep(self, body: bytes) -> Response:
        try:
            decoded = decode_events(body, datetime.now(UTC), self._door)
        except Malformed as error:
            raise Refusal(400, "syntax", str(error)) from None
        except TooMany as error:
            raise Refusal(413, "too_many_events", str(error)) from None
        bad = [event for event in decoded if isinstance(event, Refused)]
        good = [private(event, self._key) for event in decoded if not isinstance(event, Refused)]
        self.refused += len(bad)
        if good:
            try:
                await self._log.synced(self._log.append(good))
            except LogFull as error:
                self.turned_away += 1
                message = "the event log takes nothing now; try again"
                raise Refusal(503, "log_full", message, _RETRY_S) from error
            self.accepted += len(good)
        answer = EventsAnswer(len(good), bad)
        status = 422 if bad and not good else 200
        return Response(msgspec.json.encode(answer), status, media_type=JSON)
