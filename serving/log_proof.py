"""The proof that nothing of the event log was lost, changed or kept twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.dataset as ds

from abtest.records import KINDS, Kind
from abtest.store_files import StoreFiles, Verified
from serving import segments
from serving.log_store import Store, date_of, day_of
from serving.segments import Segment


def verify(spool: Path, store: Store) -> list[str]:
    """What is wrong with a log and its store; nothing, if every record is where it should be.

    It proves that no segment is missing, that each line is as it was written or in the store, that
    files have the rows that the ledger says, and that no id is there twice. The last is written
    down, for whoever reads the store.
    """
    with store.locked():
        twice = prove_distinct(store)
        return [*_spool_findings(spool, store), *_store_findings(spool, store), *twice]


def prove_distinct(store: Store) -> list[str]:
    """Look for ids that are there twice, and write down in which folders there are none."""
    files = StoreFiles(store.url)
    distinct, findings = {}, []
    for kind in KINDS.values():
        for day in files.days(kind.table):
            folder = day_of(kind.table, day.isoformat())
            # before the look: of a file that changes meanwhile nothing is proven
            facts = files.folder(folder)
            found = list(_twice(store, kind, folder)) if facts else []
            findings += found
            if not found:
                distinct[folder] = facts
    store.record_verified(Verified(distinct))
    return findings


def _spool_findings(spool: Path, store: Store) -> Iterator[str]:
    writer = segments.writer_of(spool)
    files = segments.segments(spool)
    shipped = {entry.number for entry in store.shipped() if entry.writer == writer}
    here = {segment.number for segment in files}
    for number in range(1, max(here | shipped, default=0) + 1):
        if number not in here | shipped:
            yield f"segment {number}: neither in the log nor in the ledger"
    for segment in files:
        if segment.is_damaged:
            yield f"{segment.path}: has lines that could not be read and are not in the store"
        elif segment.number not in shipped:
            yield from _line_findings(segment)


def _line_findings(segment: Segment) -> Iterator[str]:
    try:
        is_good = [line is not None for line in segments.read_lines(segment.path)]
    except FileNotFoundError:
        # its writer has closed it since, under another name
        return
    if segment.lines is None and is_good and not is_good[-1]:
        # is being written, or torn; opening the log mends it
        is_good.pop()
    good, want = sum(is_good), len(is_good) if segment.lines is None else segment.lines
    if good != want:
        yield f"{segment.path}: {good:,} good lines, want {want:,}"


def _store_findings(spool: Path, store: Store) -> Iterator[str]:
    for entry in store.shipped():
        accounted = entry.damaged + sum(entry.files.values()) + sum(entry.duplicates.values())
        if accounted != entry.lines:
            name = f"segment {entry.number} of {entry.writer}"
            yield f"{name}: {accounted:,} lines accounted for, want {entry.lines:,}"
    expected, found = store.expected_rows(), set(store.files())
    for file, rows in sorted(expected.items()):
        if rows and file not in found:
            yield f"{file}: missing, want {rows:,} rows"
    waiting = {f"{segment.number:08d}" for segment in segments.segments(spool)}
    for file in sorted(found):
        is_unfinished = Path(file).stem.rpartition("-")[2] in waiting
        if file not in expected:
            if not is_unfinished:
                yield f"{file}: not in the ledger"
        elif (rows := store.rows(file)) != expected[file]:
            yield f"{file}: {rows:,} rows, want {expected[file]:,}"


def _twice(store: Store, kind: Kind, folder: str) -> Iterator[str]:
    """Ids that are more than once in a day, and those that are in another's folder."""
    start = datetime.combine(date_of(folder), time(), UTC)
    dataset, field = store.dataset(store.files(folder)), ds.field(kind.id_field)
    seen = 0
    # an hour at a time bounds the memory
    for hour in range(24):
        first, last = (_first_id(start + timedelta(hours=hours)) for hours in (hour, hour + 1))
        ids = dataset.to_table(columns=[kind.id_field], filter=(field >= first) & (field < last))[
            kind.id_field
        ]
        seen += len(ids)
        if repeated := len(ids) - pc.count_distinct(ids).as_py():
            yield f"{folder}: {repeated:,} ids more than once, hour {hour}"
    if others := dataset.count_rows() - seen:
        yield f"{folder}: {others:,} rows of another day"


def _first_id(at: datetime) -> str:
    """The prefix that ids of this moment or later do not sort before."""
    digits = f"{int(at.timestamp() * 1_000):012x}"
    return f"{digits[:8]}-{digits[8:]}"
