"""Records as Arrow tables: the columns of the store, read off the records themselves."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import msgspec
import pyarrow as pa
import pyarrow.json as pj

_SCALARS = {
    str: pa.string(),
    int: pa.int32(),
    float: pa.float64(),
    bool: pa.bool_(),
    # as UBI has them; in order of time
    UUID: pa.string(),
    datetime: pa.timestamp("us", "UTC"),
}


def schema_of(struct: type[Any]) -> pa.Schema:
    """Columns of a record of ``abtest.records``; UBI's groups of fields are structs."""
    return pa.schema(_fields(struct))


def table_of(lines: Sequence[bytes], struct: type[Any]) -> pa.Table:
    """Records in JSON as a table.

    Args:
        lines: One record each, as the event log has them.
        struct: Their type.

    Raises:
        pyarrow.ArrowInvalid: A line is not of that type.
    """
    schema = schema_of(struct)
    if not lines:
        return schema.empty_table()
    # a line must fit into a block
    block = max(1 << 20, *map(len, lines)) + 1
    return pj.read_json(
        io.BytesIO(b"\n".join(lines)),
        read_options=pj.ReadOptions(block_size=block),
        parse_options=pj.ParseOptions(
            explicit_schema=schema, newlines_in_values=False, unexpected_field_behavior="error"
        ),
    )


def _fields(struct: type[Any]) -> list[pa.Field]:
    hints = get_type_hints(struct, include_extras=False)
    return [
        pa.field(field.encode_name, _type(hints[field.name]))
        for field in msgspec.structs.fields(struct)
    ]


def _type(hint: Any) -> pa.DataType:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return _type(type(arguments[0]))
    if origin is tuple:
        return pa.list_(_type(arguments[0]))
    if origin in (Union, UnionType):
        # text before number: an item id is a text by the time it is written
        return _type(next(argument for argument in arguments if argument is not NoneType))
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return pa.struct(_fields(hint))
    return _SCALARS[hint]
