"""Rows that no step can use: refused as they are read, by file, column and row.

The data contract names every bad row and much else; this is the little that a step relies on when
it is started by hand, on data that nobody validated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

MAX_TEXT_BYTES = 1 << 20
"""A longer text is a broken export; it is refused before it can fill the memory of a step."""

_SHOWN = 40


def check_values(
    where: str, rows: pa.Table, schema: pa.Schema, allowed: Mapping[str, Sequence[object]], row: int
) -> None:
    """Check the values of ``rows``, column by column.

    Args:
        where: The file, to be named.
        rows: Some of its rows, with some of its columns.
        schema: Columns as they ought to be.
        allowed: Values that a column may take, for columns with few.
        row: Number of the first of ``rows`` in the file, whose first is 1.

    Raises:
        ValueError: A null where there may be none, text that is no UTF-8 or longer
            than ``MAX_TEXT_BYTES``, or a value that is not allowed.
    """
    for name in rows.column_names:
        wanted = schema.field(name)
        first = row
        for chunk in rows.column(name).chunks:
            values = chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk
            place = f"{where}: column {name!r}, row "
            if not wanted.nullable:
                kind = "text" if wanted.type == pa.string() else str(wanted.type)
                _refuse(values.is_null(), first, place, f"null, want {kind}")
            if wanted.type == pa.string():
                _check_text(values, first, place)
            else:
                _check_nested(values, f"{where}: column {name!r}, row {first} or later")
            if name in allowed:
                _check_allowed(values, allowed[name], first, place)
            first += len(chunk)


def check_unique(where: str, rows: pa.Table, key: Sequence[str]) -> None:
    """Raise ``ValueError`` on the first two of ``rows`` whose columns ``key`` are alike."""
    ids = rows.select(key)
    ids = ids.cast(pa.schema([(f.name, _plain_text(f.type)) for f in ids.schema]))
    if ids.group_by(list(key)).aggregate([]).num_rows == len(ids):
        return
    seen: dict[tuple[object, ...], int] = {}
    for row, values in enumerate(zip(*(c.to_pylist() for c in ids.columns), strict=True), start=1):
        first = seen.setdefault(values, row)
        if first != row:
            named = ", ".join(f"{n} {v!r}" for n, v in zip(key, values, strict=True))
            raise ValueError(f"{where}: {named} is on rows {first} and {row}, want it once")


def _check_text(values: pa.Array, row: int, place: str) -> None:
    raw = values.cast(pa.large_string()).cast(pa.large_binary())
    sizes = pc.binary_length(raw)
    if (pc.max(sizes).as_py() or 0) > MAX_TEXT_BYTES:
        message = f"a text of {pc.max(sizes).as_py():,} bytes, want {MAX_TEXT_BYTES:,} at most"
        _refuse(pc.equal(sizes, pc.max(sizes)), row, place, message)
    try:
        raw.cast(pa.large_string())
    except pa.ArrowInvalid:
        for number, value in enumerate(raw, row):
            _refuse_encoding(value.as_py(), f"{place}{number}")
        raise


def _check_nested(values: pa.Array, place: str) -> None:
    try:
        values.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{place}: {' '.join(str(error).split())}") from None


def _check_allowed(values: pa.Array, allowed: Sequence[object], row: int, place: str) -> None:
    known = pa.array(allowed).cast(values.type)
    is_wrong = pc.and_(pc.invert(pc.is_in(values, value_set=known)), values.is_valid())
    if pc.any(is_wrong).as_py():
        given = values[pc.index(is_wrong, True).as_py()].as_py()
        shown = given[:_SHOWN] if isinstance(given, str) else given
        message = f"{shown!r}, want one of {', '.join(map(str, allowed))}"
        _refuse(is_wrong, row, place, message)


def _refuse(is_bad: pa.Array, row: int, place: str, message: str) -> None:
    first = pc.index(is_bad, True).as_py()
    if first >= 0:
        raise ValueError(f"{place}{row + first}: {message}")


def _refuse_encoding(value: bytes | None, place: str) -> None:
    try:
        (value or b"").decode()
    except UnicodeDecodeError as error:
        given = error.object[max(0, error.start - 10) : error.end + 10]
        raise ValueError(f"{place}: {given!r} is not UTF-8, want UTF-8 text") from None


def _plain_text(kind: pa.DataType) -> pa.DataType:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.string() if pa.types.is_string_view(kind) else kind
