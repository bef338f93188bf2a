"""The event log: what is appended is there, whole, whatever happens to its writer."""

import asyncio
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import segments
from serving.event_log import EventLog, LogFull, Spool
from tests.serving.collecting import ROOT, event, ids_of, kept

SPOOL = Spool(min_free_bytes=1)


def logged(spool: Path) -> list[str]:
    """Ids in a log; None of its lines may be bad."""
    found = []
    for segment in segments.segments(spool):
        for line in segments.read_lines(segment.path):
            assert line is not None
            found.append(line.content.decode()[13:49])
    return sorted(found)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def log(spool: Path) -> Iterator[EventLog]:
    log = EventLog.open(spool, SPOOL)
    yield log
    log.close()


def test_what_is_appended_is_in_the_file_at_once(log: EventLog, spool: Path) -> None:
    events = kept(event(), event())
    log.append(events)
    assert logged(spool) == ids_of(events)


def test_a_position_is_synced_before_it_is_said_to_be(log: EventLog) -> None:
    async def both() -> None:
        first = log.append(kept(event()))
        second = log.append(kept(event(), event()))
        assert (first, second) == (1, 3)
        await asyncio.gather(log.synced(second), log.synced(first))
        assert log.stats().synced == 3
        await log.synced(first)

    asyncio.run(both())
    assert log.stats().oldest_unsynced_ms == 0


def test_records_that_nobody_waits_for_are_synced_too(log: EventLog) -> None:
    log.append(kept(event()))
    while log.stats().synced < 1:
        pass


def test_a_caller_that_goes_away_does_not_disturb_the_others(log: EventLog) -> None:
    async def go() -> None:
        position = log.append(kept(event()))
        gone = asyncio.create_task(log.synced(position))
        stays = asyncio.create_task(log.synced(position))
        await asyncio.sleep(0)
        gone.cancel()
        await stays

    asyncio.run(go())


def test_segments_are_closed_by_size_with_their_lines_in_the_name(spool: Path) -> None:
    log = EventLog.open(spool, Spool(segment_bytes=1_000, min_free_bytes=1))
    events = [kept(event())[0] for _ in range(10)]
    for each in events:
        log.append([each])
    log.close()
    names = sorted(path.name for path in spool.glob("0*"))
    assert names == [
        "00000001-3.log",
        "00000002-3.log",
        "00000003-3.log",
        "00000004-1.log",
        "00000005.open",
    ]
    assert logged(spool) == ids_of(events)


def test_segments_are_closed_by_age(spool: Path) -> None:
    log = EventLog.open(spool, Spool(segment_s=0.01, min_free_bytes=1))
    log.append(kept(event()))
    while not list(spool.glob("*-1.log")):
        pass
    log.append(kept(event()))
    log.close()
    assert [segment.lines for segment in segments.segments(spool)] == [1, 1, None]


def test_a_log_goes_on_with_the_next_number_though_all_was_shipped(spool: Path) -> None:
    EventLog.open(spool, SPOOL).close()
    EventLog.open(spool, SPOOL).close()
    log = EventLog.open(spool, SPOOL)
    log.append(kept(event()))
    log.close()
    (spool / "00000001-1.log").unlink()
    log = EventLog.open(spool, SPOOL)
    log.append(kept(event()))
    log.close()
    assert (spool / "00000002-1.log").exists()


def test_a_log_has_one_writer(log: EventLog, spool: Path) -> None:
    with pytest.raises(BlockingIOError, match="another process writes this log"):
        EventLog.open(spool, SPOOL, wait_s=0)


def test_a_log_that_is_open_for_a_moment_is_waited_for(spool: Path) -> None:
    log = EventLog.open(spool, SPOOL)
    closing = threading.Timer(0.05, log.close)
    closing.start()
    EventLog.open(spool, SPOOL, wait_s=30).close()
    closing.join()


@pytest.mark.parametrize("torn", [b"0", b"deadbeef event {}", b"deadbeef event {}\n", b"\0" * 999])
def test_a_torn_tail_is_cut_and_counted(spool: Path, torn: bytes) -> None:
    log = EventLog.open(spool, SPOOL)
    events = kept(event(), event())
    log.append(events)
    log.close()
    (spool / "00000001-2.log").rename(spool / "00000001.open")
    with (spool / "00000001.open").open("ab") as file:
        file.write(torn)
    again = EventLog.open(spool, SPOOL)
    assert again.stats().cut_bytes == len(torn)
    again.close()
    assert logged(spool) == ids_of(events)


def test_every_cut_of_a_segment_keeps_its_whole_lines(spool: Path) -> None:
    log = EventLog.open(spool, SPOOL)
    log.append(kept(event(), event()))
    log.close()
    content = (spool / "00000001-2.log").read_bytes()
    first = content.index(b"\n") + 1
    for size in range(0, len(content), 7):
        for path in spool.glob("0*"):
            path.unlink()
        (spool / "00000001.open").write_bytes(content[:size])
        EventLog.open(spool, SPOOL).close()
        assert b"".join(path.read_bytes() for path in spool.glob("0*")) == (
            content[:first] if size >= first else b""
        )


def test_a_bad_line_before_good_ones_is_kept_as_it_is(spool: Path) -> None:
    log = EventLog.open(spool, SPOOL)
    log.append(kept(event(), event()))
    log.close()
    path = spool / "00000001-2.log"
    content = path.read_bytes().replace(b"velvet", b"velour", 1)
    path.unlink()
    (spool / "00000001.open").write_bytes(content)
    EventLog.open(spool, SPOOL).close()
    assert path.read_bytes() == content


def test_part_of_a_log_is_not_taken_for_a_log(spool: Path) -> None:
    EventLog.open(spool, SPOOL).close()
    (spool / "writer").unlink()
    with pytest.raises(ValueError, match="without the file 'writer'"):
        EventLog.open(spool, SPOOL)


def test_a_disk_that_is_nearly_full_refuses_and_counts(spool: Path) -> None:
    log = EventLog.open(spool, Spool(min_free_bytes=2**62))
    with pytest.raises(LogFull, match="bytes free, want"):
        log.append(kept(event(), event()))
    assert log.stats().refused == 2
    assert "bytes free" in (log.stats().trouble or "")
    log.close()
    assert logged(spool) == []


def test_a_disk_that_does_not_keep_up_refuses(spool: Path) -> None:
    log = EventLog.open(spool, Spool(max_unsynced_bytes=1, sync_s=60, min_free_bytes=1))
    log.append(kept(event()))
    with pytest.raises(LogFull, match="does not keep up"):
        log.append(kept(event()))
    asyncio.run(log.synced(1))
    assert log.append(kept(event())) == 2
    log.close()


def test_after_a_sync_that_failed_nothing_is_promised_any_more(spool: Path) -> None:
    log = EventLog.open(spool, Spool(sync_s=60, min_free_bytes=1))
    position = log.append(kept(event()))
    # a pipe can be written to and not synced
    _, pipe = os.pipe()
    os.dup2(pipe, log._open.descriptor)
    with pytest.raises(LogFull, match="was not synced"):
        asyncio.run(log.synced(position))
    with pytest.raises(LogFull, match="was not synced"):
        log.append(kept(event()))
    with pytest.raises(LogFull, match="was not synced"):
        asyncio.run(log.synced(position))
    log.close()
    EventLog.open(spool, SPOOL).close()
    assert len(logged(spool)) == 1


NO_FILE = """
import os, resource, sys, time
from pathlib import Path
from serving.event_log import EventLog, Spool
from tests.serving.collecting import event, kept
looks = 0
look = os.statvfs
def counted(path):
    global looks
    looks += 1
    return look(path)
os.statvfs = counted
log = EventLog.open(Path(sys.argv[1]), Spool(segment_s=0.05, min_free_bytes=1))
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
log.append(kept(event()))
time.sleep(2)  # it looks at the clock once a second
assert looks < 100, looks
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
while not list(Path(sys.argv[1]).glob("*-1.log")):
    time.sleep(0.01)
log.close()
"""


def test_a_segment_that_cannot_be_closed_is_tried_again_later_and_not_at_once(
    spool: Path,
) -> None:
    command = [sys.executable, "-c", NO_FILE, str(spool)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(logged(spool)) == 1


def test_a_closed_log_refuses(spool: Path) -> None:
    log = EventLog.open(spool, SPOOL)
    log.close()
    log.close()
    with pytest.raises(LogFull, match="closed"):
        log.append(kept(event()))


FULL = """
import asyncio, resource, sys
from pathlib import Path
from serving.event_log import EventLog, LogFull, Spool
from tests.serving.collecting import event, kept
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
log = EventLog.open(Path(sys.argv[1]), Spool(min_free_bytes=1))
refused = 0
for _ in range(400):
    try:
        (each,) = kept(event())
        asyncio.run(log.synced(log.append([each])))
        print(each.event_id, flush=True)
    except LogFull as error:
        refused += 1
assert refused == log.stats().refused > 0
"""


def appended_until_full(spool: Path, *arguments: str) -> list[str]:
    command = [sys.executable, "-c", FULL, str(spool), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.split())


def test_a_file_that_cannot_grow_keeps_what_was_acknowledged_and_no_half_line(
    spool: Path,
) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    acknowledged = appended_until_full(spool, "limited")
    assert 5 < len(acknowledged) < 30
    assert logged(spool) == acknowledged


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_full_disk_keeps_what_was_acknowledged_and_no_half_line(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        acknowledged = appended_until_full(disk / "log")
        assert 50 < len(acknowledged) < 400
        assert logged(disk / "log") == acknowledged
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_settings_that_are_not_positive_raise() -> None:
    with pytest.raises(ValueError, match=r"spool\.sync_s: 0; want more than 0"):
        Spool(sync_s=0)
