"""Reading a log while it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving import segments
from serving.event_log import EventLog, Spool
from serving.log_tail import Reader
from serving.segments import Segment
from tests.serving.collecting import event, ids_of, kept


def ids(reader: Reader) -> list[str]:
    return sorted(line.content.decode()[13:49] for line in reader.read())


def test_each_line_is_read_once_and_a_half_one_later(tmp_path: Path) -> None:
    log = EventLog.open(tmp_path, Spool(segment_bytes=1_000, min_free_bytes=1))
    reader = Reader(tmp_path)
    for _ in range(7):
        events = kept(event())
        log.append(events)
        assert ids(reader) == ids_of(events)
    with segments.open_path(tmp_path, 3).open("ab") as file:
        file.write(b"0")
    assert ids(reader) == []
    log.close()


def test_a_segment_that_is_closed_while_it_is_looked_for_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog.open(tmp_path, Spool(min_free_bytes=1))
    events = kept(event(), event())
    log.append(events)
    listed = segments.segments

    def and_then_closed(spool: Path) -> list[Segment]:
        found = listed(spool)
        log.close()
        return found

    monkeypatch.setattr(segments, "segments", and_then_closed)
    assert ids(Reader(tmp_path)) == ids_of(events)
