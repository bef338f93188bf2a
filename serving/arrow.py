"""Calls of a search engine as Arrow IPC streams, without a copy of every number.

A request is the columns ``item_id`` and, if there is one, ``ranking_score``; all else of
``RelevanceOptions`` is JSON in the schema's metadata, under ``querylift``. An answer is the columns
of ``RelevanceResult``, with ``RelevanceFacts`` in the same place.
"""

from __future__ import annotations

import struct

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from serving.bodies import JSON, decoded
from serving.limits import Limits
from serving.refusals import Refusal
from serving.schemas import RelevanceFacts, RelevanceOptions, RelevanceRequest

_KEY = b"querylift"
_ITEM_ID = "item_id"
_RANKING_SCORE = "ranking_score"


def relevance_request(content: bytes, limits: Limits) -> RelevanceRequest:
    """Read a request.

    Raises:
        Refusal: 400 if it is no Arrow stream, 413 for too many rows, 422 for other columns,
            nulls, or compressed buffers, whose size is not known before they are inflated.
    """
    try:
        with pa.ipc.open_stream(content) as reader:
            schema = reader.schema
            _check_columns(schema)
            _check_plain(content)
            table = _rows(reader, limits.max_documents)
            table.validate(full=True)  # UTF-8 too
    except (pa.ArrowException, OSError, struct.error, ValueError) as error:
        cause = str(error).partition("\n")[0]
        raise Refusal(400, "syntax", f"the body is no Arrow stream: {cause}") from None
    if any(column.null_count for column in table.columns):
        raise Refusal(422, "shape", "a column has nulls; want a value in every row")
    options = decoded((schema.metadata or {}).get(_KEY, b""), JSON, RelevanceOptions)
    scores = None
    if _RANKING_SCORE in table.column_names:
        scores = table[_RANKING_SCORE].to_pylist()
    return RelevanceRequest(
        **msgspec.structs.asdict(options),
        item_ids=table[_ITEM_ID].to_pylist(),
        ranking_scores=scores,
    )


def _check_columns(schema: pa.Schema) -> None:
    given = {field.name: field.type for field in schema}
    allowed = {_ITEM_ID: pa.string(), _RANKING_SCORE: pa.float64()}
    # other string types can name the same bytes many times over
    if _ITEM_ID not in given or len(given) != len(schema) or not given.items() <= allowed.items():
        columns = ", ".join(f"{field.name[:40]}: {str(field.type)[:40]}" for field in schema)
        message = (
            f"columns {columns or 'none'}; want {_ITEM_ID}: string, and maybe "
            f"{_RANKING_SCORE}: double"
        )
        raise Refusal(422, "shape", message)


def _check_plain(content: bytes) -> None:
    """Refuse compressed buffers: Arrow inflates them to whatever size they claim."""
    for message in pa.ipc.MessageReader.open_stream(content):
        if message.type not in ("schema", "record batch"):
            raise Refusal(422, "shape", f"a message of type {message.type}; want record batches")
        if message.type == "record batch" and _is_compressed(message.metadata.to_pybytes()):
            raise Refusal(422, "shape", "compressed record batches; want them plain, in gzip")


def _is_compressed(metadata: bytes) -> bool:
    # flatbuffers of Arrow's Message.fbs: Message.header is field 2, RecordBatch.compression 3
    (message,) = struct.unpack_from("<I", metadata, 0)
    header = message + _offset(metadata, message, 2)
    (batch,) = struct.unpack_from("<I", metadata, header)
    return _offset(metadata, header + batch, 3) != 0


def _offset(buffer: bytes, table: int, field: int) -> int:
    """Where a field lies in a flatbuffer's table; 0 if it is absent."""
    (to_vtable,) = struct.unpack_from("<i", buffer, table)
    vtable = table - to_vtable
    if vtable < 0:
        raise ValueError("a table without fields")
    (size,) = struct.unpack_from("<H", buffer, vtable)
    place = 4 + 2 * field
    if place >= size:
        return 0
    (offset,) = struct.unpack_from("<H", buffer, vtable + place)
    return int(offset)


def _rows(reader: pa.ipc.RecordBatchStreamReader, most: int) -> pa.Table:
    batches: list[pa.RecordBatch] = []
    rows = 0
    for batch in reader:
        batches.append(batch)
        rows += batch.num_rows
        if rows > most:
            raise Refusal(413, "documents", f"more than {most:,} rows; send fewer")
    return pa.Table.from_batches(batches, reader.schema)


def relevance_response(
    facts: RelevanceFacts,
    item_ids: list[str],
    index: NDArray[np.intp],
    relevance: NDArray[np.float32],
    score: NDArray[np.float64],
) -> bytes:
    """Write an answer; rows are in its order. [items] each."""
    columns = {
        _ITEM_ID: pa.array(item_ids, pa.string()),
        "index": pa.array(index, pa.int32()),
        "relevance": pa.array(relevance, pa.float32()),
        "score": pa.array(score, pa.float64()),
    }
    table = pa.table(columns).replace_schema_metadata({_KEY: msgspec.json.encode(facts)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content
