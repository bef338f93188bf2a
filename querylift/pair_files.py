"""Files of query-title pairs, read and written in chunks: memory does not grow with the file."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from relevance.configs import ContractConfig
from relevance.files import new_file

TEXTS = ("query", "title")
ADDED = ("score", "probability")
MAX_CHARS = ContractConfig().max_title_chars
"""A longer text is a broken export, here as in ``validate-data``."""

CHUNK = 8_192

Scores = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Raw scores and their probabilities. Each [pairs]"""
Scorer = Callable[[Sequence[str], Sequence[str]], Scores]


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a file."""

    queries: list[str]
    titles: list[str]
    rows: Any
    """The rows as their format holds them."""


Write = Callable[[Chunk, NDArray[np.float64], NDArray[np.float64]], None]


class Format(Protocol):
    """How one kind of file is read and written."""

    def chunks(self, path: Path) -> Iterator[Chunk]:
        """Rows of ``path`` in order, with both texts checked."""

    def writer(self, path: Path) -> contextlib.AbstractContextManager[Write]:
        """A function that appends a chunk with its scores and probabilities."""


def score_file(scorer: Scorer, pairs: Path, out: Path) -> int:
    """Copy ``pairs`` to ``out`` with columns ``score`` and ``probability`` added.

    Args:
        scorer: Queries and titles to their scores; called once a chunk.
        pairs: File to read; its ending names its format.
        out: File to make, whole or not at all; same ending.

    Returns:
        Rows scored.

    Raises:
        ValueError: The file has an unknown ending, no rows, a missing or clashing column, or
            a text that is missing, empty, too long or not UTF-8; the message names the row.
    """
    style = _format(pairs)
    if out.suffix.lower() != pairs.suffix.lower():
        raise ValueError(f"{out}: ends in {out.suffix!r}, want {pairs.suffix!r} as {pairs} does")
    done = 0
    # the bar waits for the first chunk, so that a bad file is one line on stderr
    bar = tqdm(unit=" pairs", delay=0.1)
    with new_file(out) as partial, style.writer(partial) as write, bar:
        for chunk in style.chunks(pairs):
            score, probability = scorer(chunk.queries, chunk.titles)
            write(chunk, score, probability)
            done += len(score)
            bar.update(len(score))
        if not done:
            raise ValueError(f"{pairs}: no rows; want at least one pair")
    return done


def _format(path: Path) -> Format:
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise ValueError(
            f"{path}: ends in {path.suffix!r}, want one of {', '.join(FORMATS)}"
        ) from None


def _check_columns(place: str, columns: Sequence[str]) -> None:
    for name in TEXTS:
        if name not in columns:
            raise ValueError(f"{place}: no column {name!r}; it has {', '.join(columns)}")
        if columns.count(name) > 1:
            raise ValueError(f"{place}: column {name!r} is there {columns.count(name)} times")
    for name in ADDED:
        if name in columns:
            raise ValueError(f"{place}: has a column {name!r} already; rename or remove it")


def _text(path: Path, row: int, column: str, value: object) -> str:
    """``value`` if it can be scored, else the error that names its place."""
    place = f"{path}: row {row}: column {column!r}"
    if not isinstance(value, str):
        raise ValueError(f"{place} is {'missing' if value is None else repr(value)}, want text")
    if not value.strip():
        raise ValueError(f"{place} is empty, want text")
    if len(value) > MAX_CHARS:
        raise ValueError(f"{place} has {len(value):,} characters, want at most {MAX_CHARS:,}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{place} holds half a surrogate pair, want Unicode text") from None
    return value


class _Parquet:
    def chunks(self, path: Path) -> Iterator[Chunk]:
        try:
            file = pq.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path}: not a readable Parquet file: {error}") from error
        with file:
            _check_columns(str(path), file.schema_arrow.names)
            first = 1
            for batch in file.iter_batches(batch_size=CHUNK):
                rows = pa.Table.from_batches([batch])
                texts = [self._texts(path, first, name, rows[name]) for name in TEXTS]
                yield Chunk(texts[0], texts[1], rows)
                first += len(rows)

    def _texts(self, path: Path, first: int, name: str, column: pa.ChunkedArray) -> list[str]:
        texts = []
        for row, value in enumerate(column, start=first):
            try:
                texts.append(_text(path, row, name, value.as_py()))
            except UnicodeDecodeError:
                raise ValueError(f"{path}: row {row}: column {name!r} is not UTF-8") from None
        return texts

    @contextlib.contextmanager
    def writer(self, path: Path) -> Iterator[Write]:
        with contextlib.ExitStack() as stack:
            file: pq.ParquetWriter | None = None

            def write(chunk: Chunk, *added: NDArray[np.float64]) -> None:
                nonlocal file
                rows = chunk.rows
                for name, values in zip(ADDED, added, strict=True):
                    rows = rows.append_column(name, pa.array(values))
                if file is None:
                    file = stack.enter_context(pq.ParquetWriter(path, rows.schema))
                file.write_table(rows)

            yield write


class _Delimited:
    def __init__(self, delimiter: str) -> None:
        self.delimiter = delimiter

    def chunks(self, path: Path) -> Iterator[Chunk]:
        # the module's limit of 131,072 would hit columns that we only pass on
        csv.field_size_limit(sys.maxsize)
        rows = self._rows(path)
        header = next(rows, [])
        _check_columns(str(path), header)
        query, title = (header.index(name) for name in TEXTS)
        for first, part in _parts(rows):
            for row, cells in enumerate(part, start=first):
                if len(cells) != len(header):
                    raise ValueError(
                        f"{path}: row {row} has {len(cells)} columns, want {len(header)}"
                    )
            yield Chunk(
                [_text(path, row, "query", c[query]) for row, c in enumerate(part, start=first)],
                [_text(path, row, "title", c[title]) for row, c in enumerate(part, start=first)],
                (header, part),
            )

    def _rows(self, path: Path) -> Iterator[list[str]]:
        # strict: a stray quote is an error, not a cell that swallows the rows below
        reader = csv.reader(_lines(path), delimiter=self.delimiter, strict=True)
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise ValueError(f"{path}: line {reader.line_num}: {error}") from error
            if cells:
                yield cells

    @contextlib.contextmanager
    def writer(self, path: Path) -> Iterator[Write]:
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, delimiter=self.delimiter, lineterminator="\n")

            def write(chunk: Chunk, *added: NDArray[np.float64]) -> None:
                header, part = chunk.rows
                if not file.tell():
                    rows.writerow([*header, *ADDED])
                columns = [values.tolist() for values in added]
                rows.writerows([*cells, *more] for cells, *more in zip(part, *columns, strict=True))

            yield write


class _JsonLines:
    def chunks(self, path: Path) -> Iterator[Chunk]:
        for first, part in _parts(self._rows(path)):
            texts = [
                [_text(path, row, name, r[name]) for row, r in enumerate(part, start=first)]
                for name in TEXTS
            ]
            yield Chunk(texts[0], texts[1], part)

    def _rows(self, path: Path) -> Iterator[dict[str, object]]:
        for number, line in enumerate(_lines(path), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}: line {number}: no JSON: {error}") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}: line {number}: want an object with {', '.join(TEXTS)}")
            _check_columns(f"{path}: line {number}", list(row))
            yield row

    @contextlib.contextmanager
    def writer(self, path: Path) -> Iterator[Write]:
        with path.open("w", encoding="utf-8") as file:

            def write(chunk: Chunk, *added: NDArray[np.float64]) -> None:
                columns = [values.tolist() for values in added]
                for row, *more in zip(chunk.rows, *columns, strict=True):
                    _write_json({**row, **dict(zip(ADDED, more, strict=True))}, file)

            yield write


def _write_json(row: Mapping[str, object], file: TextIO) -> None:
    file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 file, without a byte order mark."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}: line {number}: byte {error.start + 1} is not UTF-8"
                ) from None


def _parts(rows: Iterator[Any]) -> Iterator[tuple[int, list[Any]]]:
    """Lists of at most ``CHUNK`` rows, each with the number of its first."""
    first = 1
    while part := list(itertools.islice(rows, CHUNK)):
        yield first, part
        first += len(part)


FORMATS: Mapping[str, Format] = {
    ".parquet": _Parquet(),
    ".csv": _Delimited(","),
    ".tsv": _Delimited("\t"),
    ".jsonl": _JsonLines(),
}
