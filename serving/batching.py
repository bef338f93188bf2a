"""Batches across requests, by tokens: what waits shares the model's next call.

Requests take turns, so that a small one is not held up by thousands of titles asked before it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from relevance.scorer import Job, Scorer, Scores
from relevance.titles import Titles
from serving.answers import NotReady, Overloaded, TooLate
from serving.limits import Batching
from serving.metrics import BATCH_TOKENS, QUEUE_PAIRS, QUEUE_SECONDS

_PAIR_TOKENS = 32
"""Of a pair that is not read yet, about."""
_SHARE = 2_048
"""Tokens of a request's turn at least: in ever smaller parts of many all would be late."""
_TURNS = 2
"""At once: while one is finished, the processors begin with the next."""
_READ = 256
"""Titles that are read before another request has its turn."""

Read = Callable[[int, int], Titles]
"""Titles from a place to another, as the model reads them."""


@dataclass(frozen=True)
class Scored:
    """Scores of one query's titles."""

    scores: Scores
    tokens: int
    """Read by the model."""
    truncated: int
    """Titles that were cut to the model's cap."""


@dataclass(eq=False)
class _Waiting:
    """A job and how far it is."""

    job: Job
    ends: np.ndarray
    """Tokens of its titles up to and with each. [titles]"""
    answer: asyncio.Future[Scores]
    arrived: float
    scores: Scores = field(init=False)
    done: int = 0
    """Titles taken so far."""
    scored: int = 0
    """Titles whose scores are there."""

    def __post_init__(self) -> None:
        self.scores = np.empty(len(self.ends), np.float32)

    @property
    def tokens_left(self) -> int:
        return int(self.ends[-1]) - self._tokens_done()

    def _tokens_done(self) -> int:
        return int(self.ends[self.done - 1]) if self.done else 0

    def take(self, tokens: int) -> _Part:
        """The next titles of at most so many tokens, but one at least."""
        limit = self._tokens_done() + tokens
        end = max(int(np.searchsorted(self.ends, limit, side="right")), self.done + 1)
        part = _Part(self, self.done, end, int(self.ends[end - 1]) - self._tokens_done())
        self.done = end
        return part


@dataclass(frozen=True)
class _Part:
    """Some titles of a job, in one turn of the model."""

    whole: _Waiting
    start: int
    end: int
    tokens: int

    @property
    def job(self) -> Job:
        """Of these titles alone."""
        job = self.whole.job
        if (self.start, self.end) == (0, len(job.titles)):
            return job
        return Job(job.query, job.titles.take(np.arange(self.start, self.end)))


class Batcher:
    """One scorer's queue: to be read, then to be scored. Belongs to one event loop.

    Whether a request gets in is told at once, before anything is done for it.
    """

    def __init__(self, scorer: Scorer, settings: Batching) -> None:
        self._scorer = scorer
        self._settings = settings
        self._queue: deque[_Waiting] = deque()
        self._unread = 0
        """Pairs that are let in and not read yet."""
        self._tokens = 0
        """That wait or are in the model."""
        self._rate = 100_000.0
        """Tokens a second, as lately measured."""
        self._work = asyncio.Event()
        # more would only take the interpreter, and processors, from one another
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._model = ThreadPoolExecutor(_TURNS, thread_name_prefix="model")
        self._running: list[asyncio.Task[None]] = []
        """Begun by the first request, so that a batcher can be made outside the event loop."""
        self._is_closed = False

    async def score(self, query: str, count: int, read: Read) -> Scored:
        """Raw scores of titles, in their order.

        Args:
            query: As the model reads it.
            count: Of titles.
            read: Called in a thread, for some titles at a time.

        Raises:
            Overloaded: Too much waits already.
            TooLate: The deadline passed.
            NotReady: The server is going down.
        """
        if not count:
            return Scored(np.empty(0, np.float32), 0, 0)
        if self._is_closed:
            raise NotReady
        waiting = self._tokens + _PAIR_TOKENS * self._unread
        if waiting and waiting + _PAIR_TOKENS * count > self._settings.queue_tokens:
            raise Overloaded(retry_after_s=waiting / self._rate)
        arrived = time.monotonic()
        QUEUE_PAIRS.inc(count)
        try:
            # a caller that goes away, or has waited too long, cancels what it waits for
            async with asyncio.timeout(self._settings.deadline_s):
                job, ends = await self._read(query, count, read)
                scores = await self._scores(job, ends, arrived)
            return Scored(scores, int(ends[-1]), int(job.titles.is_cut.sum()))
        except TimeoutError:
            raise TooLate from None
        finally:
            QUEUE_PAIRS.dec(count)

    async def _read(self, query: str, count: int, read: Read) -> tuple[Job, np.ndarray]:
        """The job, and tokens of its titles up to and with each. [titles]"""
        loop = asyncio.get_running_loop()
        *starts, last = range(0, count, _READ)
        self._unread += count
        try:
            parts = [
                await loop.run_in_executor(self._reader, read, start, start + _READ)
                for start in starts
            ]

            def finish() -> tuple[Job, np.ndarray]:
                parts.append(read(last, count))
                job = Job(query, Titles.joined(parts) if len(parts) > 1 else parts[0])
                return job, np.cumsum(self._scorer.lengths(job))

            # one step in that thread for most requests: every other would wait its turn again
            return await loop.run_in_executor(self._reader, finish)
        finally:
            self._unread -= count

    async def _scores(self, job: Job, ends: np.ndarray, arrived: float) -> Scores:
        if self._is_closed:
            raise NotReady
        if not self._running:
            self._running = [asyncio.create_task(self._run()) for _ in range(_TURNS)]
        answer: asyncio.Future[Scores] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(job, ends, answer, arrived)
        self._queue.append(waiting)
        self._tokens += waiting.tokens_left
        self._work.set()
        try:
            return await answer
        finally:
            # nothing, unless it failed or nobody waits any more
            self._tokens -= waiting.tokens_left

    async def close(self) -> None:
        """Finish what waits for the model, take nothing more."""
        self._is_closed = True
        self._work.set()
        await asyncio.gather(*self._running)
        self._reader.shutdown(cancel_futures=True)
        self._model.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            parts = self._next_turn()
            if not parts:
                if self._is_closed:
                    return
                self._work.clear()
                await self._work.wait()
                continue
            tokens = sum(part.tokens for part in parts)
            started = time.monotonic()
            outcomes = await loop.run_in_executor(self._model, self._score, parts)
            # where the rate is asked for, there are so many turns at once
            rate = _TURNS * tokens / max(time.monotonic() - started, 1e-6)
            self._rate += 0.2 * (rate - self._rate)
            self._tokens -= tokens
            BATCH_TOKENS.observe(tokens)
            for part, outcome in zip(parts, outcomes, strict=True):
                self._deliver(part, outcome)

    def _next_turn(self) -> list[_Part]:
        """The next titles of each request in turn, as many as a turn holds."""
        room = self._settings.batch_tokens
        parts: list[_Part] = []
        again: list[_Waiting] = []
        while self._queue and room > 0:
            waiting = self._queue.popleft()
            if waiting.answer.done():  # failed, or nobody waits any more
                continue
            if not waiting.done:
                QUEUE_SECONDS.observe(time.monotonic() - waiting.arrived)
            # a share for each that waits, so that none waits for a large one
            share = max(min(_SHARE, room), room // (len(self._queue) + 1))
            part = waiting.take(share)
            parts.append(part)
            room -= part.tokens
            if waiting.done < len(waiting.ends):
                again.append(waiting)
        self._queue.extend(again)
        return parts

    def _score(self, parts: Sequence[_Part]) -> list[Scores | Exception]:
        """Scores of each part, or what went wrong with it; one cannot fail another."""
        try:
            return list(self._scorer.score_jobs([part.job for part in parts]))
        except Exception as error:  # whatever a model may raise
            if len(parts) == 1:
                return [error]
            return [outcome for part in parts for outcome in self._score([part])]

    def _deliver(self, part: _Part, outcome: Scores | Exception) -> None:
        answer, whole = part.whole.answer, part.whole
        if answer.done():
            return
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
            return
        whole.scores[part.start : part.end] = outcome
        whole.scored += part.end - part.start
        if whole.scored == len(whole.ends):
            answer.set_result(whole.scores)
