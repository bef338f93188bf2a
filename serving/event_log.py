"""The durable event log that a server writes: append at once, sync in groups.

``append`` writes on the caller's thread. From then on a record outlives the process, though not
the machine's power. ``synced`` waits until it outlives that too. One thread of the log's own syncs:
while it does, records gather for its next turn. What is promised when: docs/event-log.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from abtest.records import Record
from serving import segments

LOG = logging.getLogger("querylift.event_log")

_MIB = 1024 * 1024
_IDLE_S = 1.0
"""Between looks at the clock and the free disk when nothing is written."""


class LogFull(Exception):
    """The log takes nothing now; what was to be appended is not in it."""


@dataclass(frozen=True)
class Spool:
    """How a log is kept.

    Raises:
        ValueError: A setting is not positive.
    """

    segment_bytes: int = 64 * _MIB
    """Of a segment; the next record begins another."""
    segment_s: float = 300.0
    """Age at which a segment is closed, so that it can be shipped."""
    sync_s: float = 0.02
    """That a record may wait for its sync where nobody waits for it."""
    max_unsynced_bytes: int = 64 * _MIB
    """Beyond, the disk does not keep up and the log takes nothing."""
    min_free_bytes: int = 256 * _MIB
    """Of the disk; below, the log takes nothing."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(
                    f"spool.{field.name}: {getattr(self, field.name)}; want more than 0"
                )


@dataclass(frozen=True)
class LogStats:
    """How a log is doing."""

    written: int
    """Records, since it was opened."""
    synced: int
    refused: int
    """Records that the log did not take."""
    cut_bytes: int
    """Of torn tails, when the log was opened."""
    segments: int
    """Files that wait to be shipped, the open one included."""
    segment_bytes: int
    """Of the open one."""
    oldest_unsynced_ms: float
    """Age of what waits longest for its sync."""
    trouble: str | None
    """Why the log takes nothing; None: it does."""


@dataclass(frozen=True)
class _Waiter:
    position: int
    future: asyncio.Future[None]


class _Open:
    """The segment that is written."""

    def __init__(self, spool: Path, number: int) -> None:
        self.number = number
        self.path = segments.open_path(spool, number)
        self.descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        self.bytes = 0
        self.lines = 0
        self.began = time.monotonic()
        """Of the first line, once there is one."""


class EventLog:
    """A log in a directory of its own, with one writer. Appended to by one thread.

    The directory always holds one open segment, whose number says how far the log is.
    """

    def __init__(self, spool: Path, settings: Spool, lock: int, number: int, cut: int) -> None:
        self._spool = spool
        self._settings = settings
        self._lock = lock
        self._cut_bytes = cut
        self._wake = threading.Condition()
        """Guards all below; the syncing thread waits on it."""
        self._open = _Open(spool, number)
        self._closing: list[_Open] = []
        self._waiters: list[_Waiter] = []
        self._written = self._synced = self._refused = 0
        self._unsynced_bytes = 0
        self._dirty_since: float | None = None
        self._is_closed = False
        self._broken: str | None = None
        self._low_disk: str | None = None
        self._look_at_disk()
        self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, spool: Path, settings: Spool | None = None, *, wait_s: float = 1.0) -> EventLog:
        """Open a log, or begin one, and mend what a crash left.

        Args:
            spool: Its directory.
            settings: How it is kept.
            wait_s: For another process to close it; shipping may have it open for a moment.

        Raises:
            BlockingIOError: Another process has it open.
            OSError: The directory cannot be written.
        """
        spool.mkdir(parents=True, exist_ok=True)
        message = "another process writes this log; each needs its own"
        lock = segments.lock_file(spool / "lock", message, wait_s=wait_s)
        try:
            segments.writer_of(spool)
            number, cut = segments.mend(spool)
            if cut:
                LOG.warning("%s: cut %d bytes of a torn tail", spool, cut)
            log = cls(spool, settings or Spool(), lock, number, cut)
        except BaseException:
            os.close(lock)
            raise
        segments.sync(spool)
        return log

    def append(self, records: Sequence[Record]) -> int:
        """Write records, all or none.

        Returns:
            The log's position after them, for ``synced``.

        Raises:
            LogFull: The disk is full or nearly so, does not keep up, or failed.
        """
        content = b"".join(map(segments.line_of, records))
        with self._wake:
            try:
                self._take(content, len(records))
            except LogFull:
                self._refused += len(records)
                raise
            return self._written

    async def synced(self, position: int) -> None:
        """Wait until all up to a position would outlive a power loss.

        Raises:
            LogFull: The disk failed; they may or may not be kept.
        """
        with self._wake:
            if position <= self._synced:
                return
            if self._broken:
                raise LogFull(self._broken)
            waiter = _Waiter(position, asyncio.get_running_loop().create_future())
            self._waiters.append(waiter)
            self._wake.notify()
        await waiter.future

    def stats(self) -> LogStats:
        """How the log is doing; lists the directory."""
        files = len(segments.segments(self._spool))
        with self._wake:
            since = self._dirty_since
            return LogStats(
                written=self._written,
                synced=self._synced,
                refused=self._refused,
                cut_bytes=self._cut_bytes,
                segments=files,
                segment_bytes=self._open.bytes,
                oldest_unsynced_ms=0.0 if since is None else (time.monotonic() - since) * 1_000,
                trouble=self._trouble(),
            )

    def close(self) -> None:
        """Sync everything, and close the segment so that it can be shipped."""
        with self._wake:
            if self._is_closed:
                return
            self._is_closed = True
            if self._open.lines and not self._broken:
                self._close_segment()
            self._wake.notify()
        self._thread.join()
        os.close(self._open.descriptor)
        os.close(self._lock)

    def _take(self, content: bytes, count: int) -> None:
        if trouble := self._trouble():
            raise LogFull(trouble)
        try:
            if self._open.lines and self._open.bytes >= self._settings.segment_bytes:
                self._rotate()
            segments.write_all(self._open.descriptor, content, self._open.bytes)
        except OSError as error:
            raise LogFull(f"{self._spool}: {error.strerror}") from error
        if not self._open.lines:
            self._open.began = time.monotonic()
        self._open.bytes += len(content)
        self._open.lines += count
        self._written += count
        self._unsynced_bytes += len(content)
        if self._dirty_since is None:
            self._dirty_since = time.monotonic()
            self._wake.notify()

    def _trouble(self) -> str | None:
        if self._is_closed:
            return f"{self._spool}: the log is closed"
        if self._unsynced_bytes > self._settings.max_unsynced_bytes:
            return f"{self._spool}: the disk does not keep up"
        return self._broken or self._low_disk

    def _rotate(self) -> None:
        """Go on in a new segment; the syncing thread closes the old one."""
        new = _Open(self._spool, self._open.number + 1)
        self._closing.append(self._open)
        self._open = new

    def _close_segment(self) -> None:
        try:
            self._rotate()
        except OSError:
            # on a full disk there is room for no other: this one stays open for another while
            self._open.began = time.monotonic()

    def _run(self) -> None:
        while self._next_turn():
            with self._wake:
                position, size, current = self._written, self._unsynced_bytes, self._open
                closing, self._closing = self._closing, []
                self._dirty_since, dirty_since = None, self._dirty_since
            try:
                for segment in closing:
                    os.fdatasync(segment.descriptor)
                    os.close(segment.descriptor)
                    segments.close(segment.path, segment.lines)
                if dirty_since is not None:
                    os.fdatasync(current.descriptor)
                if closing:
                    segments.sync(self._spool)
                self._look_at_disk()
            except OSError as error:
                # the kernel may have dropped what it could not write: a later sync proves nothing
                self._fail(f"{self._spool}: {error.strerror}; the log was not synced")
                return
            self._tell(position, size)

    def _next_turn(self) -> bool:
        """Wait until there is something to do; False once there never will be."""
        with self._wake:
            while True:
                if self._waiters or self._closing:
                    return True
                if self._is_closed:
                    return self._dirty_since is not None
                now = time.monotonic()
                if self._open.lines and now - self._open.began > self._settings.segment_s:
                    self._close_segment()
                    return True
                if self._dirty_since is None:
                    if not self._wake.wait(_IDLE_S):
                        return True
                    continue
                left = self._dirty_since + self._settings.sync_s - now
                if left <= 0:
                    return True
                self._wake.wait(left)

    def _tell(self, position: int, size: int) -> None:
        with self._wake:
            self._synced = position
            self._unsynced_bytes -= size
            done = [waiter for waiter in self._waiters if waiter.position <= position]
            self._waiters = [waiter for waiter in self._waiters if waiter.position > position]
        _resolve(done, None)

    def _fail(self, reason: str) -> None:
        LOG.error(reason)
        with self._wake:
            self._broken = reason
            waiters, self._waiters = self._waiters, []
        _resolve(waiters, reason)

    def _look_at_disk(self) -> None:
        disk = os.statvfs(self._spool)
        free, least = disk.f_bavail * disk.f_frsize, self._settings.min_free_bytes
        low = f"{self._spool}: {free:,} bytes free, want {least:,}" if free < least else None
        if low and not self._low_disk:
            LOG.error(low)
        self._low_disk = low


def _resolve(waiters: Sequence[_Waiter], reason: str | None) -> None:
    """Wake those who wait, in their event loop."""
    if not waiters:
        return

    def resolve() -> None:
        for waiter in waiters:
            if waiter.future.done():
                continue
            if reason is None:
                waiter.future.set_result(None)
            else:
                waiter.future.set_exception(LogFull(reason))

    # the loop may be closed, and then nobody waits
    with contextlib.suppress(RuntimeError):
        waiters[0].future.get_loop().call_soon_threadsafe(resolve)
