"""From segments to Parquet: each record once, whatever interrupts it; and the proof of that."""

import contextlib
import json
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pytest

from abtest.records import Query, QueryAttributes, Record, Shadow, uuid7
from serving import segments
from serving.event_log import EventLog, Spool
from serving.log_proof import verify
from serving.log_store import Store
from serving.shipping import Compacted, compact
from tests.serving.collecting import (
    Killed,
    Mortal,
    event,
    ids_in,
    ids_of,
    kept,
    long_ago,
    store_at,
)

SPOOL = Spool(min_free_bytes=1, segment_bytes=2_000)
NOW = datetime(2026, 11, 5, 12, tzinfo=UTC)


def write(spool: Path, *batches: list[Any], settings: Spool = SPOOL) -> None:
    log = EventLog.open(spool, settings)
    for batch in batches:
        log.append(batch)
    log.close()


def query(at: datetime = NOW) -> Query:
    return Query(
        request_id=uuid7(at),
        query_id="query-1",
        timestamp=at,
        user_query="velvet sofa",
        query_response_hit_ids=("A1", "A2"),
        query_attributes=QueryAttributes(
            path="/rerank", n_items=2, scorer="bert", latency_ms=3.5, is_fallback=False
        ),
    )


def shadow(at: datetime = NOW) -> Shadow:
    return Shadow(
        shadow_id=uuid7(at),
        query_id="query-1",
        timestamp=at,
        experiment_id="ei-src-vs-bert",
        main_scorer="bert",
        shadow_scorer="ei-src",
        item_keys=("A1", "A2"),
        main_scores=(0.5, 0.25),
        shadow_scores=(0.75, 0.125),
        main_ms=3.5,
        shadow_ms=4.5,
    )


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_at(tmp_path / "store")


def test_every_kind_of_record_lands_in_its_table_on_its_day(
    spool: Path, store: Store, tmp_path: Path
) -> None:
    records: list[Record] = [*kept(event(at=NOW), now=NOW), query(), shadow()]
    write(spool, records, [query(NOW - timedelta(days=1))])
    done = compact(spool, store)
    assert done == Compacted(segments=1, records=4, duplicates=0, damaged=0, files=4)
    assert [file.rpartition("/")[0] for file in store.files()] == [
        "events/date=2026-11-05",
        "queries/date=2026-11-04",
        "queries/date=2026-11-05",
        "shadows/date=2026-11-05",
    ]
    row = duckdb.sql(
        f"""
        SELECT event_attributes.object.object_id, date::VARCHAR, timestamp = received_at
        FROM read_parquet('{tmp_path}/store/events/*/*.parquet', hive_partitioning = true)
        """
    ).fetchall()
    assert row == [("A1", "2026-11-05", True)]
    scores = store.read(store.files("shadows")[0]).to_pylist()[0]
    assert (scores["main_scores"], scores["shadow_scores"]) == ([0.5, 0.25], [0.75, 0.125])
    assert verify(spool, store) == []


def test_a_record_that_was_sent_again_is_there_once(
    spool: Path, store: Store, tmp_path: Path
) -> None:
    first = event()
    (early,) = kept(first)
    (late,) = kept(first, now=datetime.now(UTC) + timedelta(seconds=3))
    write(spool, [late, early])
    compact(spool, store)
    write(spool, kept(first, event()))
    done = compact(spool, store)
    assert (done.records, done.duplicates) == (1, 1)
    found = ids_in(tmp_path / "store")
    assert len(found) == len(set(found)) == 2
    table = store.read(store.files()[0])
    assert table["received_at"].to_pylist() == [early.received_at]
    assert verify(spool, store) == []


def test_two_logs_may_share_a_store(tmp_path: Path, store: Store) -> None:
    sent = event()
    write(tmp_path / "a", kept(sent))
    write(tmp_path / "b", kept(sent, event()))
    compact(tmp_path / "a", store)
    compact(tmp_path / "b", store)
    assert len(ids_in(tmp_path / "store")) == 2
    assert verify(tmp_path / "a", store) == verify(tmp_path / "b", store) == []


def test_segments_go_once_they_are_shipped_and_the_open_one_stays(
    spool: Path, store: Store, tmp_path: Path
) -> None:
    log = EventLog.open(spool, SPOOL)
    for _ in range(20):
        log.append(kept(event()))
    while len(list(spool.glob("*.log"))) < 3:
        pass
    shipped = compact(spool, store).records
    assert 0 < shipped < 20
    assert [segment.lines for segment in segments.segments(spool)] == [None]
    assert verify(spool, store) == []
    log.close()
    assert compact(spool, store).records == 20 - shipped


def test_a_second_run_has_nothing_to_do(spool: Path, store: Store) -> None:
    write(spool, kept(event()))
    compact(spool, store)
    assert compact(spool, store) == Compacted(0, 0, 0, 0, 0)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("writes", range(1, 10))
def test_a_run_that_ends_at_any_step_is_finished_by_the_next(
    spool: Path, store: Store, tmp_path: Path, writes: int, before: bool
) -> None:
    sent = [event(at=long_ago(days)) for days in (0, 2, 0, 2, 0, 2, 0, 2, 0, 2)]
    events = kept(*sent)
    write(spool, events[:5], events[3:], settings=Spool(min_free_bytes=1, segment_bytes=1_000))
    with contextlib.suppress(Killed):
        compact(spool, Mortal(store.url, writes, before=before))
    assert verify(spool, store) == []
    compact(spool, store)
    assert sorted(ids_in(tmp_path / "store")) == ids_of(events)
    assert verify(spool, store) == []
    assert not list(spool.glob("*.log"))


def test_a_run_that_ends_before_a_segment_goes_is_finished_by_the_next(
    spool: Path, store: Store, tmp_path: Path
) -> None:
    write(spool, kept(event()))
    content = (spool / "00000001-1.log").read_bytes()
    compact(spool, store)
    (spool / "00000001-1.log").write_bytes(content)
    assert verify(spool, store) == []
    assert compact(spool, store).records == 0
    assert len(ids_in(tmp_path / "store")) == 1
    assert not (spool / "00000001-1.log").exists()


def test_a_changed_line_is_reported_and_all_others_are_shipped(
    spool: Path, store: Store, tmp_path: Path
) -> None:
    events = kept(event(), event(), event())
    write(spool, events)
    path = spool / "00000001-3.log"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"velvet", b"velour")
    path.write_bytes(b"".join(lines))
    assert verify(spool, store) == [f"{path}: 2 good lines, want 3"]
    assert compact(spool, store).damaged == 1
    assert sorted(ids_in(tmp_path / "store")) == ids_of([events[0], events[2]])
    damaged = path.with_suffix(".damaged")
    assert damaged.read_bytes() == b"".join(lines)
    (finding,) = verify(spool, store)
    assert str(damaged) in finding
    assert compact(spool, store).segments == 0


def test_a_record_of_another_kind_is_never_dropped(spool: Path, store: Store) -> None:
    write(spool, kept(event()))
    path = spool / "00000001-1.log"
    payload = b"order {}"
    path.write_bytes(b"%08x %s\n" % (zlib.crc32(payload), payload))
    with pytest.raises(ValueError, match="kind 'order'; want event, query, shadow"):
        compact(spool, store)
    assert path.exists()


def test_a_missing_segment_is_found(spool: Path, store: Store) -> None:
    write(spool, *[kept(event()) for _ in range(12)])
    next(spool.glob("00000002-*")).unlink()
    assert verify(spool, store) == ["segment 2: neither in the log nor in the ledger"]


def test_what_was_done_to_the_store_is_found(spool: Path, store: Store, tmp_path: Path) -> None:
    write(spool, kept(event(), event()))
    compact(spool, store)
    write(spool, kept(event()))
    compact(spool, store)
    first, second = store.files()
    table = store.read(first)
    store.write(second, table)
    folder = str(Path(second).parent)
    assert [finding.split(", hour")[0] for finding in verify(spool, store)] == [
        f"{second}: 2 rows, want 1",
        f"{folder}: 2 ids more than once",
    ]
    store.remove(second)
    assert verify(spool, store) == [f"{second}: missing, want 1 rows"]
    store.write(f"{folder}/part-by-hand-00000099.parquet", store.read(first).slice(0, 0))
    assert f"{folder}/part-by-hand-00000099.parquet: not in the ledger" in verify(spool, store)
    for path in (tmp_path / "store" / "ledger").iterdir():
        path.unlink()
    assert any("neither in the log" in finding for finding in verify(spool, store))


def test_any_file_system_of_fsspec_will_do(spool: Path) -> None:
    store = Store(f"memory://{uuid4().hex}/log")
    sent = event()
    write(spool, kept(sent, event()))
    compact(spool, store)
    write(spool, kept(sent, event()))
    assert compact(spool, store).duplicates == 1
    assert sum(store.rows(file) for file in store.files()) == 3
    assert verify(spool, store) == []


def test_a_store_is_changed_by_one_command_at_a_time(spool: Path, store: Store) -> None:
    write(spool, kept(event()))
    with store.locked(), pytest.raises(BlockingIOError, match="another command"):
        compact(spool, Store(store.url))


def test_the_ledger_accounts_for_every_line(spool: Path, store: Store, tmp_path: Path) -> None:
    sent = event()
    write(spool, kept(sent, sent, event()))
    compact(spool, store)
    (path,) = (tmp_path / "store" / "ledger").iterdir()
    entry = json.loads(path.read_text())
    assert entry.pop("writer") == segments.writer_of(spool)
    assert list(entry.pop("files").values()) == [2]
    assert entry == {
        "number": 1,
        "lines": 3,
        "damaged": 0,
        "duplicates": {"event": 1, "query": 0, "shadow": 0},
    }
