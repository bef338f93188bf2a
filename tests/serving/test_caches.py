"""Remembered scores: the same bits, never another pair's, and as often as theory says."""

import asyncio
import itertools
import threading
import tracemalloc
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from relevance.data.term_words import UNITS
from relevance.titles import title_hashes
from serving.caches import (
    EMPTY,
    REDIS_URL,
    Keys,
    MemoryCache,
    Scores,
    item_keys,
    normalised,
    open_cache,
    query_key,
)
from serving.metrics import CACHE_REQUESTS

T = TypeVar("T")

# what a score may be: anything but NaN, with all its bits
SCORES = st.floats(width=32, allow_nan=False)
TEXTS = st.text(max_size=20)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def keys(*numbers: int) -> Keys:
    return title_hashes([str(number) for number in numbers])


def ones(count: int) -> Scores:
    return np.ones(count, np.float32)


def size(pairs: int) -> int:
    return EMPTY.add(keys(*range(pairs)), ones(pairs)).nbytes


@given(st.dictionaries(TEXTS, SCORES), st.randoms())
def test_a_hit_has_the_bits_that_were_put(scores: dict[str, float], random: Any) -> None:
    cache = MemoryCache(1 << 20)
    items = title_hashes(list(scores))
    wanted = np.array(list(scores.values()), np.float32)
    order = list(range(len(items)))
    random.shuffle(order)
    half = len(order) // 2

    async def work() -> Scores:
        await cache.put(b"q", items[order[:half]], wanted[order[:half]])
        await cache.put(b"q", items[order[half:]], wanted[order[half:]])
        return await cache.get(b"q", items)

    assert run(work()).tobytes() == wanted.tobytes()


@given(
    st.tuples(TEXTS, TEXTS, st.none() | TEXTS, TEXTS),
    st.tuples(TEXTS, TEXTS, st.none() | TEXTS, TEXTS),
)
def test_pairs_that_differ_in_any_component_differ_in_their_keys(
    one: tuple[str, str, str | None, str], other: tuple[str, str, str | None, str]
) -> None:
    def key(version: str, query: str, item_id: str | None, title: str) -> bytes:
        ids = None if item_id is None else [item_id]
        return query_key(version, query) + item_keys(title_hashes([title]), ids).tobytes()

    for change in itertools.product((False, True), repeat=4):
        mixed = tuple(b if is_new else a for a, b, is_new in zip(one, other, change, strict=True))
        assert (key(*one) == key(*mixed)) == (one == mixed)  # type: ignore[arg-type]


def test_letters_do_not_move_between_the_components_of_a_key() -> None:
    assert query_key("a", "bc") != query_key("ab", "c")
    # nor is a title spelt like another one's hash and its item id taken for that item
    titles = title_hashes(["x"])
    spelt = blake2b(titles.tobytes() + b"1", digest_size=16).digest()
    assert item_keys(titles, ["1"]).tobytes() != spelt


def test_a_changed_component_misses() -> None:
    titles, ids = ["red lamp", "blue lamp"], ["1", "2"]
    pairs = item_keys(title_hashes(titles), ids)
    cache = MemoryCache(1 << 20)

    async def known(query: bytes, items: Keys) -> list[bool]:
        return list(~np.isnan(await cache.get(query, items)))

    async def work() -> None:
        await cache.put(query_key("v1", "lamp"), pairs, ones(2))
        assert await known(query_key("v1", "lamp"), pairs) == [True, True]
        assert await known(query_key("v2", "lamp"), pairs) == [False, False]
        assert await known(query_key("v1", "lamps"), pairs) == [False, False]
        retitled = item_keys(title_hashes(["red lamp", "blue lamp!"]), ids)
        assert await known(query_key("v1", "lamp"), retitled) == [True, False]
        renamed = item_keys(title_hashes(titles), ["1", "3"])
        assert await known(query_key("v1", "lamp"), renamed) == [True, False]
        assert await known(query_key("v1", "lamp"), title_hashes(titles)) == [False, False]

    run(work())


def test_keys_are_the_same_on_every_machine() -> None:
    # frozen: caches that are shared, and files of scores, are found by them
    assert query_key("v1", "red lamp").hex() == "5a24ff8c56c52878de121326bf3ae57f"
    titles = title_hashes(["Red lamp, 12 V"])
    assert titles.tobytes().hex() == "a385178fa891227a9536fe8db28d04bd"
    assert item_keys(titles, ["p1"]).tobytes().hex() == "b0cc9cb1c8ec22c25e1dfe7c9205e4d0"


def test_text_that_is_no_unicode_has_a_key() -> None:
    assert query_key("v1", "\ud800") != query_key("v1", "\ud801")
    assert len(item_keys(title_hashes(["\udfff"]), ["\ud800"])) == 1


def test_two_keys_with_one_first_half_are_never_taken_for_each_other() -> None:
    one, other = np.array([[7, 1]], np.uint64), np.array([[7, 2]], np.uint64)
    group = EMPTY.add(one, ones(1)).add(other, ones(1) * 2)
    assert group.find(np.concatenate([one, other])).tolist()[0] == 1
    assert np.isnan(group.find(other)).all()
    both = EMPTY.add(np.concatenate([other, one]), np.array([2, 1], np.float32))
    assert both.find(other).tolist() == [2]
    assert np.isnan(both.find(one)).all()
    # and they do not pile up
    assert len(group.add(other, ones(1)).firsts) == 1


def test_what_is_known_stays_and_no_number_is_not_remembered() -> None:
    cache = MemoryCache(1 << 20)

    async def work() -> Scores:
        await cache.put(b"q", keys(1, 2), np.array([1, np.nan], np.float32))
        await cache.put(b"q", keys(1, 3, 3), np.array([5, 3, 4], np.float32))
        return await cache.get(b"q", keys(1, 2, 3))

    scores = run(work())
    assert scores[0] == 1
    assert np.isnan(scores[1])
    assert scores[2] == 3


def test_no_pairs_are_no_trouble() -> None:
    cache = MemoryCache(1 << 20)

    async def work() -> None:
        await cache.put(b"q", keys(), ones(0))
        assert len(cache) == cache.nbytes == 0
        assert len(await cache.get(b"q", keys())) == 0
        await cache.put(b"q", keys(1), ones(1))
        assert len(await cache.get(b"q", keys())) == 0

    run(work())


ASKED = st.tuples(
    st.sampled_from(["get", "put"]),
    st.integers(0, 5),
    st.sets(st.integers(0, 30), max_size=12),
)


@given(st.lists(ASKED, max_size=60), st.integers(0, 3 * size(12)))
def test_it_is_an_lru_of_queries_within_its_bytes(
    asked: Sequence[tuple[str, int, set[int]]], max_bytes: int
) -> None:
    cache = MemoryCache(max_bytes)
    # the plain way: sets of items by query, the one asked for longest ago first
    model: OrderedDict[int, set[int]] = OrderedDict()

    async def work() -> None:
        for what, query, items in asked:
            name = bytes([query])
            if what == "put":
                await cache.put(name, keys(*items), ones(len(items)) * query)
                grown = model.pop(query, set()) | items
                grown = grown if size(len(grown)) <= max_bytes else items
                if grown and size(len(grown)) <= max_bytes:
                    model[query] = grown
                while sum(size(len(known)) for known in model.values()) > max_bytes:
                    model.popitem(last=False)
            elif query in model:
                model.move_to_end(query)
            if what == "get":
                scores = await cache.get(name, keys(*range(31)))
                found = {item for item in range(31) if scores[item] == query}
                assert found == model.get(query, set())
            assert cache.nbytes == sum(size(len(known)) for known in model.values())
            assert cache.nbytes <= max_bytes
            assert len(cache) == len(model)

    run(work())


@pytest.mark.parametrize("pairs", [1, 40, 4_000])
def test_the_bytes_it_counts_are_the_bytes_it_takes(pairs: int) -> None:
    queries = 100_000 // max(pairs, 50)
    items, scores = keys(*range(pairs)), ones(pairs)

    async def work() -> tuple[int, int]:
        cache = MemoryCache(1 << 30)
        tracemalloc.start()
        for query in range(queries):
            await cache.put(query_key("v", str(query)), items, scores)
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return taken, cache.nbytes

    taken, counted = run(work())
    assert taken <= counted <= 1.5 * taken


def test_what_is_filled_first_is_forgotten_last_and_nothing_for_what_comes_later() -> None:
    cache = MemoryCache(2 * size(1))

    async def known(name: bytes) -> bool:
        return not np.isnan(await cache.get(name, keys(1))).any()

    async def work() -> None:
        assert await cache.fill(b"first", keys(1), ones(1))
        assert await cache.fill(b"second", keys(1), ones(1))
        assert await cache.fill(b"first", keys(2), ones(1))  # known already, stays as it is
        assert not await cache.fill(b"third", keys(1), ones(1))
        assert cache.nbytes == cache.max_bytes
        await cache.put(b"asked", keys(1), ones(1))
        assert await known(b"first")
        assert not await known(b"second")
        assert await known(b"asked")

    run(work())


def zipf(queries: int, exponent: float = 1.0) -> np.ndarray:
    weights = np.arange(1, queries + 1) ** -exponent
    return weights / weights.sum()


def hits(cache: MemoryCache, stream: np.ndarray, *, put: bool) -> np.ndarray:
    """Whether each query's only pair was known. [stream]"""
    item, score = keys(1), ones(1)

    async def work() -> list[bool]:
        found = []
        for query in stream:
            name = int(query).to_bytes(4, "little")
            is_hit = not np.isnan(await cache.get(name, item))[0]
            if put and not is_hit:
                await cache.put(name, item, score)
            found.append(is_hit)
        return found

    return np.array(run(work()))


def test_a_fifth_filled_beforehand_hits_as_often_as_the_fifth_is_asked_for() -> None:
    chances = zipf(1_000)
    cache = MemoryCache(200 * size(1))

    async def fill() -> int:
        filled = 0
        while await cache.fill(filled.to_bytes(4, "little"), keys(1), ones(1)):
            filled += 1
        return filled

    assert run(fill()) == 200
    stream = np.random.default_rng(0).choice(1_000, 20_000, p=chances)
    expected = chances[:200].sum()
    rate = hits(cache, stream, put=False).mean()
    assert abs(rate - expected) < 4 * np.sqrt(expected * (1 - expected) / len(stream))


@pytest.mark.parametrize("exponent", [0.8, 1.0, 1.2])
def test_the_hit_rate_of_a_zipf_stream_is_ches(exponent: float) -> None:
    # Che, Tung and Wang, IEEE JSAC 2002: a query is known if it was asked for within T, where T is
    # such that as many queries as fit are expected to have been
    chances = zipf(1_000, exponent)
    fits = 100
    low, high = 0.0, 1e9
    for _ in range(100):
        middle = (low + high) / 2
        is_less = (1 - np.exp(-chances * middle)).sum() < fits
        low, high = (middle, high) if is_less else (low, middle)
    expected = (chances * (1 - np.exp(-chances * low))).sum()
    stream = np.random.default_rng(0).choice(1_000, 30_000, p=chances)
    rate = hits(MemoryCache(fits * size(1)), stream, put=True)[5_000:].mean()
    assert rate == pytest.approx(expected, abs=0.012)


def test_threads_share_it() -> None:
    cache = MemoryCache(10 * size(40))
    failed: list[BaseException] = []

    async def use(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(400):
            query = int(rng.integers(20))
            numbers = rng.choice(60, size=20, replace=False)
            wanted = (numbers * 100 + query).astype(np.float32)
            scores = await cache.get(bytes([query]), keys(*numbers))
            assert ((scores == wanted) | np.isnan(scores)).all()
            await cache.put(bytes([query]), keys(*numbers), wanted)
            assert cache.nbytes <= cache.max_bytes

    def work(seed: int) -> None:
        try:
            run(use(seed))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert cache.nbytes == sum(group.nbytes for group in cache._groups.values())


def test_tasks_share_it() -> None:
    cache = MemoryCache(1 << 20)

    async def request(query: int) -> Scores:
        items = keys(*range(50))
        await cache.put(bytes([query % 7]), items, ones(50) * (query % 7))
        await asyncio.sleep(0)
        return await cache.get(bytes([query % 7]), items)

    async def work() -> None:
        found = await asyncio.gather(*(request(query) for query in range(100)))
        assert all((scores == query % 7).all() for query, scores in enumerate(found))

    run(work())


def test_hits_and_misses_are_counted_in_pairs() -> None:
    def counted() -> list[float]:
        return [CACHE_REQUESTS.labels("scores", result)._value.get() for result in ("hit", "miss")]

    cache = MemoryCache(1 << 20)
    before = counted()
    run(cache.put(b"q", keys(1, 2), ones(2)))
    run(cache.get(b"q", keys(1, 2, 3, 4, 5)))
    assert [after - start for after, start in zip(counted(), before, strict=True)] == [2, 3]


@given(arrays(np.float32, 3))
def test_any_float_goes_in_and_out_or_stays_unknown(scores: Scores) -> None:
    found = EMPTY.add(keys(1, 2, 3), scores).find(keys(1, 2, 3))
    is_known = ~np.isnan(scores)
    assert found[is_known].tobytes() == scores[is_known].tobytes()
    assert np.isnan(found[~is_known]).all()


def test_a_closed_cache_is_empty() -> None:
    cache = MemoryCache(1 << 20)
    run(cache.put(b"q", keys(1), ones(1)))
    run(cache.close())
    assert (len(cache), cache.nbytes) == (0, 0)


def test_a_bound_below_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REDIS_URL, raising=False)
    with pytest.raises(ValueError, match="max_bytes -1: want 0 or more"):
        open_cache(-1)
    assert isinstance(open_cache(1), MemoryCache)
    assert open_cache(0) is None


@given(st.text("aé1 \t\n\r\u00a0\u3000-,'", max_size=20))
def test_tokenizers_read_the_same_after_normalising(vocabulary_ids: Any, query: str) -> None:
    assert vocabulary_ids(query) == vocabulary_ids(normalised(query))
    assert normalised(normalised(query)) == normalised(query)


@pytest.fixture(scope="module")
def vocabulary_ids(vocabulary: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(vocabulary)
    return lambda text: tokenizer(text)["input_ids"]


def test_a_term_tagger_does_not_hence_the_model_is_given_the_normalised_query() -> None:
    assert UNITS.search(normalised("flour 10  kg"))
    assert not UNITS.search("flour 10  kg")
