"""Scores in Redis: shared by the scorers of a shop, and still there after a restart.

A query is one string of records, key and score, 20 bytes a pair: read by one GET, grown by APPEND,
which no other writer can come between. For 4,000 pairs that takes 80 KB and 0.7 ms; a hash with a
field a pair took 290 KB and 11 ms.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

import numpy as np
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from serving.caches import EMPTY, Group, Keys, Scores, count
from serving.metrics import CACHE_REQUESTS

T = TypeVar("T")

_log = logging.getLogger(__name__)

PREFIX = b"querylift:scores:1:"
"""Of every key; the number changes with the records."""
RECORD = np.dtype([("key", "<u8", (2,)), ("score", "<f4")])
"""One pair."""
MAX_PAIRS = 20_000
"""Of one query, 400 KB: every request with that query reads them all. Beyond, it begins afresh."""

_UNREACHABLE = (OSError, redis.ConnectionError, redis.TimeoutError)  # OSError: TimeoutError too


class RedisCache:
    """``ScoreCache`` in Redis, which bounds it: set ``maxmemory``, and ``allkeys-lru`` with it.

    Redis may be slow, full or gone: then nothing is known, and requests go on. Pairs that could
    not be looked up count as ``error``.
    """

    def __init__(
        self, url: str, *, ttl_s: int = 7 * 86_400, timeout_s: float = 0.05, pause_s: float = 1.0
    ) -> None:
        """Connect at the first use.

        Args:
            url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with the password if there is
                one. Neither logged nor part of an error.
            ttl_s: A query that nothing is added to is forgotten after so long; queries of models
                that are no longer served go that way.
            timeout_s: A request waits no longer for Redis than this.
            pause_s: Redis is left alone for so long after it could not be reached.

        Raises:
            ValueError: ``url`` is none that Redis' client can read.
        """
        try:
            pool = redis.BlockingConnectionPool.from_url(
                url, max_connections=32, timeout=timeout_s, retry=Retry(NoBackoff(), 0)
            )
        except (ValueError, TypeError):
            # the client's own message, and the traceback under ours, may quote the password
            raise ValueError(
                "Redis URL: cannot be read; want redis://:PASSWORD@HOST:PORT/0, rediss://… or "
                "unix://…, with special characters of the password written as %XX"
            ) from None
        self._redis = redis.Redis.from_pool(pool)
        self._ttl_s = ttl_s
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._paused_until = 0.0
        self._silent_until = 0.0

    async def get(self, query: bytes, items: Keys) -> Scores:
        """See ``ScoreCache.get``."""
        group = await self._try(lambda: self._read(PREFIX + query))
        if group is None:
            CACHE_REQUESTS.labels("scores", "error").inc(len(items))
            return EMPTY.find(items)
        scores = group.find(items)
        count(scores)
        return scores

    async def put(self, query: bytes, items: Keys, scores: Scores) -> None:
        """See ``ScoreCache.put``."""
        if data := _records(items, scores):
            await self._try(lambda: self._append(PREFIX + query, data))

    async def fill(self, query: bytes, items: Keys, scores: Scores) -> bool:
        """See ``ScoreCache.fill``; there is room for as long as Redis answers."""
        data = _records(items, scores)
        return not data or bool(await self._try(lambda: self._set(PREFIX + query, data)))

    async def close(self) -> None:
        """See ``ScoreCache.close``; what Redis holds stays."""
        await self._redis.aclose()

    async def _read(self, key: bytes) -> Group:
        data = cast("bytes | None", await self._redis.get(key))
        records = np.frombuffer(data or b"", RECORD)
        return EMPTY.add(records["key"], records["score"])

    async def _append(self, key: bytes, data: bytes) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.append(key, data)
            pipeline.expire(key, self._ttl_s)
            nbytes, _ = await pipeline.execute()
        if nbytes > MAX_PAIRS * RECORD.itemsize:
            await self._redis.unlink(key)

    async def _set(self, key: bytes, data: bytes) -> bool:
        await self._redis.set(key, data, nx=True, ex=self._ttl_s)
        return True

    async def _try(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """What Redis answers, None where it does not: no request fails for want of a cache."""
        now = time.monotonic()
        if now < self._paused_until:
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                return await ask()
        except Exception as error:
            if isinstance(error, _UNREACHABLE):
                self._paused_until = time.monotonic() + self._pause_s
            if now >= self._silent_until:
                self._silent_until = now + 60
                # its text is the server's or the network's and may tell what no log should
                _log.warning("Redis: %s; pairs are scored afresh", type(error).__name__)
            return None


def _records(items: Keys, scores: Scores) -> bytes:
    """Pairs with a score, as Redis keeps them."""
    is_known = ~np.isnan(scores)
    records = np.empty(np.count_nonzero(is_known), RECORD)
    records["key"], records["score"] = items[is_known], scores[is_known]
    return records.tobytes()
