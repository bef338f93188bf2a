"""Which files a store has, and of which it is proven that no id is there twice.

A store is a directory, on disk or on any file system that fsspec knows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import fsspec
import msgspec
from fsspec.implementations.local import LocalFileSystem

VERIFIED = "ledger/verified.json"

_VERSIONS = ("ETag", "etag", "mtime", "created")
"""By what file systems tell that a file was written anew: S3, other objects, disks, memory."""


class Fact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file as it was found: with another size or version it is another file."""

    size: int
    """In bytes."""
    version: str


class Verified(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``querylift events verify`` has proven."""

    distinct: Mapping[str, Mapping[str, Fact]]
    """Files of each folder in which every id is once, and in that of its own day."""


class StoreFiles:
    """The Parquet files of a store, as they are when a folder is first asked for.

    Raises:
        ValueError: fsspec knows no such protocol, or what it needs for it is not installed.
    """

    def __init__(self, store: str | Path) -> None:
        self.url = str(store)
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            raise ValueError(f"{self.url}: {error}") from None
        # a listing kept from before may lack what was just written
        self._fs.invalidate_cache()
        self._folders: dict[str, dict[str, Fact]] = {}
        self._verified: Verified | None = None

    def attach(self, connection: Any) -> None:
        """Let DuckDB read them."""
        if isinstance(self._fs, LocalFileSystem):
            return
        names = self._fs.protocol
        name = names if isinstance(names, str) else names[0]
        if not connection.con.filesystem_is_registered(name):
            connection.con.register_filesystem(self._fs)

    def days(self, table: str) -> list[date]:
        """Days that a table has a folder of."""
        try:
            found = self._fs.ls(f"{self._root}/{table}", detail=False)
        except FileNotFoundError:
            return []
        names = (path.rstrip("/").rpartition("/")[2] for path in found)
        return sorted(
            date.fromisoformat(name.removeprefix("date="))
            for name in names
            if name.startswith("date=")
        )

    def folder(self, folder: str) -> dict[str, Fact]:
        """Files of a folder, by name."""
        if folder not in self._folders:
            found: list[dict[str, Any]] = []
            with contextlib.suppress(FileNotFoundError):
                found = self._fs.ls(f"{self._root}/{folder}", detail=True)
            facts = {each["name"].rpartition("/")[2]: _fact(each) for each in found}
            self._folders[folder] = {
                name: facts[name]
                for name in sorted(facts)
                if name.endswith(".parquet") and not name.startswith(".")
            }
        return self._folders[folder]

    def facts(self, table: str, days: list[date]) -> dict[str, Fact]:
        """Files of a table and of these days, by their path in the store."""
        return {
            f"{folder}/{name}": fact
            for folder in (_folder(table, day) for day in days)
            for name, fact in self.folder(folder).items()
        }

    def of(self, table: str, days: list[date]) -> list[str]:
        """Files of a table and of these days, as DuckDB finds them."""
        is_local = isinstance(self._fs, LocalFileSystem)
        paths = [f"{self._root}/{file}" for file in self.facts(table, days)]
        return paths if is_local else [self._fs.unstrip_protocol(path) for path in paths]

    def one_of(self, table: str) -> list[str]:
        """A file of a table, of any day; none if there is none."""
        found = (self.of(table, [day]) for day in self.days(table))
        return next((files[:1] for files in found if files), [])

    def is_distinct(self, days: list[date]) -> bool:
        """Whether each event id is proven to be there once.

        It is of folders that have the files that were looked at and no others, all unchanged.
        """
        if self._verified is None:
            self._verified = self._read_verified()
        proven = self._verified.distinct
        folders = [_folder("events", day) for day in days]
        return all(proven.get(folder, {}) == self.folder(folder) for folder in folders)

    def _read_verified(self) -> Verified:
        try:
            content = self._fs.cat_file(f"{self._root}/{VERIFIED}")
        except FileNotFoundError:
            return Verified({})
        try:
            return msgspec.json.decode(content, type=Verified)
        except msgspec.DecodeError as error:
            name = f"{self.url}/{VERIFIED}"
            raise ValueError(f"{name}: {error}; `events verify` writes it anew") from None


def _folder(table: str, day: date) -> str:
    return f"{table}/date={day.isoformat()}"


def _fact(found: Mapping[str, Any]) -> Fact:
    version = next((found[name] for name in _VERSIONS if name in found), "")
    return Fact(found["size"] or 0, str(version))
