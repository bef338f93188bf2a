"""Where the event log ends up: Parquet by date, and a ledger of how it got there.

``events/date=2026-11-05/part-<writer>-<number>.parquet`` has the rows that one segment gave to one
day, by id. ``ledger/`` has an entry for each segment and for each removal, and what was last
proven.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import msgspec
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pyarrow.fs import FSSpecHandler, PyFileSystem

from abtest.records import KINDS
from abtest.store_files import VERIFIED, Verified
from relevance.files import new_file
from serving.segments import lock_file, sync

_ZSTD_LEVEL = 3
_ROWS_A_GROUP = 64 * 1024
"""So that a look for ids of a few minutes reads those minutes."""


class Shipped(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A segment that is in the store."""

    writer: str
    number: int
    lines: int
    """That it was closed with."""
    damaged: int
    """Lines that could not be read."""
    duplicates: Mapping[str, int]
    """Records that were in the store already, or twice in the segment, by kind."""
    files: Mapping[str, int]
    """Rows of each file that was written."""


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows of a file."""

    before: int
    after: int
    """0: the file goes."""


class Removal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rows that were taken out. Written before they are, so that none goes unnoticed."""

    reason: str
    files: Mapping[str, Change]


class Store:
    """A directory, local or on any file system that fsspec knows.

    Raises:
        ValueError: fsspec knows no such protocol.
    """

    def __init__(self, url: str) -> None:
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = PurePosixPath(root)
        self._arrow = PyFileSystem(FSSpecHandler(self._fs))
        self.url = url

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one to change the store.

        Elsewhere than on a local disk whoever runs the commands sees to that.

        Raises:
            BlockingIOError: Somebody else is changing it.
        """
        if not isinstance(self._fs, LocalFileSystem):
            yield
            return
        path = Path(self._root) / "lock"
        _make_dirs(path.parent)
        lock = lock_file(path, "another command is changing this store")
        try:
            yield
        finally:
            os.close(lock)

    def files(self, folder: str | None = None) -> list[str]:
        """Parquet files of one folder or of all tables, relative to the store."""
        folders = [folder] if folder else [kind.table for kind in KINDS.values()]
        return sorted(
            found for name in folders for found in self._find(name) if found.endswith(".parquet")
        )

    def rows(self, file: str) -> int:
        """Rows of a file, from its footer."""
        return int(pq.read_metadata(self._path(file), filesystem=self._arrow).num_rows)

    def schema(self, file: str) -> pa.Schema:
        """A file's columns, from its footer."""
        return pq.read_schema(self._path(file), filesystem=self._arrow)

    def read(self, file: str, columns: list[str] | None = None) -> pa.Table:
        """A file's columns."""
        # a file's own columns alone: its folder's name is none of them
        return pq.ParquetFile(self._path(file), filesystem=self._arrow).read(columns)

    def dataset(self, files: list[str]) -> ds.Dataset:
        """Files of one table to scan."""
        return ds.dataset(
            [self._path(file) for file in files], format="parquet", filesystem=self._arrow
        )

    def write(self, file: str, table: pa.Table) -> None:
        """Write a file whole, in place of one that is there."""
        buffer = io.BytesIO()
        pq.write_table(
            table,
            buffer,
            compression="zstd",
            compression_level=_ZSTD_LEVEL,
            row_group_size=_ROWS_A_GROUP,
        )
        self._put(file, buffer.getvalue())

    def remove(self, file: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(file))

    def entry(self, writer: str, number: int) -> Shipped | None:
        """What the ledger says of a segment; None before it is in the store."""
        try:
            content = self._fs.cat_file(self._path(_entry(writer, number)))
        except FileNotFoundError:
            return None
        return msgspec.json.decode(content, type=Shipped)

    def record(self, entry: Shipped) -> None:
        """Say that a segment is in the store."""
        self._put(_entry(entry.writer, entry.number), msgspec.json.encode(entry))

    def record_removal(self, removal_id: str, removal: Removal) -> None:
        """Say what is about to be taken out."""
        self._put(f"ledger/removal-{removal_id}.json", msgspec.json.encode(removal))

    def record_verified(self, verified: Verified) -> None:
        """Say what was proven, in place of what was before."""
        self._put(VERIFIED, msgspec.json.encode(verified))

    def shipped(self) -> list[Shipped]:
        """All segments that are in the store."""
        return [
            msgspec.json.decode(self._fs.cat_file(self._path(file)), type=Shipped)
            for file in sorted(self._find("ledger"))
            if PurePosixPath(file).name.startswith("segment-")
        ]

    def removals(self) -> list[Removal]:
        """All that was taken out, oldest first."""
        return [
            msgspec.json.decode(self._fs.cat_file(self._path(file)), type=Removal)
            for file in sorted(self._find("ledger"))
            if PurePosixPath(file).name.startswith("removal-")
        ]

    def expected_rows(self) -> dict[str, int]:
        """Rows that each file has, by the ledger; 0 for one that is gone."""
        rows = {file: count for entry in self.shipped() for file, count in entry.files.items()}
        for removal in self.removals():
            rows.update({file: change.after for file, change in removal.files.items()})
        return rows

    def _path(self, file: str) -> str:
        return str(self._root / file)

    def _find(self, folder: str) -> list[str]:
        # a listing kept from before may lack what was just written
        self._fs.invalidate_cache()
        found: list[Any] = self._fs.find(self._path(folder))
        names = [str(PurePosixPath(path).relative_to(self._root)) for path in found]
        return [name for name in names if not PurePosixPath(name).name.startswith(".")]

    def _put(self, file: str, content: bytes) -> None:
        if isinstance(self._fs, LocalFileSystem):
            path = Path(self._path(file))
            _make_dirs(path.parent)
            with new_file(path, replace=True) as partial:
                partial.write_bytes(content)
        else:
            # object stores show an object once it is whole
            self._fs.pipe_file(self._path(file), content)


def day_of(table: str, date: str) -> str:
    """The folder of a day in UTC."""
    return f"{table}/date={date}"


def date_of(file: str) -> date:
    """The day of a file or a folder."""
    return date.fromisoformat(file.partition("/date=")[2][:10])


def part(folder: str, writer: str, number: int) -> str:
    """The file for one segment's rows of one day."""
    return f"{folder}/part-{writer}-{number:08d}.parquet"


def _entry(writer: str, number: int) -> str:
    return f"ledger/segment-{writer}-{number:08d}.json"


def _make_dirs(path: Path) -> None:
    """Make a directory whose name outlives a power loss, as do those of its parents."""
    if path.is_dir():
        return
    _make_dirs(path.parent)
    path.mkdir(exist_ok=True)
    sync(path.parent)
