"""Requests that share the model: fair, bounded, and none spoiling another."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from relevance.scorer import Job, Scorer, Scores
from relevance.titles import Titles
from serving.answers import NotReady, Overloaded, TooLate
from serving.batching import Batcher
from serving.limits import Batching

pytestmark = pytest.mark.anyio

POISON = "poison"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Lengths(Scorer):
    """Scores a title by its length; keeps the jobs of every call."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.calls: list[list[tuple[str, int]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.calibration = None

    def prepare(self, titles: Sequence[str]) -> Titles:
        rows = [list(range(len(title))) for title in titles]
        return Titles.of({"ids": rows}, {"ids": np.int32}, [False] * len(rows))

    def lengths(self, job: Job) -> np.ndarray:
        return job.titles.lengths

    def is_query_cut(self, query: str) -> bool:
        return False

    def score_jobs(self, jobs: Sequence[Job]) -> list[Scores]:
        self.calls.append([(job.query, len(job.titles)) for job in jobs])
        self.gate.wait(10)
        time.sleep(self.seconds)
        if any(job.query == POISON for job in jobs):
            raise RuntimeError("a poisoned request")
        return [job.titles.lengths.astype(np.float32) for job in jobs]


def job(scorer: Lengths, query: str, *lengths: int) -> Job:
    return Job(query, scorer.prepare(["x" * length for length in lengths]))


def settings(batch: int = 100, queue: int = 10_000, deadline: float = 10.0) -> Batching:
    return Batching(batch_tokens=batch, queue_tokens=queue, deadline_s=deadline)


async def held(scorer: Lengths, batcher: Batcher) -> asyncio.Task[Scores]:
    """Occupy the model until the gate opens."""
    scorer.gate.clear()
    first = asyncio.create_task(batcher.score(job(scorer, "first", 1)))
    while not scorer.calls:
        await asyncio.sleep(0.001)
    return first


async def test_what_waits_shares_the_next_call() -> None:
    scorer = Lengths()
    batcher = Batcher(scorer, settings())
    first = await held(scorer, batcher)
    rest = [asyncio.create_task(batcher.score(job(scorer, f"q{n}", n, 2))) for n in range(1, 5)]
    await asyncio.sleep(0.01)
    scorer.gate.set()
    answers = await asyncio.gather(first, *rest)
    assert [answer.tolist() for answer in answers] == [[1], [1, 2], [2, 2], [3, 2], [4, 2]]
    assert scorer.calls == [[("first", 1)], [("q1", 2), ("q2", 2), ("q3", 2), ("q4", 2)]]
    await batcher.close()


async def test_a_small_request_overtakes_a_large_one() -> None:
    scorer = Lengths(seconds=0.002)
    batcher = Batcher(scorer, settings(batch=100))
    large = asyncio.create_task(batcher.score(job(scorer, "large", *[10] * 500)))
    await asyncio.sleep(0.01)
    small = await batcher.score(job(scorer, "small", 5, 6))
    assert small.tolist() == [5, 6]
    assert not large.done()
    assert (await large).tolist() == [10] * 500
    # no turn is larger than was asked
    assert all(sum(titles for _, titles in call) * 10 <= 100 for call in scorer.calls)
    await batcher.close()


async def test_a_poisoned_request_fails_alone() -> None:
    scorer = Lengths()
    batcher = Batcher(scorer, settings(batch=1_000))
    first = await held(scorer, batcher)
    good = [asyncio.create_task(batcher.score(job(scorer, f"q{n}", 1 + n))) for n in range(39)]
    bad = asyncio.create_task(batcher.score(job(scorer, POISON, 3)))
    await asyncio.sleep(0.01)
    scorer.gate.set()
    assert [(await task).tolist() for task in good] == [[1.0 + n] for n in range(39)]
    with pytest.raises(RuntimeError, match="a poisoned request"):
        await bad
    assert (await first).tolist() == [1]
    await batcher.close()


async def test_a_full_queue_refuses_and_recovers() -> None:
    scorer = Lengths()
    batcher = Batcher(scorer, settings(queue=50))
    first = await held(scorer, batcher)
    waiting = asyncio.create_task(batcher.score(job(scorer, "waiting", 40)))
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded) as refused:
        await batcher.score(job(scorer, "too much", 20))
    assert refused.value.retry_after_s >= 0
    scorer.gate.set()
    await asyncio.gather(first, waiting)
    assert (await batcher.score(job(scorer, "again", 20))).tolist() == [20]
    # one that is larger than the queue has to be taken some time, or never
    assert len(await batcher.score(job(scorer, "large", *[10] * 20))) == 20
    await batcher.close()


async def test_what_is_being_read_takes_room_too() -> None:
    scorer = Lengths()
    batcher = Batcher(scorer, settings(queue=100))
    with batcher.preparing(3), pytest.raises(Overloaded), batcher.preparing(1):
        raise AssertionError("let in")
    with batcher.preparing(1_000):  # alone
        pass
    await batcher.close()
    with pytest.raises(NotReady), batcher.preparing(1):
        raise AssertionError("let in")


async def test_who_waits_too_long_is_told_so() -> None:
    scorer = Lengths()
    batcher = Batcher(scorer, settings(deadline=0.05))
    first = await held(scorer, batcher)
    late = asyncio.create_task(batcher.score(job(scorer, "late", 5)))
    await asyncio.sleep(0.1)
    scorer.gate.set()
    with pytest.raises(TooLate):
        await late
    assert (await first).tolist() == [1]
    assert [query for call in scorer.calls for query, _ in call] == ["first"]
    await batcher.close()


async def test_abandoned_requests_are_not_scored() -> None:
    scorer = Lengths()
    batcher = Batcher(scorer, settings(queue=50))
    first = await held(scorer, batcher)
    gone = asyncio.create_task(batcher.score(job(scorer, "gone", 40)))
    await asyncio.sleep(0.01)
    gone.cancel()
    scorer.gate.set()
    await first
    # its room in the queue is free again
    assert (await batcher.score(job(scorer, "next", 45))).tolist() == [45]
    assert [query for call in scorer.calls for query, _ in call] == ["first", "next"]
    await batcher.close()


async def test_what_waits_is_finished_before_the_end() -> None:
    scorer = Lengths()
    batcher = Batcher(scorer, settings())
    first = await held(scorer, batcher)
    waiting = asyncio.create_task(batcher.score(job(scorer, "waiting", 7)))
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0.01)
    with pytest.raises(NotReady):
        await batcher.score(job(scorer, "new", 7))
    scorer.gate.set()
    assert (await waiting).tolist() == [7]
    await asyncio.gather(first, closing)


async def test_many_requests_at_once_all_get_their_own_scores() -> None:
    scorer = Lengths()
    batcher = Batcher(scorer, settings(batch=64, queue=10**6))
    rng = np.random.default_rng(0)
    asked = [rng.integers(1, 30, rng.integers(1, 40)).tolist() for _ in range(300)]
    jobs = [job(scorer, f"q{n}", *lengths) for n, lengths in enumerate(asked)]
    answers = await asyncio.gather(*(batcher.score(one) for one in jobs))
    assert [answer.tolist() for answer in answers] == asked
    await batcher.close()


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"batching\.deadline_s: 0; want more than 0"):
        Batching(deadline_s=0)
