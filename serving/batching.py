"""Batches across requests, by tokens: what waits shares the model's next call.

Requests take turns, so that a small one is not held up by thousands of titles asked before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from relevance.scorer import Job, Scorer, Scores
from serving.answers import NotReady, Overloaded, TooLate
from serving.limits import Batching
from serving.metrics import BATCH_TOKENS, QUEUE_PAIRS, QUEUE_SECONDS, TOKENS

_PAIR_TOKENS = 32
"""Of a pair that is not tokenized yet, about."""


@dataclass(eq=False)
class _Waiting:
    """A job and how far it is."""

    job: Job
    ends: np.ndarray
    """Tokens of its titles up to and with each. [titles]"""
    answer: asyncio.Future[Scores]
    deadline: float
    arrived: float
    scores: Scores = field(init=False)
    done: int = 0
    """Titles taken so far."""

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
    """One scorer's queue. Belongs to one event loop."""

    def __init__(self, scorer: Scorer, settings: Batching) -> None:
        self._scorer = scorer
        self._settings = settings
        self._queue: deque[_Waiting] = deque()
        self._tokens = 0
        """That wait or are in the model."""
        self._rate = 100_000.0
        """Tokens a second, as lately measured."""
        self._preparing = 0
        """Pairs that are not tokenized yet."""
        self._work = asyncio.Event()
        # the model has threads of its own: a second caller would only slow the first
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._running: asyncio.Task[None] | None = None
        """Begun by the first request, so that a batcher can be made outside the event loop."""
        self._is_closed = False

    @contextlib.contextmanager
    def preparing(self, pairs: int) -> Iterator[None]:
        """Hold room for pairs while their titles are read, which takes time of its own.

        Raises:
            Overloaded: Too much waits already.
            NotReady: The server is going down.
        """
        if self._is_closed:
            raise NotReady
        waiting = self._tokens + _PAIR_TOKENS * self._preparing
        if waiting and waiting + _PAIR_TOKENS * pairs > self._settings.queue_tokens:
            raise Overloaded(retry_after_s=waiting / self._rate)
        self._preparing += pairs
        try:
            yield
        finally:
            self._preparing -= pairs

    async def score(self, job: Job) -> Scores:
        """Raw scores of a job's titles, in their order. [titles]

        Raises:
            Overloaded: Too much waits already.
            TooLate: The deadline passed.
            NotReady: The server is going down.
        """
        if not len(job.titles):
            return np.empty(0, np.float32)
        if self._is_closed:
            raise NotReady
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        ends = np.cumsum(self._scorer.lengths(job))
        tokens = int(ends[-1])
        if self._tokens and self._tokens + tokens > self._settings.queue_tokens:
            raise Overloaded(retry_after_s=self._tokens / self._rate)
        now = time.monotonic()
        waiting = _Waiting(
            job,
            ends,
            asyncio.get_running_loop().create_future(),
            deadline=now + self._settings.deadline_s,
            arrived=now,
        )
        self._queue.append(waiting)
        self._tokens += tokens
        QUEUE_PAIRS.inc(len(job.titles))
        self._work.set()
        try:
            # a caller that goes away cancels the future, which is what drops its job
            return await waiting.answer
        finally:
            QUEUE_PAIRS.dec(len(job.titles))

    async def close(self) -> None:
        """Finish what waits, take nothing more."""
        self._is_closed = True
        self._work.set()
        if self._running is not None:
            await self._running
        self._thread.shutdown()

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
            outcomes = await loop.run_in_executor(self._thread, self._score, parts)
            self._rate += 0.2 * (tokens / max(time.monotonic() - started, 1e-6) - self._rate)
            self._tokens -= tokens
            BATCH_TOKENS.observe(tokens)
            TOKENS.inc(tokens)
            for part, outcome in zip(parts, outcomes, strict=True):
                self._deliver(part, outcome)

    def _next_turn(self) -> list[_Part]:
        """The next titles of each request in turn, as many as a turn holds."""
        room, now = self._settings.batch_tokens, time.monotonic()
        parts: list[_Part] = []
        again: list[_Waiting] = []
        while self._queue and room > 0:
            waiting = self._queue.popleft()
            if waiting.answer.done() or now > waiting.deadline:
                self._drop(waiting)
                continue
            if not waiting.done:
                QUEUE_SECONDS.observe(now - waiting.arrived)
            # an equal share for each that waits, so that none waits for a large one
            share = max(1, room // (len(self._queue) + 1))
            part = waiting.take(share)
            parts.append(part)
            room -= part.tokens
            if waiting.done < len(waiting.ends):
                again.append(waiting)
        self._queue.extend(again)
        return parts

    def _drop(self, waiting: _Waiting) -> None:
        """Forget a request whose caller is gone, failed, or has waited too long."""
        self._tokens -= waiting.tokens_left
        if not waiting.answer.done():
            waiting.answer.set_exception(TooLate())

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
        if part.end == len(whole.ends):
            answer.set_result(whole.scores)
