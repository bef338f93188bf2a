"""What each client did a day, kept on disk, so that day 30 does not read day 1 again.

A day is made anew when a file it was made of changed: rows of a day come late, and what was
identified near midnight may belong to the day beside it. Days know nothing of one another; what
reaches from one into the next is put together by ``abtest.user_rows``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ibis

from abtest.events import Log, Study, flat_events, flat_queries, near
from abtest.store_files import StoreFiles
from abtest.user_days import (
    day_bots,
    day_deeds,
    day_rows,
    day_totals,
    deeds_of,
    repeated,
    shown_in,
    unique,
)

FORMAT = 3
"""Of the files; goes up with every change of what is in them."""

PARTS = 16
"""Clients are kept in so many parts, for all days the same, to be put together one by one."""

Advance = Callable[[int, int], None]
_A_DAY = timedelta(days=1)


def update(
    connection: Any,
    store: StoreFiles,
    state: Path,
    study: Study,
    advance: Advance = lambda done, total: None,
) -> list[Path]:
    """Make the days that are missing or have changed.

    Memory is that of a day at most, and what is more goes to the disk.

    Args:
        connection: Of ``abtest.events.open_duckdb``.
        store: Its Parquet files.
        state: Directory for this study and no other.
        study: The rules.
        advance: Called with days done and days in all.

    Returns:
        A folder for each day.

    Raises:
        FileNotFoundError: The store has no events in the windows.
        ValueError: The state is of another study, or the store has other columns.
    """
    _claim(state, study)
    store.attach(connection)
    days = [day for day in study.windows.days if store.of("events", near([day]))]
    if not days:
        first, last = study.windows.days[0], study.windows.days[-1]
        raise FileNotFoundError(f"{store.url}/events: nothing from {first} to {last}")
    maker, folders = _Maker(connection, store, study), []
    for done, day in enumerate(days):
        advance(done, len(days))
        folders.append(_updated(maker, state, day))
    advance(len(days), len(days))
    return folders


def part_of(folders: list[Path], name: str, part: int) -> list[str]:
    """Files of a table with the clients of one part, and one that has no rows."""
    found = [file for folder in folders for file in (folder / name).glob(f"part={part}/*.parquet")]
    return [str(folders[0] / name / "none.parquet"), *sorted(map(str, found))]


def _claim(state: Path, study: Study) -> None:
    made_by = {"format": FORMAT, "parts": PARTS, "duckdb": version("duckdb")}
    text = json.dumps(made_by | study.settings(), indent=2)
    state.mkdir(parents=True, exist_ok=True)
    file = state / "study.json"
    if not file.exists():
        partial = file.with_suffix(".partial")
        partial.write_text(text)
        partial.rename(file)
    elif file.read_text() != text:
        raise ValueError(f"{state}: made with other settings or by another version; want its own")


class _Maker:
    """Makes days. The SQL is written once, for it takes longer than a small day does.

    What changes from day to day is behind the names ``stored_...``.
    """

    def __init__(self, connection: Any, store: StoreFiles, study: Study) -> None:
        self.store = store
        self._connection = connection
        self._study = study
        self._sql: dict[str, str] = {}

    def make(self, day: date, folder: Path) -> None:
        """Write the files of a day."""
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        reach = timedelta(minutes=self._study.windows.click_minutes)
        self._store("events", start, start + _A_DAY)
        self._store("before", start - reach, start)
        self._store("queries", start, start + _A_DAY)
        sql = self._sql = self._sql or self._plan()
        is_distinct = self.store.is_distinct(near([day]))
        duplicates = 0 if is_distinct else self._number("duplicates")
        self._name("VIEW", "rows_before", sql["before"])
        self._name("TABLE", "rows_today", sql["unique_rows" if duplicates else "rows"])
        self._name("TABLE", "totals_today", sql["make_totals"])
        for name in ("totals", "deeds"):
            (folder / name).mkdir()
            self._copy(f"SELECT * FROM ({sql[name]}) LIMIT 0", folder / name / "none.parquet")
            part = f"(client_id % {PARTS})::INTEGER AS part"
            self._copy(
                f"SELECT *, {part} FROM ({sql[name]})",
                folder / name,
                ", PARTITION_BY (part), OVERWRITE_OR_IGNORE",
            )
        self._copy(sql["bots"], folder / "bots.parquet")
        counts = {
            "duplicates": duplicates,
            "without_client": self._number("without_client"),
            "experiments": [name for (name,) in self._rows("experiments")],
        }
        (folder / "counts.json").write_text(json.dumps(counts))

    def _store(self, name: str, start: datetime, end: datetime) -> None:
        """What the store has between two moments, behind a name."""
        table = "queries" if name == "queries" else "events"
        last = (end - timedelta(microseconds=1)).date()
        days = near([start.date(), last])
        found = self.store.of(table, days) or self.store.one_of(table)
        if found:
            self._connection.raw_sql(
                f"CREATE OR REPLACE TEMP VIEW stored_{name} AS SELECT * FROM read_parquet({found}) "
                f"WHERE timestamp >= '{start}' AND timestamp < '{end}'"
            )

    def _plan(self) -> dict[str, str]:
        table, study = self._connection.table, self._study
        has_queries = bool(self.store.one_of("queries"))
        queries = flat_queries(table("stored_queries")) if has_queries else None
        events = flat_events(table("stored_events"))
        copies = repeated(events)
        stored = day_rows(Log(events, queries), study)
        rows, before = (ibis.table(stored.schema(), name=f"rows_{n}") for n in ("today", "before"))
        totals = day_totals(rows)
        today = ibis.table(totals.schema(), name="totals_today")
        met = events.filter(events.action == "exposure")
        expressions = {
            "duplicates": copies.aggregate(n=(copies.copies - 1).sum().fill_null(0)),
            "before": day_rows(Log(flat_events(table("stored_before")), None), study),
            "rows": stored,
            "unique_rows": day_rows(Log(unique(events), queries), study),
            "make_totals": totals,
            "totals": today,
            "deeds": day_deeds(deeds_of(rows), shown_in(rows).union(shown_in(before)), study),
            "bots": day_bots(today, rows, study),
            "without_client": rows.filter(rows.client_id.isnull(), rows.is_event).count(),
            "experiments": met.select(
                name=met.experiment_id + "/" + met.phase.cast("string")
            ).distinct(),
        }
        return {name: self._connection.compile(made) for name, made in expressions.items()}

    def _copy(self, sql: str, to: Path, how: str = "") -> None:
        self._connection.raw_sql(f"COPY ({sql}) TO '{to}' (FORMAT parquet, COMPRESSION zstd{how})")

    def _name(self, kind: str, name: str, sql: str) -> None:
        self._connection.raw_sql(f"CREATE OR REPLACE TEMP {kind} {name} AS {sql}")

    def _rows(self, name: str) -> list[tuple[Any, ...]]:
        return list(self._connection.raw_sql(self._sql[name]).fetchall())

    def _number(self, name: str) -> int:
        return int(self._rows(name)[0][0])


def _updated(maker: _Maker, state: Path, day: date) -> Path:
    """The folder of a day, made if there is none of the files that the store has now."""
    made_of = hashlib.blake2b(json.dumps(_sources(maker.store, day)).encode(), digest_size=8)
    folder = state / f"{day.isoformat()}-{made_of.hexdigest()}"
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        maker.make(day, partial)
        partial.rename(folder)
    for old in state.glob(f"{day.isoformat()}-*"):
        if old != folder:
            shutil.rmtree(old)
    return folder


def _sources(store: StoreFiles, day: date) -> list[tuple[str, int, str]]:
    return [
        (file, fact.size, fact.version)
        for table in ("events", "queries")
        for file, fact in store.facts(table, near([day])).items()
    ]
