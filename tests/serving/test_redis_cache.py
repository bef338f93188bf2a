"""Scores in a real Redis: the same bits, and no request that fails or waits for want of it."""

import asyncio
import logging
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import redis

from relevance.titles import title_hashes
from serving import redis_cache
from serving.caches import REDIS_URL, Keys, Scores, open_cache, query_key
from serving.metrics import CACHE_REQUESTS
from serving.redis_cache import PREFIX, RECORD, RedisCache

T = TypeVar("T")

PASSWORD = "pa%24%24word"  # as a URL has it
PATIENT = 5.0
"""Seconds to wait for an answer where slowness is not the point."""


class Server:
    """A redis-server of this test's own."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": directory,
            "save": "",
            "appendonly": "no",
            "requirepass": "pa$$word",
        }
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        self.process = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
        self.client = redis.Redis.from_url(self.url)
        for _ in range(200):
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                time.sleep(0.05)
        raise AssertionError("redis-server did not start")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def server(running: Server) -> Server:
    running.client.flushall()
    running.client.config_set("maxmemory", 0)
    return running


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def keys(*numbers: int) -> Keys:
    return title_hashes([str(number) for number in numbers])


def ones(count: int) -> Scores:
    return np.ones(count, np.float32)


def errors() -> float:
    return float(CACHE_REQUESTS.labels("scores", "error")._value.get())


def test_a_hit_has_the_bits_that_were_put_whoever_asks(server: Server) -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 32, 4_000, dtype=np.uint32)
    scores = bits.view(np.float32)
    scores = np.where(np.isnan(scores), np.float32(-0.0), scores)
    items = keys(*range(4_000))

    async def work() -> None:
        one, other = (RedisCache(server.url, timeout_s=PATIENT) for _ in range(2))
        await one.put(b"q", items[:1_500], scores[:1_500])
        await other.put(b"q", items[1_500:], scores[1_500:])
        await other.put(b"q", items[:10], ones(10))  # the first score stays
        for cache in (one, other):
            assert (await cache.get(b"q", items)).tobytes() == scores.tobytes()
            await cache.close()

    run(work())


def test_queries_versions_and_unknown_items_miss(server: Server) -> None:
    async def work() -> None:
        cache = RedisCache(server.url, timeout_s=PATIENT)
        scores = np.array([1, np.nan], np.float32)
        await cache.put(query_key("v1", "lamp"), keys(1, 2), scores)
        found = await cache.get(query_key("v1", "lamp"), keys(1, 2, 3))
        assert found[0] == 1
        assert np.isnan(found[1:]).all()
        for other in (query_key("v2", "lamp"), query_key("v1", "lamps")):
            assert np.isnan(await cache.get(other, keys(1))).all()
        assert len(await cache.get(query_key("v1", "lamp"), keys())) == 0
        await cache.put(b"nothing", keys(1), scores[1:])
        await cache.close()

    before = errors()
    run(work())
    assert errors() == before
    assert server.client.dbsize() == 1


def test_no_query_can_be_read_in_redis(server: Server) -> None:
    async def work() -> None:
        cache = RedisCache(server.url, timeout_s=PATIENT)
        await cache.put(query_key("v1", "lamp"), keys(1), ones(1))
        await cache.close()

    run(work())
    assert server.client.keys() == [PREFIX + query_key("v1", "lamp")]


def test_a_query_is_forgotten_after_its_time(server: Server) -> None:
    async def work() -> None:
        cache = RedisCache(server.url, ttl_s=60, timeout_s=PATIENT)
        await cache.put(b"put", keys(1), ones(1))
        await cache.fill(b"filled", keys(1), ones(1))
        await cache.close()

    run(work())
    for name in (b"put", b"filled"):
        assert 0 < server.client.ttl(PREFIX + name) <= 60


def test_filling_leaves_what_is_known(server: Server) -> None:
    async def work() -> Scores:
        cache = RedisCache(server.url, timeout_s=PATIENT)
        await cache.put(b"q", keys(1), ones(1))
        assert await cache.fill(b"q", keys(1, 2), ones(2) * 2)
        assert await cache.fill(b"new", keys(1), ones(1) * 3)
        assert (await cache.get(b"new", keys(1))).tolist() == [3]
        found = await cache.get(b"q", keys(1, 2))
        await cache.close()
        return found

    scores = run(work())
    assert scores[0] == 1
    assert np.isnan(scores[1])


def test_a_query_with_too_many_pairs_begins_afresh(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_cache, "MAX_PAIRS", 10)

    async def work() -> None:
        cache = RedisCache(server.url, timeout_s=PATIENT)
        await cache.put(b"q", keys(*range(10)), ones(10))
        assert not np.isnan(await cache.get(b"q", keys(*range(10)))).any()
        await cache.put(b"q", keys(10), ones(1))
        assert np.isnan(await cache.get(b"q", keys(*range(11)))).all()
        await cache.close()

    run(work())


def test_redis_bounds_it_by_maxmemory(server: Server) -> None:
    bound = server.client.info("memory")["used_memory"] + 3_000_000
    server.client.config_set("maxmemory", bound)
    server.client.config_set("maxmemory-policy", "allkeys-lru")
    items = keys(*range(4_000))

    async def work() -> Scores:
        cache = RedisCache(server.url, timeout_s=PATIENT)
        for query in range(100):  # 8 MB
            await cache.put(bytes([query]), items, ones(4_000))
        found = await cache.get(bytes([99]), items)
        await cache.close()
        return found

    assert not np.isnan(run(work())).any()
    assert server.client.dbsize() < 50
    assert server.client.info("memory")["used_memory"] < bound + 500_000


def test_a_full_redis_that_forgets_nothing_still_answers(server: Server) -> None:
    async def work() -> Scores:
        cache = RedisCache(server.url, timeout_s=PATIENT)
        await cache.put(b"q", keys(1), ones(1))
        server.client.config_set("maxmemory-policy", "noeviction")
        server.client.config_set("maxmemory", 1)
        await cache.put(b"q", keys(2), ones(1))
        assert not await cache.fill(b"new", keys(1), ones(1))
        found = await cache.get(b"q", keys(1, 2))
        await cache.close()
        return found

    scores = run(work())
    assert scores[0] == 1
    assert np.isnan(scores[1])


def test_what_another_wrote_there_is_not_read_as_scores(server: Server) -> None:
    server.client.set(PREFIX + b"q", b"x" * (RECORD.itemsize + 1))
    server.client.lpush(PREFIX + b"list", b"x")

    async def work() -> None:
        cache = RedisCache(server.url, timeout_s=PATIENT)
        for name in (b"q", b"list"):
            assert np.isnan(await cache.get(name, keys(1, 2))).all()
        await cache.close()

    before = errors()
    run(work())
    assert errors() == before + 4


def test_a_redis_that_is_gone_costs_misses_and_one_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def work() -> None:
        cache = RedisCache(f"redis://:{PASSWORD}@127.0.0.1:{port}", pause_s=60)
        start = time.monotonic()
        for _ in range(100):
            assert np.isnan(await cache.get(b"q", keys(1, 2))).all()
            await cache.put(b"q", keys(1, 2), ones(2))
            assert not await cache.fill(b"q", keys(1, 2), ones(2))
        # it is asked once and then left alone
        assert time.monotonic() - start < 1
        await cache.close()

    before = errors()
    with caplog.at_level(logging.DEBUG):
        run(work())
    assert errors() == before + 200
    assert len([record for record in caplog.records if record.name == "serving.redis_cache"]) == 1


def test_a_slow_redis_delays_no_request_and_is_used_again_once_it_answers(
    server: Server,
) -> None:
    async def work() -> None:
        cache = RedisCache(server.url, timeout_s=0.5, pause_s=0.5)
        for query in range(10):
            await cache.put(bytes([query]), keys(1), ones(1) * query)
        server.process.send_signal(signal.SIGSTOP)
        start = time.monotonic()
        found = await asyncio.gather(*(cache.get(bytes([query]), keys(1)) for query in range(10)))
        assert all(np.isnan(scores).all() for scores in found)
        assert time.monotonic() - start < 1.5
        start = time.monotonic()
        await cache.get(b"q", keys(1))  # within the pause
        assert time.monotonic() - start < 0.2
        server.process.send_signal(signal.SIGCONT)
        patience = time.monotonic() + 20
        query = 0
        while query < 10 and time.monotonic() < patience:
            scores = await cache.get(bytes([query]), keys(1))
            if np.isnan(scores).any():
                await asyncio.sleep(0.1)
                continue
            # the answers that came too late were not taken for these questions'
            assert scores.tolist() == [query]
            query += 1
        assert query == 10
        await cache.close()

    try:
        run(work())
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_requests_that_are_given_up_leave_no_answer_to_others(server: Server) -> None:
    async def work() -> None:
        cache = RedisCache(server.url, timeout_s=PATIENT)
        items = keys(*range(500))
        for query in range(20):
            await cache.put(bytes([query]), items, ones(500) * query)
        rng = np.random.default_rng(0)
        for _ in range(30):
            tasks = [asyncio.create_task(cache.get(bytes([query]), items)) for query in range(20)]
            await asyncio.sleep(float(rng.uniform(0, 0.004)))
            for task in tasks[::2]:
                task.cancel()
            for query, found in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
                if not isinstance(found, BaseException):
                    assert (found == query).all()
        await cache.close()

    run(work())


def test_a_wrong_password_is_a_miss_and_no_log_has_it(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        cache = RedisCache(f"redis://:s3cr3t@127.0.0.1:{server.port}", timeout_s=PATIENT)
        assert np.isnan(await cache.get(b"q", keys(1))).all()
        assert "s3cr3t" not in repr(cache)
        await cache.close()

    with caplog.at_level(logging.DEBUG):
        run(work())
    assert "AuthenticationError" in caplog.text
    assert "s3cr3t" not in caplog.text


@pytest.mark.parametrize(
    "url",
    ["localhost:6379", "http://:s3cr3t@h:1", "redis://:s3#cr3t@h:1", "redis://:a@h:s3cr3t/0"],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="Redis URL: cannot be read; want redis://") as caught:
        RedisCache(url)
    assert "cr3t" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_the_environment_chooses_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, REDIS_URL, "redis://127.0.0.1:1")
    assert isinstance(open_cache(0), RedisCache)
