"""Files of the event log: their names, their lines, and what a crash leaves of them.

A line is ``CRC KIND JSON``: the CRC-32 of what follows it in 8 hex digits, a kind of
``abtest.records.KINDS``, and the record. ``00000012.open`` is being written,
``00000012-<lines>.log`` is complete and on the disk.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from abtest.records import KINDS, Record

_NAME = re.compile(r"(?P<number>\d{8})(?:\.open|-(?P<lines>\d+)\.(?:log|damaged))")
_KIND_OF = {kind.struct: name.encode() for name, kind in KINDS.items()}
_ENCODER = msgspec.json.Encoder()
_CRC_HEX = 8


@dataclass(frozen=True, order=True)
class Segment:
    """A file of the log."""

    number: int
    path: Path
    lines: int | None
    """That it was closed with; None while it is open."""

    @property
    def is_damaged(self) -> bool:
        """Shipped but for lines that could not be read, and kept for whoever looks into it."""
        return self.path.suffix == ".damaged"


@dataclass(frozen=True)
class Line:
    """A line that was read."""

    kind: str
    content: bytes
    """JSON."""


def line_of(record: Record) -> bytes:
    """A record as the log has it."""
    payload = _KIND_OF[type(record)] + b" " + _ENCODER.encode(record)
    return b"%08x %s\n" % (zlib.crc32(payload), payload)


def read_line(line: bytes) -> Line | None:
    """What a line says, without its newline; None if it is torn or changed."""
    payload = line[_CRC_HEX + 1 :]
    if line[: _CRC_HEX + 1] != b"%08x " % zlib.crc32(payload):
        return None
    kind, _, content = payload.partition(b" ")
    return Line(kind.decode(), content)


def read_lines(path: Path, *, start: int = 0) -> Iterator[Line | None]:
    """Each line of a file from a byte on; None where one is torn or changed."""
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            yield read_line(line[:-1]) if line.endswith(b"\n") else None


def segments(spool: Path) -> list[Segment]:
    """The files of a log, by number."""
    found = []
    for path in spool.iterdir():
        if (match := _NAME.fullmatch(path.name)) is not None:
            lines = match["lines"]
            found.append(Segment(int(match["number"]), path, None if lines is None else int(lines)))
    return sorted(found)


def open_path(spool: Path, number: int) -> Path:
    """Of a segment while it is written."""
    return spool / f"{number:08d}.open"


def close(segment: Path, lines: int) -> Path:
    """Rename a segment that is on the disk; whoever calls syncs the directory."""
    closed = segment.with_name(f"{segment.stem}-{lines}.log")
    segment.rename(closed)
    return closed


def mend(spool: Path) -> tuple[int, int]:
    """Close the segments that a writer which is gone left open, without their torn tails.

    A bad line with good ones after it is no torn tail: it stays, and shipping reports it.

    Returns:
        The number to go on with, bytes that were cut.
    """
    found = segments(spool)
    cut_bytes = 0
    for segment in found:
        if segment.lines is None:
            lines, cut = _without_tail(segment.path)
            cut_bytes += cut
            if lines or segment is not found[-1]:
                close(segment.path, lines)
            else:
                return segment.number, cut_bytes
    return (found[-1].number + 1 if found else 1), cut_bytes


def _without_tail(path: Path) -> tuple[int, int]:
    """Cut what follows the last good line, and sync; lines that are left, bytes that were cut."""
    lines = good_lines = end = good_end = 0
    with path.open("r+b") as file:
        for line in file:
            lines, end = lines + 1, end + len(line)
            if line.endswith(b"\n") and read_line(line[:-1]) is not None:
                good_lines, good_end = lines, end
        if end > good_end:
            file.truncate(good_end)
        os.fdatasync(file.fileno())
    return good_lines, end - good_end


def writer_of(spool: Path) -> str:
    """A name of this log that no other has, made when the log is.

    Raises:
        ValueError: The directory has segments but no name: it is part of a log.
    """
    file = spool / "writer"
    if not file.exists():
        if segments(spool):
            raise ValueError(f"{spool}: segments without the file 'writer'; want the whole log")
        partial = file.with_suffix(".partial")
        partial.write_text(uuid.uuid4().hex[:12])
        sync(partial)
        partial.rename(file)
    return file.read_text().strip()


def lock_file(path: Path, otherwise: str, *, wait_s: float = 0.0) -> int:
    """Hold a file's lock until the descriptor that is returned is closed.

    The kernel drops the lock of a killed process.

    Raises:
        BlockingIOError: Somebody else holds it and goes on to: ``otherwise``.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            os.close(descriptor)
            raise BlockingIOError(error.errno, otherwise, str(path.parent)) from None
        return descriptor


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a directory's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes, end: int) -> None:
    """Append to a file, whole or not at all.

    Args:
        descriptor: Of a file opened to append.
        content: To write.
        end: Bytes that the file has.

    Raises:
        OSError: The disk is full; the file is as it was.
    """
    view: Sequence[int] = memoryview(content)
    try:
        while view:
            view = view[os.write(descriptor, view) :]  # type: ignore[arg-type]
    except OSError:
        os.ftruncate(descriptor, end)
        raise
