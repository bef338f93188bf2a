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
from serving.batching import _TURNS, Batcher, Read
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


async def asked(batcher: Batcher, query: str, *lengths: int) -> Scores:
    titles = ["x" * length for length in lengths]
    scored = await batcher.score(
        query, len(titles), lambda start, end: batcher._scorer.prepare(titles[start:end])
    )
    assert scored.tokens == sum(lengths)
    return scored.scores


async def queued(batcher: Batcher, count: int) -> None:
    """Wait until so many requests wait for the model."""
    while len(batcher._queue) < count:
        await asyncio.sleep(0.001)


def settings(batch: int = 100, queue: int = 10_000, deadline: float = 10.0) -> Batching:
    return Batching(batch_tokens=batch, queue_tokens=queue, deadline_s=deadline)


async def held(scorer: Lengths, batcher: Batcher) -> list[asyncio.Task[Scores]]:
    """Occupy the model until the gate opens: one request in each of its turns."""
    scorer.gate.clear()
    first: list[asyncio.Task[Scores]] = []
    while len(first) < _TURNS:
        first.append(asyncio.create_task(asked(batcher, "first", 1)))
        while len(scorer.calls) < len(first):
            await asyncio.sleep(0.001)
    return first


async def test_what_waits_shares_the_next_call() -> None:
    scorer = Lengths()
    batcher = Batcher(scorer, settings())
    first = await held(scorer, batcher)
    rest = [asyncio.create_task(asked(batcher, f"q{n}", n, 2)) for n in range(1, 5)]
    await queued(batcher, 4)
    scorer.gate.set()
    answers = await asyncio.gather(*rest)
    assert [answer.tolist() for answer in answers] == [[1, 2], [2, 2], [3, 2], [4, 2]]
    assert [(await task).tolist() for task in first] == [[1]] * _TURNS
    assert scorer.calls[_TURNS:] == [[("q1", 2), ("q2", 2), ("q3", 2), ("q4", 2)]]
    await batcher.close()


async def test_one_turn_may_end_before_another_that_began_earlier() -> None:
    scorer = Lengths()
    batcher = Batcher(scorer, settings(batch=10))
    slow, later = threading.Event(), threading.Event()
    score = scorer.score_jobs

    def score_jobs(jobs: Sequence[Job]) -> list[Scores]:
        found = score(jobs)
        # the last two titles are there before the first three
        if len(jobs[0].titles) == 3:
            slow.wait(10)
        else:
            later.set()
        return found

    scorer.score_jobs = score_jobs  # type: ignore[method-assign]
    task = asyncio.create_task(asked(batcher, "both", 3, 4, 2, 5, 5))
    while not later.is_set():
        await asyncio.sleep(0.001)
    assert not task.done()
    slow.set()
    assert (await task).tolist() == [3, 4, 2, 5, 5]
    await batcher.close()


async def test_a_small_request_overtakes_a_large_one() -> None:
    scorer = Lengths(seconds=0.002)
    batcher = Batcher(scorer, settings(batch=100))
    large = asyncio.create_task(asked(batcher, "large", *[10] * 500))
    while not scorer.calls:
        await asyncio.sleep(0.001)
    small = await asked(batcher, "small", 5, 6)
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
    good = [asyncio.create_task(asked(batcher, f"q{n}", 1 + n)) for n in range(39)]
    bad = asyncio.create_task(asked(batcher, POISON, 3))
    await queued(batcher, 40)
    scorer.gate.set()
    assert [(await task).tolist() for task in good] == [[1.0 + n] for n in range(39)]
    with pytest.raises(RuntimeError, match="a poisoned request"):
        await bad
    assert [(await task).tolist() for task in first] == [[1]] * _TURNS
    await batcher.close()


async def test_a_full_queue_refuses_and_recovers() -> None:
    scorer = Lengths()
    batcher = Batcher(scorer, settings(queue=50))
    first = await held(scorer, batcher)
    waiting = asyncio.create_task(asked(batcher, "waiting", 40))
    await queued(batcher, 1)
    with pytest.raises(Overloaded) as refused:
        await asked(batcher, "too much", 20)
    assert refused.value.retry_after_s >= 0
    scorer.gate.set()
    await asyncio.gather(*first, waiting)
    assert (await asked(batcher, "again", 20)).tolist() == [20]
    # one that is larger than the queue has to be taken some time, or never
    assert len(await asked(batcher, "large", *[10] * 20)) == 20
    await batcher.close()


async def test_who_is_refused_is_told_while_others_are_still_being_read() -> None:
    scorer = Lengths()
    batcher = Batcher(scorer, settings(queue=100))
    gate = threading.Event()

    def read(start: int, end: int) -> Titles:
        gate.wait(10)
        return scorer.prepare(["x"] * (end - start))

    reading = asyncio.create_task(batcher.score("reading", 3, read))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await batcher.score("refused", 1, read)
    assert not scorer.calls
    gate.set()
    assert (await reading).scores.tolist() == [1, 1, 1]
    # alone, whatever its size
    assert len((await batcher.score("alone", 1_000, read)).scores) == 1_000
    await batcher.close()
    with pytest.raises(NotReady):
        await batcher.score("late", 1, read)


async def test_who_was_let_in_is_not_refused_for_longer_titles_than_were_expected() -> None:
    scorer = Lengths()
    batcher = Batcher(scorer, settings(queue=70))
    first = await held(scorer, batcher)
    rest = [asyncio.create_task(asked(batcher, f"q{n}", 60)) for n in range(2)]
    await queued(batcher, 2)
    scorer.gate.set()
    assert [(await task).tolist() for task in rest] == [[60], [60]]
    await asyncio.gather(*first)
    await batcher.close()


async def test_a_large_request_is_read_in_turn_with_others() -> None:
    scorer = Lengths()
    batcher = Batcher(scorer, settings(queue=10**6))
    order: list[str] = []

    def reader(name: str) -> Read:
        def read(start: int, end: int) -> Titles:
            order.append(name)
            return scorer.prepare(["x"] * (end - start))

        return read

    await asyncio.gather(
        batcher.score("large", 3_000, reader("large")), batcher.score("small", 2, reader("small"))
    )
    assert order.index("small") == 1
    assert order.count("large") > 10
    await batcher.close()


async def test_who_waits_too_long_is_told_so_at_once() -> None:
    scorer = Lengths()
    batcher = Batcher(scorer, settings(deadline=0.05))
    first = await held(scorer, batcher)
    late = asyncio.create_task(asked(batcher, "late", 5))
    for task in (*first, late):
        with pytest.raises(TooLate):
            await task
    scorer.gate.set()
    assert (await asked(batcher, "next", 6)).tolist() == [6]
    assert [query for call in scorer.calls for query, _ in call] == [
        *["first"] * _TURNS,
        "next",
    ]
    await batcher.close()


async def test_abandoned_requests_are_not_scored() -> None:
    scorer = Lengths()
    batcher = Batcher(scorer, settings(queue=50))
    first = await held(scorer, batcher)
    gone = asyncio.create_task(asked(batcher, "gone", 40))
    await queued(batcher, 1)
    gone.cancel()
    await asyncio.wait({gone})
    # its room in the queue is free again, before its turn would have come
    following = asyncio.create_task(asked(batcher, "next", 45))
    await queued(batcher, 2)
    scorer.gate.set()
    await asyncio.gather(*first)
    assert (await following).tolist() == [45]
    assert [query for call in scorer.calls for query, _ in call] == [
        *["first"] * _TURNS,
        "next",
    ]
    await batcher.close()


async def test_what_waits_is_finished_before_the_end() -> None:
    scorer = Lengths()
    batcher = Batcher(scorer, settings())
    first = await held(scorer, batcher)
    waiting = asyncio.create_task(asked(batcher, "waiting", 7))
    await queued(batcher, 1)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(NotReady):
        await asked(batcher, "new", 7)
    scorer.gate.set()
    assert (await waiting).tolist() == [7]
    await asyncio.gather(*first, closing)


async def test_many_requests_at_once_all_get_their_own_scores() -> None:
    scorer = Lengths()
    batcher = Batcher(scorer, settings(batch=64, queue=10**6))
    rng = np.random.default_rng(0)
    lengths = [rng.integers(1, 30, rng.integers(1, 40)).tolist() for _ in range(300)]
    answers = await asyncio.gather(
        *(asked(batcher, f"q{n}", *some) for n, some in enumerate(lengths))
    )
    assert [answer.tolist() for answer in answers] == lengths
    await batcher.close()


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"batching\.deadline_s: 0; want more than 0"):
        Batching(deadline_s=0)
