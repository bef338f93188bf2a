"""A table with one row a user, from Parquet or CSV: what any analyst has."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
from msgspec.structs import replace
from numpy.typing import NDArray

from abtest.aggregates import Aggregates
from abtest.effects import Arms, ratio_of
from abtest.result import Definition

KNOWN = "has_"
"""Before a covariate's name: the column of who has one."""
MAX_VALUES = 50
"""Of a segment; more are an id, not a segment."""
_NUMBERS = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_boolean,
)


class Users(NamedTuple):
    """The columns that are asked for."""

    variants: NDArray[Any]
    """Of each user, as text."""
    columns: Mapping[str, NDArray[np.float64]]
    """Numbers of each user. Covariates have 0 where there was none."""
    segments: Mapping[str, NDArray[Any]]
    """Text of each user."""
    missing: Mapping[str, int]
    """Covariate's column -> users without one."""


def read_users(
    path: Path,
    definitions: Mapping[str, Definition],
    *,
    variant_column: str | None = None,
    segments: Sequence[str] = (),
    unit_column: str | None = None,
) -> Users:
    """Read a Parquet or CSV file of one row a user.

    Args:
        path: Its name ends in ``.parquet`` or ``.csv``.
        definitions: Of the metrics: their columns are read.
        variant_column: With each user's variant; None: there are no variants yet.
        segments: Columns to look at parts of the users by.
        unit_column: With each user's id; it must be unique. None: believed to be.

    Raises:
        ValueError: A column that is missing or no number, a user without a variant or without a
            number of a metric, a denominator below 0, or a user of several rows.
        OSError: It cannot be read.
    """
    own, before = _columns_of(definitions)
    named = [name for name in (variant_column, unit_column) if name is not None]
    table = _read(path, list(dict.fromkeys([*own, *before, *segments, *named])))
    if unit_column is not None:
        _check_unique(path, unit_column, table[unit_column])
    variants = np.full(len(table), "all")
    if variant_column is not None:
        variants = _texts(path, variant_column, table[variant_column])
    columns = {name: _numbers(path, name, table[name]) for name in own}
    for definition in definitions.values():
        low = definition.denominator
        if low is not None and np.any(columns[low] < 0):
            raise ValueError(f"{path}: column {low!r}: {columns[low].min():g}, want 0 or more")
    missing = {}
    for name in before:
        absent = pc.is_null(table[name], nan_is_null=True)
        missing[name] = int(pc.sum(absent).as_py() or 0)
        columns[KNOWN + name] = 1.0 - _numbers(path, name, absent)
        filled = pc.if_else(absent, pa.scalar(0).cast(table[name].type), table[name])
        columns[name] = _numbers(path, name, filled)
    parts = {}
    for name in segments:
        parts[name] = _texts(path, name, pc.fill_null(table[name].cast(pa.string()), "none"))
        if len(np.unique(parts[name])) > MAX_VALUES:
            raise ValueError(f"{path}: segment {name!r} has more than {MAX_VALUES} values")
    return Users(variants, columns, parts, missing)


def with_known(definitions: Mapping[str, Definition], users: Users) -> dict[str, Definition]:
    """Means whose covariate some users lack get a second one: who has it.

    Without it "was not there before" would be taken for "did nothing before".
    """
    found = {}
    for metric, one in definitions.items():
        known = [KNOWN + name for name in one.covariates if users.missing.get(name)]
        if one.denominator is None and known:
            one = replace(one, covariates=(*one.covariates, *known))
        found[metric] = one
    return found


def arms_of(
    users: Users, order: Collection[str], where: NDArray[np.bool_] | None = None
) -> dict[str, Aggregates]:
    """Aggregates of each variant, in this order; of some of the users."""
    found = {}
    for variant in order:
        mask = users.variants == variant
        if where is not None:
            mask &= where
        found[variant] = Aggregates.from_arrays(
            {name: values[mask] for name, values in users.columns.items()}
        )
    return found


def parts_of(users: Users, order: Collection[str]) -> dict[tuple[str, str], Arms]:
    """(segment, value) -> its users."""
    return {
        (segment, str(value)): Arms(arms_of(users, order, values == value))
        for segment, values in users.segments.items()
        for value in np.unique(values)
    }


def sha256_of(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _columns_of(definitions: Mapping[str, Definition]) -> tuple[list[str], list[str]]:
    """Columns of the metrics themselves, and of their covariates."""
    own: dict[str, None] = {}
    before: dict[str, None] = {}
    for one in definitions.values():
        own |= dict.fromkeys(name for name in (one.numerator, one.denominator) if name)
        for text in one.covariates:
            before |= dict.fromkeys(name for name in ratio_of(text) if name)
    return list(own), [name for name in before if name not in own]


def _read(path: Path, columns: list[str]) -> pa.Table:
    if path.suffix not in (".parquet", ".csv"):
        raise ValueError(f"{path}: want a name that ends in .parquet or .csv")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        table = pcsv.read_csv(path) if path.suffix == ".csv" else pq.ParquetFile(path)
        names = (table.schema if path.suffix == ".csv" else table.schema_arrow).names
        for name in columns:
            if name not in names:
                raise ValueError(f"{path}: no column {name!r}; there are {', '.join(names)}")
        return table.select(columns) if path.suffix == ".csv" else table.read(columns)
    except pa.ArrowException as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None


def _check_unique(path: Path, name: str, ids: Any) -> None:
    rows, users = len(ids), pc.count_distinct(ids, mode="all").as_py()
    if users < rows:
        raise ValueError(
            f"{path}: {rows:,} rows of {users:,} users by {name!r}; want one row a user: sum each "
            "user's rows first, or a test takes what one user does for independent"
        )


def _texts(path: Path, name: str, values: Any) -> NDArray[Any]:
    if values.null_count:
        raise ValueError(f"{path}: column {name!r}: {values.null_count:,} users have no value")
    return np.asarray(values.cast(pa.string()).to_numpy(zero_copy_only=False)).astype(str)


def _numbers(path: Path, name: str, values: Any) -> NDArray[np.float64]:
    if values.null_count:
        raise ValueError(
            f"{path}: column {name!r}: missing for {values.null_count:,} users; want a number for "
            "every user, 0 where nothing happened"
        )
    if not any(is_kind(values.type) for is_kind in _NUMBERS):
        raise ValueError(f"{path}: column {name!r}: {values.type}, want numbers")
    numbers = np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), float)
    if not np.all(np.isfinite(numbers)):
        count = int(np.sum(~np.isfinite(numbers)))
        raise ValueError(f"{path}: column {name!r}: {count:,} values are not finite")
    return numbers
