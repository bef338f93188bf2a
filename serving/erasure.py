"""Taking records out of the store: all of a person, or all that are old."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from abtest.records import uuid7
from serving.log_store import Change, Removal, Store, date_of
from serving.log_tail import Reader
from serving.privacy import hashed
from serving.shipping import ship

_PERSON_FIELDS = ("client_id", "user_id", "session_id")


class Erased(msgspec.Struct, frozen=True):
    """What was taken out, and that it is out."""

    files: dict[str, Change]
    """Rows before and after, of each file that changed."""
    removed: int
    """Rows."""
    left: int
    """Rows in the store that still name one of the people: 0, counted anew."""
    in_log: int
    """Records of theirs in the log: in the segment that is written, or in damaged ones."""


def forget(spool: Path, store: Store, people: Collection[str], key: bytes) -> Erased:
    """Take out every record that names one of some people.

    Args:
        spool: The log; its closed segments are shipped first.
        store: The store.
        people: Ids as clients send them: client, user or session.
        key: That ids were hashed with.

    Raises:
        ValueError: A run that shipped another log was interrupted.
    """
    ids = pa.array(sorted({hashed(person, key) for person in people}), pa.string())
    with store.locked():
        ship(spool, store, lambda done, total: None)
        _check_finished(store)
        changes = {}
        for file in store.files():
            if matches := int(np.sum(_names(store.read(file, _columns(store, file)), ids))):
                rows = store.rows(file)
                changes[file] = Change(rows, rows - matches)
        _record(store, "forget", changes)
        for file, change in changes.items():
            if change.after:
                table = store.read(file)
                store.write(file, table.filter(pa.array(~_names(table, ids))))
            else:
                store.remove(file)
        left = sum(
            int(np.sum(_names(store.read(file, _columns(store, file)), ids)))
            for file in store.files()
        )
    return Erased(changes, _removed(changes), left, _in_log(spool, ids))


def retain(store: Store, days: int, today: date) -> Erased:
    """Take out the days before the last so many.

    Raises:
        ValueError: Fewer than one day, or a run that shipped was interrupted.
    """
    if days < 1:
        raise ValueError(f"--days: {days}; want 1 or more")
    first = today - timedelta(days=days - 1)
    with store.locked():
        _check_finished(store)
        changes = {
            file: Change(store.rows(file), 0) for file in store.files() if date_of(file) < first
        }
        _record(store, f"retain {days} days", changes)
        for file in changes:
            store.remove(file)
    return Erased(changes, _removed(changes), 0, 0)


def _check_finished(store: Store) -> None:
    expected = store.expected_rows()
    if unknown := [file for file in store.files() if file not in expected]:
        raise ValueError(
            f"{store.url}: {unknown[0]} is of a run that was interrupted; "
            "`events compact` finishes it"
        )


def _record(store: Store, reason: str, changes: dict[str, Change]) -> None:
    if changes:
        now = datetime.now(UTC)
        store.record_removal(str(uuid7(now)), Removal(reason=reason, files=changes))


def _removed(changes: dict[str, Change]) -> int:
    return sum(change.before - change.after for change in changes.values())


def _columns(store: Store, file: str) -> list[str]:
    return [name for name in store.schema(file).names if name in _PERSON_FIELDS]


def _names(table: pa.Table, ids: pa.Array) -> np.ndarray:
    """Whether each row names one of the ids. [rows]"""
    named = np.zeros(len(table), bool)
    for column in set(table.column_names) & set(_PERSON_FIELDS):
        named |= pc.is_in(table[column], value_set=ids).to_numpy()
    return named


def _in_log(spool: Path, ids: pa.Array) -> int:
    wanted = [text.encode() for text in ids.to_pylist()]
    return sum(any(text in line.content for text in wanted) for line in Reader(spool).read())
