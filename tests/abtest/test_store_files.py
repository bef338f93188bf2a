"""Which files a store has, and what is proven of them: with a real log, shipped and verified."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from abtest import at_once
from abtest.at_once import user_rows_at_once
from abtest.events import Study, Windows, open_duckdb
from abtest.store_files import VERIFIED, StoreFiles
from abtest.user_table import user_table
from serving.event_log import EventLog, Spool
from serving.log_proof import prove_distinct, verify
from serving.log_store import Store
from serving.shipping import compact
from tests.serving.collecting import event, kept

NOW = datetime.now(UTC)
TODAY = NOW.date()
MET = {
    **{"layer": "ranking", "experiment_id": "ei", "phase": 1, "variant": "control", "bucket": 0},
    **{"config_version": 1, "is_fallback": False, "is_forced": False},
}
EXPOSED = {
    "action_name": "exposure",
    "event_attributes": {"position": {"ordinal": 0}, "experiment": MET},
}
STUDY = Study("ei", 1, Windows(NOW - timedelta(hours=2), NOW + timedelta(hours=2)))


def ship(spool: Path, store: Store, clients: int) -> None:
    log = EventLog.open(spool, Spool(min_free_bytes=1))
    log.append(kept(*(event(at=NOW, client_id=f"c{n}", **EXPOSED) for n in range(clients))))
    log.close()
    compact(spool, store)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a file of two events, proven."""
    ship(tmp_path / "log", Store(str(tmp_path / "store")), 2)
    assert verify(tmp_path / "log", Store(str(tmp_path / "store"))) == []
    return tmp_path / "store"


def the_file(store: Path) -> Path:
    (file,) = store.glob("events/*/*.parquet")
    return file


def copy(file: Path) -> None:
    shutil.copy(file, file.with_name("part-copy-00000001.parquet"))


def rewrite(file: Path) -> None:
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def test_what_was_verified_needs_no_look(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(at_once, "repeated")
    with open_duckdb() as connection:
        rows = user_rows_at_once(connection, store, tmp_path / "scratch", STUDY)
        assert rows.count().execute() == 2


def test_a_copy_that_was_planted_after_the_proof_is_caught(store: Path, tmp_path: Path) -> None:
    copy(the_file(store))
    with open_duckdb() as connection:
        found = user_table(connection, store, tmp_path / "state", STUDY)
        assert found.funnel.rows["duplicate"] == 2
        rows = user_rows_at_once(connection, store, tmp_path / "scratch", STUDY, ["exposures"])
        assert rows.exposures.sum().execute() == 2


@pytest.mark.parametrize("change", [copy, rewrite, shorten, Path.unlink])
def test_a_file_that_came_changed_or_went_takes_the_proof_of_its_day(
    store: Path, change: Callable[[Path], None]
) -> None:
    assert StoreFiles(store).is_distinct([TODAY])
    change(the_file(store))
    assert not StoreFiles(store).is_distinct([TODAY])
    assert StoreFiles(store).is_distinct([TODAY - timedelta(days=1)])


def test_ids_that_are_twice_are_never_proven(store: Path, tmp_path: Path) -> None:
    copy(the_file(store))
    (found,) = prove_distinct(Store(str(store)))
    assert "2 ids more than once" in found
    assert not StoreFiles(store).is_distinct([TODAY])


def test_a_proof_holds_wherever_the_store_is(tmp_path: Path) -> None:
    store = Store(f"memory://{tmp_path.name}-{NOW.timestamp()}")
    ship(tmp_path / "log", store, 1)
    assert not StoreFiles(store.url).is_distinct([TODAY])
    assert verify(tmp_path / "log", store) == []
    assert StoreFiles(store.url).is_distinct([TODAY])
    ship(tmp_path / "log", store, 1)
    assert not StoreFiles(store.url).is_distinct([TODAY])


@pytest.mark.parametrize("url", ["dropbox://log", "nowhere://log"])
def test_a_place_that_cannot_be_reached_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"dropboxdrivefs|nowhere"):
        StoreFiles(url)


def test_a_proof_that_cannot_be_read_is_named(store: Path) -> None:
    (store / VERIFIED).write_text('{"distinct": {}, "more": 1}')
    with pytest.raises(ValueError, match=r"verified\.json: .*more.*`events verify` writes it anew"):
        StoreFiles(store).is_distinct([TODAY])
