"""Copies of requests to a scorer that answers nobody, so that it can be compared before it does.

A copy is made after the answer has left, over connections of its own. Few are in flight at a time;
what is beyond is dropped and counted, so a shadow that is slow or dead costs the shopper nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import aiohttp
from mmh3 import mmh3_32_uintdigest

from abtest.assignment import Assignment
from abtest.records import Shadow, uuid7
from serving.asked import Asked, Ranked
from serving.event_log import EventLog, LogFull
from serving.running import InForce
from serving.traffic import Traffic
from serving.upstreams import Failed, Question, Reply, Upstream

LOG = logging.getLogger("querylift.splitter")


@dataclass(frozen=True)
class Shadowing:
    """What copies may cost."""

    timeout_s: float = 2.0
    """Of a copy."""
    max_in_flight: int = 8
    """Copies at a time; each keeps its request's body."""


class Shadowed(NamedTuple):
    """A request that was answered."""

    query_id: str
    client_id: str | None
    """Hashed."""
    scorer: str
    """Who answered."""
    asked: Asked
    reply: Reply


class Shadows:
    """Sends copies and logs what came back."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        log: EventLog,
        traffic: Traffic,
        shadowing: Shadowing,
    ) -> None:
        self._session = session
        self._log = log
        self._traffic = traffic
        self._shadowing = shadowing
        self._in_flight: set[asyncio.Task[None]] = set()

    async def copy(
        self,
        in_force: InForce,
        assignments: Sequence[Assignment],
        question: Question,
        shadowed: Shadowed,
    ) -> None:
        """Begin the copies that are due for a request; waits for none of them."""
        for assignment in assignments:
            shadow = in_force.experiments.experiments[assignment.experiment_id].shadow
            if shadow is None or not _is_due(assignment, shadowed.query_id, shadow.share):
                continue
            if len(self._in_flight) >= self._shadowing.max_in_flight:
                self._traffic.shadows[shadow.scorer, "dropped"] += 1
                continue
            url = in_force.experiments.scorers[shadow.scorer].url
            upstream = Upstream(shadow.scorer, url, self._session, None)
            task = asyncio.create_task(
                self._compare(upstream, assignment.experiment_id, question, shadowed)
            )
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)

    async def close(self) -> None:
        """Give up what is in flight."""
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)

    async def _compare(
        self, upstream: Upstream, experiment_id: str, question: Question, shadowed: Shadowed
    ) -> None:
        started = time.perf_counter()
        theirs, failure = None, None
        try:
            reply = await upstream.ask(question, self._shadowing.timeout_s)
            theirs = reply.ranked
            # the main scorer took the request that this one calls wrong
            failure = None if theirs else "status"
        except Failed as failed:
            failure = failed.failure
        seconds = time.perf_counter() - started
        ours = shadowed.reply.ranked
        assert ours is not None  # only answers are compared
        places, main, shadow = _beside(ours, theirs)
        record = Shadow(
            shadow_id=uuid7(datetime.now(UTC)),
            query_id=shadowed.query_id,
            timestamp=datetime.now(UTC),
            client_id=shadowed.client_id,
            experiment_id=experiment_id,
            main_scorer=shadowed.scorer,
            shadow_scorer=upstream.name,
            item_keys=tuple(shadowed.asked.keys(places)),
            main_scores=main,
            shadow_scores=shadow,
            main_ms=round(1_000 * shadowed.reply.seconds, 3),
            shadow_ms=round(1_000 * seconds, 3),
            failure=failure,
        )
        outcome = failure or "ok"
        try:
            self._log.append([record])
        except LogFull:
            outcome = "log_full"
        self._traffic.shadows[upstream.name, outcome] += 1


def _is_due(assignment: Assignment, query_id: str, share: float) -> bool:
    # of all pages of a query, or of none
    drawn: int = mmh3_32_uintdigest(f"shadow:{assignment.experiment_id}:{query_id}".encode(), 0)
    return drawn < share * 2**32


def _beside(
    ours: Ranked, theirs: Ranked | None
) -> tuple[list[int], tuple[float | None, ...], tuple[float | None, ...]]:
    """Places of the items that either answer has, in our order first, with both scores."""
    if theirs is None:
        return ours.places, tuple(ours.scores), ()
    main = dict(zip(ours.places, ours.scores, strict=True))
    shadow = dict(zip(theirs.places, theirs.scores, strict=True))
    places = list(main | shadow)
    return places, tuple(map(main.get, places)), tuple(map(shadow.get, places))
