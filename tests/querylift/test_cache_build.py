"""Scoring in advance: the most searched queries of the log, with the items it shows for them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from querylift import cache_build
from querylift.cache_build import build_cache
from relevance.data.tables import TABLES, DatasetCard, write_card, write_table
from relevance.scorer import Job
from relevance.titles import Titles, title_hashes
from serving.cache_file import prefill
from serving.caches import MemoryCache, Scores, item_keys, query_key

QUERIES = {"q1": "red lamp", "q2": "kettle", "q3": " red  lamp ", "q4": "cable", "q5": "sofa"}
PRODUCTS = {"p1": "red lamp 12v", "p2": "blue lamp", "p3": "steel kettle", "p4": "usb cable"}
# search, query, items shown
LOG = [
    ("s1", "q1", ["p1", "p2"]),
    ("s2", "q1", ["p2"]),
    ("s3", "q3", ["p1", "p3"]),
    ("s4", "q2", ["p3"]),
    ("s5", "q2", ["p3", "gone"]),
    ("s6", "q4", ["gone"]),
    ("s7", "q5", ["p4"]),
    ("s8", "unknown", ["p4"]),
]


class LetterScorer:
    """A title's score is how many of its letters the query has."""

    bits = "v1-fp32"

    def prepare(self, titles: Sequence[str]) -> Titles:
        rows = [[ord(letter) for letter in title] for title in titles]
        return Titles.of({"letters": rows}, {"letters": np.int32}, [False] * len(rows))

    def score_jobs(self, jobs: Sequence[Job]) -> list[Scores]:
        return [self.score(job.query, job.titles) for job in jobs]

    def score(self, query: str, titles: Titles) -> Scores:
        rows = np.split(titles.columns["letters"], titles.starts[1:-1])
        wanted = [ord(letter) for letter in query]
        return np.array([np.isin(row, wanted).sum() / 7 for row in rows], np.float32)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir()
    events = [
        (f"{search}-{item}-{action}", 0, "u1", search, query, item, action, 1)
        for search, query, items in LOG
        for item in items
        for action in ("impression", "click")
    ]
    rows: dict[str, list[tuple[Any, ...]]] = {
        "queries": [(i, text, "train", "shop", None) for i, text in QUERIES.items()],
        "products": [(i, title, None, None, None, None) for i, title in PRODUCTS.items()],
        "events": events,
    }
    for name, table in rows.items():
        columns = [
            pa.array(column, field.type)
            for column, field in zip(zip(*table, strict=True), TABLES[name], strict=True)
        ]
        write_table(pa.table(columns, schema=TABLES[name]), made, name)
    write_card(DatasetCard("tiny", is_generated=True, licence="none", settings={}), made)
    return made


def build(data: Path, out: Path, *, share: float = 1.0, max_items: int = 100) -> dict[str, float]:
    return build_cache(LetterScorer(), data, out, share=share, max_items=max_items)


def rows(path: Path) -> list[tuple[str, str]]:
    table = pq.read_table(path)
    return list(zip(table["query"].to_pylist(), table["item_id"].to_pylist(), strict=True))


def test_queries_come_by_searches_and_items_by_events(data: Path, tmp_path: Path) -> None:
    found = build(data, tmp_path / "scores.parquet")
    # two spellings are one query, what is no longer sold is left out
    assert rows(tmp_path / "scores.parquet") == [
        ("red lamp", "p1"),
        ("red lamp", "p2"),
        ("red lamp", "p3"),
        ("kettle", "p3"),
        ("sofa", "p4"),
    ]
    assert found == {"queries": 3, "pairs": 5, "searches": 1}


def test_share_is_of_the_logs_distinct_queries(data: Path, tmp_path: Path) -> None:
    found = build(data, tmp_path / "scores.parquet", share=0.5, max_items=2)
    assert rows(tmp_path / "scores.parquet") == [
        ("red lamp", "p1"),
        ("red lamp", "p2"),
        ("kettle", "p3"),
    ]
    assert found == {"queries": 2, "pairs": 3, "searches": pytest.approx(5 / 7)}


def test_a_server_that_starts_with_it_has_the_scorers_bits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_build, "_CHUNK", 3)
    monkeypatch.setattr(cache_build, "_PAIRS", 4)
    build(data, tmp_path / "scores.parquet")
    cache, scorer = MemoryCache(1 << 20), LetterScorer()
    ids, titles = list(PRODUCTS), list(PRODUCTS.values())

    async def work() -> Scores:
        await prefill(cache, tmp_path / "scores.parquet", scorer.bits, has_item_ids=True)
        items = item_keys(title_hashes(titles), ids)
        return await cache.get(query_key(scorer.bits, "red lamp"), items)

    found = asyncio.run(work())
    expected = scorer.score("red lamp", scorer.prepare(titles))
    assert found[:3].tobytes() == expected[:3].tobytes()
    assert np.isnan(found[3])


def test_settings_out_of_bounds_are_refused(data: Path, tmp_path: Path) -> None:
    for share in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="want more than 0 and at most 1"):
            build(data, tmp_path / "scores.parquet", share=share)
    with pytest.raises(ValueError, match="max_items 0: want 1 or more"):
        build(data, tmp_path / "scores.parquet", max_items=0)


def test_a_log_of_other_queries_or_items_is_refused(data: Path, tmp_path: Path) -> None:
    events = pq.read_table(data / "events.parquet")
    others = pa.array(["other"] * len(events))
    for column, message in (("item_id", "no item in it"), ("query_id", "no search is of a query")):
        place = events.schema.get_field_index(column)
        changed = events.set_column(place, events.schema.field(column), others)
        pq.write_table(changed, data / "events.parquet")
        with pytest.raises(ValueError, match=message):
            build(data, tmp_path / "scores.parquet")
    (data / "events.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"events\.parquet: missing"):
        build(data, tmp_path / "scores.parquet")
    assert not (tmp_path / "scores.parquet").exists()


def test_a_file_that_is_there_is_not_overwritten(data: Path, tmp_path: Path) -> None:
    (tmp_path / "scores.parquet").write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        build(data, tmp_path / "scores.parquet")
    assert (tmp_path / "scores.parquet").read_text() == "mine"
