"""Files of scores: what was written is found, and nothing of another model."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from relevance.titles import title_hashes
from serving import cache_file
from serving.cache_file import SCHEMA, VERSION, new_cache_file, prefill
from serving.caches import EMPTY, MemoryCache, Scores, item_keys, query_key

T = TypeVar("T")

TITLES = ["red lamp", "blue lamp", "green lamp"]
IDS = ["p1", "p2", "p3"]
SCORES = np.array([1.5, -2.25, 1e-42], np.float32)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def write(path: Path, queries: int = 3) -> Path:
    with new_cache_file(path, "v1") as append:
        for query in range(queries):
            append(f"query {query}", IDS, title_hashes(TITLES), SCORES + np.float32(query))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "scores.parquet")


def test_a_filled_cache_has_the_files_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_file, "_ROWS", 5)  # several row groups
    file = write(tmp_path / "scores.parquet", 7)
    assert pq.ParquetFile(file).num_row_groups == 4
    cache = MemoryCache(1 << 20)

    async def work() -> None:
        assert await prefill(cache, file, "v1", has_item_ids=True) == 21
        items = item_keys(title_hashes(TITLES), IDS)
        for query in range(7):
            found = await cache.get(query_key("v1", f"query {query}"), items)
            assert found.tobytes() == (SCORES + np.float32(query)).tobytes()
        retitled = item_keys(title_hashes(["red lamp, new"]), IDS[:1])
        assert np.isnan(await cache.get(query_key("v1", "query 0"), retitled)).all()

    run(work())


def test_a_server_without_items_is_filled_by_title(file: Path) -> None:
    cache = MemoryCache(1 << 20)

    async def work() -> Scores:
        await prefill(cache, file, "v1", has_item_ids=False)
        return await cache.get(query_key("v1", "query 0"), title_hashes(TITLES))

    assert run(work()).tobytes() == SCORES.tobytes()


def test_where_memory_ends_the_most_searched_are_known(file: Path) -> None:
    one = EMPTY.add(title_hashes(TITLES), SCORES).nbytes
    cache = MemoryCache(2 * one)

    async def work() -> list[bool]:
        assert await prefill(cache, file, "v1", has_item_ids=False) == 6
        found = [
            await cache.get(query_key("v1", f"query {query}"), title_hashes(TITLES))
            for query in range(3)
        ]
        return [not np.isnan(scores).any() for scores in found]

    assert run(work()) == [True, True, False]


def test_scores_of_another_checkpoint_are_refused(file: Path) -> None:
    with pytest.raises(ValueError, match="scores of checkpoint v1, want v2; make it anew"):
        run(prefill(MemoryCache(1 << 20), file, "v2", has_item_ids=True))


def test_other_files_are_refused(tmp_path: Path) -> None:
    def error_of(name: str) -> str:
        with pytest.raises((ValueError, OSError)) as caught:
            run(prefill(MemoryCache(1 << 20), tmp_path / name, "v1", has_item_ids=True))
        return str(caught.value)

    assert "missing; make it with `querylift cache build`" in error_of("none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    assert "not a readable Parquet file" in error_of("text.parquet")
    pq.write_table(pa.table({"query": ["a"]}), tmp_path / "other.parquet")
    assert "no file of scores" in error_of("other.parquet")
    wide = pa.schema([*SCHEMA, pa.field("more", pa.int8())], metadata={VERSION: b"v1"})
    pq.write_table(wide.empty_table(), tmp_path / "wide.parquet")
    assert "no file of scores" in error_of("wide.parquet")


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"

    def stop() -> None:
        with new_cache_file(path, "v1") as append:
            append("query", IDS, title_hashes(TITLES), SCORES)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert not list(tmp_path.iterdir())
    write(path)
    with pytest.raises(FileExistsError, match="exists already"), new_cache_file(path, "v1"):
        pass


def test_an_empty_file_fills_nothing(tmp_path: Path) -> None:
    file = write(tmp_path / "scores.parquet", 0)
    assert run(prefill(MemoryCache(1 << 20), file, "v1", has_item_ids=True)) == 0
