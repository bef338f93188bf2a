"""From the log's segments to the store, each record exactly once.

A segment's files have names that depend on the segment alone, so a run that was killed writes the
same files again. Then comes the segment's entry in the ledger, and only then does it go.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from abtest.record_tables import table_of
from abtest.records import KINDS, Kind
from serving import segments
from serving.event_log import EventLog
from serving.log_store import Shipped, Store, day_of, part
from serving.segments import Segment

_DAY_MS = 86_400_000

Advance = Callable[[int, int], None]
"""Told segments done and segments in all."""


@dataclass(frozen=True)
class Compacted:
    """What a run did."""

    segments: int
    records: int
    """That are new in the store."""
    duplicates: int
    damaged: int
    """Lines that could not be read; their segments stay, as ``.damaged``."""
    files: int


def compact(spool: Path, store: Store, advance: Advance = lambda done, total: None) -> Compacted:
    """Ship every closed segment of a log, and those that a dead writer left open.

    Memory is a few times that of one segment.

    Raises:
        BlockingIOError: Another command is changing the store.
        ValueError: A segment holds what is no record.
    """
    with store.locked():
        return ship(spool, store, advance)


def ship(spool: Path, store: Store, advance: Advance) -> Compacted:
    """``compact`` for whoever has the store locked."""
    # with nobody writing, the last segment can be closed
    with contextlib.suppress(BlockingIOError):
        EventLog.open(spool, wait_s=0).close()
    writer = segments.writer_of(spool)
    closed = [
        segment
        for segment in segments.segments(spool)
        if segment.lines is not None and not segment.is_damaged
    ]
    entries = []
    for done, segment in enumerate(closed):
        advance(done, len(closed))
        entry = store.entry(writer, segment.number)
        if entry is None:
            entry = _ship(segment, writer, store)
            store.record(entry)
            entries.append(entry)
        _let_go(segment, entry)
    advance(len(closed), len(closed))
    return Compacted(
        segments=len(closed),
        records=sum(sum(entry.files.values()) for entry in entries),
        duplicates=sum(sum(entry.duplicates.values()) for entry in entries),
        damaged=sum(entry.damaged for entry in entries),
        files=sum(len(entry.files) for entry in entries),
    )


def read_segment(segment: Segment) -> dict[str, list[bytes]]:
    """Records of a segment in JSON, by kind, without the lines that cannot be read.

    Raises:
        ValueError: A kind of record that is not known here.
    """
    lines: dict[str, list[bytes]] = {name: [] for name in KINDS}
    for line in segments.read_lines(segment.path):
        if line is None:
            continue
        if line.kind not in lines:
            raise ValueError(f"{segment.path}: kind {line.kind!r}; want {', '.join(KINDS)}")
        lines[line.kind].append(line.content)
    return lines


def _ship(segment: Segment, writer: str, store: Store) -> Shipped:
    """Write a segment's files; the same ones however often it is called."""
    assert segment.lines is not None
    lines = read_segment(segment)
    duplicates: dict[str, int] = {}
    files: dict[str, int] = {}
    for name, kind in KINDS.items():
        try:
            table = table_of(lines[name], kind.struct)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{segment.path}: no {name}: {error}") from None
        for date, day in _by_date(_distinct(table, kind), kind):
            file = part(day_of(kind.table, date), writer, segment.number)
            new = _without_known(day, kind, file, store)
            if len(new):
                store.write(file, new)
                files[file] = len(new)
        written = sum(rows for file, rows in files.items() if file.startswith(f"{kind.table}/"))
        duplicates[name] = len(lines[name]) - written
    return Shipped(
        writer=writer,
        number=segment.number,
        lines=segment.lines,
        damaged=segment.lines - sum(map(len, lines.values())),
        duplicates=duplicates,
        files=files,
    )


def _let_go(segment: Segment, entry: Shipped) -> None:
    """Remove a segment that is shipped, or set it aside if a line of it could not be read."""
    if entry.damaged:
        segment.path.rename(segment.path.with_suffix(".damaged"))
    else:
        segment.path.unlink()
    segments.sync(segment.path.parent)


def _distinct(table: pa.Table, kind: Kind) -> pa.Table:
    """One row an id, the earliest, by id."""
    table = table.sort_by([(kind.id_field, "ascending"), (kind.time_field, "ascending")])
    ids = table[kind.id_field].combine_chunks()
    if len(ids) < 2:
        return table
    is_new = pc.not_equal(ids[1:], ids[:-1])
    return table.filter(pa.concat_arrays([pa.array([True]), is_new]))


def _by_date(table: pa.Table, kind: Kind) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each day in UTC, by the time in their ids."""
    days = np.array([_ms(text) // _DAY_MS for text in table[kind.id_field].to_pylist()], np.int64)
    # rows are by id, and ids are by time
    for day, start, count in zip(
        *np.unique(days, return_index=True, return_counts=True), strict=True
    ):
        date = datetime.fromtimestamp(int(day) * _DAY_MS / 1_000, UTC).date().isoformat()
        yield date, table.slice(start, count)


def _without_known(day: pa.Table, kind: Kind, own: str, store: Store) -> pa.Table:
    """Rows whose ids no other file of the day has.

    What a killed run has written into ``own`` is no other file.
    """
    files = [file for file in store.files(str(PurePosixPath(own).parent)) if file != own]
    if not files:
        return day
    ids = day[kind.id_field]
    # files are by id, so most of them need not be read
    between = (ds.field(kind.id_field) >= ids[0]) & (ds.field(kind.id_field) <= ids[-1])
    known = [
        batch.column(0).filter(pc.is_in(batch.column(0), value_set=ids))
        for batch in store.dataset(files).to_batches(columns=[kind.id_field], filter=between)
    ]
    if not known:
        return day
    return day.filter(pc.invert(pc.is_in(ids, value_set=pa.chunked_array(known))))


def _ms(record_id: str) -> int:
    """The time in a UUIDv7, in milliseconds."""
    return int(record_id[:8] + record_id[9:13], 16)
