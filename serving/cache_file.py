"""Scores in a file, made in advance, that a cache is filled from before the first request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from relevance.files import new_file
from serving.caches import Keys, ScoreCache, Scores, item_keys, query_key

SCHEMA = pa.schema(
    [
        # as the model read it; queries stand together, the most searched first
        pa.field("query", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        # of the title that was scored: once an item has another, its score is not found any more
        pa.field("title_hash", pa.binary(16), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)
"""Columns; ``VERSION`` is in the file's metadata."""
VERSION = b"querylift.version"

_ROWS = 65_536
"""Written at once, and a query's rows are never divided."""

Append = Callable[[str, Sequence[str], Keys, Scores], None]
"""Adds a query, its item ids, the hashes of their titles, and their scores."""


@contextlib.contextmanager
def new_cache_file(path: Path, version: str) -> Iterator[Append]:
    """A function that adds a query to the file ``path``, which is whole or absent.

    Args:
        path: New file.
        version: What ``query_key`` is to be given for these scores.

    Raises:
        FileExistsError: ``path`` is there already.
        OSError: The disk is full; nothing is left behind.
    """
    schema = SCHEMA.with_metadata({VERSION: version.encode()})
    waiting: list[pa.Table] = []
    with new_file(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:

        def write() -> None:
            if waiting:
                writer.write_table(pa.concat_tables(waiting), row_group_size=1 << 30)
                waiting.clear()

        def append(query: str, item_ids: Sequence[str], titles: Keys, scores: Scores) -> None:
            hashes = np.ascontiguousarray(titles, "<u8").tobytes()
            columns = [
                pa.array([query] * len(item_ids), pa.string()),
                pa.array(item_ids, pa.string()),
                pa.Array.from_buffers(pa.binary(16), len(titles), [None, pa.py_buffer(hashes)]),
                pa.array(scores, pa.float32()),
            ]
            waiting.append(pa.table(columns, schema=schema))
            if sum(map(len, waiting)) >= _ROWS:
                write()

        yield append
        write()


async def prefill(cache: ScoreCache, path: Path, version: str, *, has_item_ids: bool) -> int:
    """Fill ``cache`` from ``path``, the most searched queries first, until there is no more room.

    Args:
        cache: Asked for no pair of the file yet; what it knows already stays.
        path: As ``querylift cache build`` makes it.
        version: Of the scores that are served, as ``query_key`` takes it.
        has_item_ids: Whether pairs will be asked for by item; else by title alone.

    Returns:
        Pairs the cache was given.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is no such file, or its scores are of another checkpoint or precision.
    """
    filled = 0
    with _open(path, version) as file:
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group)
            keys = _hashes(rows["title_hash"])
            if has_item_ids:
                keys = item_keys(keys, rows["item_id"].to_pylist())
            scores = rows["score"].to_numpy()
            runs = pc.run_end_encode(rows["query"].combine_chunks())
            start = 0
            for query, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
                key = query_key(version, query)
                if not await cache.fill(key, keys[start:end], scores[start:end]):
                    return filled
                filled += end - start
                start = end
            await asyncio.sleep(0)  # probes are answered meanwhile
    return filled


def _open(path: Path, version: str) -> pq.ParquetFile:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; make it with `querylift cache build`")
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: not a readable Parquet file: {reason}") from error
    found = (file.schema_arrow.metadata or {}).get(VERSION)
    if found is None or not file.schema_arrow.equals(SCHEMA):
        file.close()
        raise ValueError(f"{path}: no file of scores; want one of `querylift cache build`")
    if found != version.encode():
        file.close()
        raise ValueError(
            f"{path}: scores of checkpoint {found.decode(errors='replace')}, want {version}; "
            "make it anew with `querylift cache build`"
        )
    return file


def _hashes(column: pa.ChunkedArray) -> Keys:
    """The column's bytes as ``title_hashes`` returns them. [rows, 2]"""
    array = column.combine_chunks()
    halves = np.frombuffer(array.buffers()[1], "<u8").reshape(-1, 2)
    return halves[array.offset : array.offset + len(array)]
