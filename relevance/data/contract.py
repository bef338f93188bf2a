"""The data contract: what must hold of a dataset before anything is trained on it.

DuckDB computes one small frame of facts per table, whatever the table's size; Great Expectations
judges the frames and writes its data docs. Its own engines take the rows into memory (pandas) or
need a cluster (Spark), and its route to DuckDB is broken.
"""

from __future__ import annotations

import contextlib
import glob
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from relevance.configs import ContractConfig
from relevance.data import pii
from relevance.data.contract_report import Report, Result, Row, finding, write_report
from relevance.data.expectations import (
    ID,
    WORDS,
    Check,
    Number,
    Rows,
    prepare,
    suites,
    vocabulary_suite,
)
from relevance.data.pairs import query_key
from relevance.data.tables import (
    TABLES,
    check_schema,
    has_table,
    open_table,
    read_card,
    table_path,
)
from relevance.errors import Finding
from relevance.files import new_dir, refuse_existing

_MEMORY = "2GB"
"""DuckDB writes to disk beyond this; with Great Expectations the process stays below 3 GiB."""
_THREADS = 2
"""More need more memory; two read 10 M events in seconds."""
_SHOWN_CHARS = 200
"""Of a bad row's value, so that a broken export does not make a broken report."""

Suites = Mapping[str, Sequence[Check]]


def validate_data(config: ContractConfig, data: Path, out: Path) -> dict[str, float]:
    """Check the dataset ``data``, and report on it in ``out``.

    Args:
        config: Bands and limits.
        data: Dataset directory; its events and judgments are optional.
        out: Directory to make: ``index.html``, ``validation.json`` and Great Expectations' pages
            in ``data_docs``.

    Returns:
        Rows of each table (``rows_events``), ``checks_passed``, ``checks_warned`` and
        ``checks_blocked``.

    Raises:
        FileExistsError: ``out`` is there already.
        FileNotFoundError: ``data`` is no dataset, or lacks queries or products.
        Finding: Something blocks. The report is in ``out`` all the same.
        ValueError: A table lacks a column, has one of another type, or cannot be read: bytes that
            are no UTF-8, for example. There is no report then.
    """
    refuse_existing(out)
    card = read_card(data)
    tables = [
        table for table in TABLES if table in ("queries", "products") or has_table(data, table)
    ]
    files = {table: table_path(data, table) for table in tables}
    for table in tables:
        open_table(data, table)
    with _database(files.values()) as database:
        for table, path in files.items():
            _view(database, table, path)
        for statement in prepare(tables):
            database.execute(statement)
        checks = suites(config, tables)
        return _report(config, database, checks, card.name, card.is_generated, files, out)


def validate_vocabulary(config: ContractConfig, vocabulary: Path, out: Path) -> dict[str, float]:
    """Check what ``extend_vocabulary`` made, and report on it in ``out``.

    Args:
        config: Limits.
        vocabulary: Directory of a tokenizer and ``words.parquet``; tokens of the tokenizer in its
            ``base`` directory, where there is one, must have kept their ids.
        out: Directory to make, as ``validate_data`` does.

    Returns:
        ``rows_words`` and the counts of checks, as ``validate_data``.

    Raises:
        FileExistsError: ``out`` is there already.
        FileNotFoundError: The tokenizer or its words are missing.
        Finding: Something blocks. The report is in ``out`` all the same.
        ValueError: The tokenizer or the words cannot be read.
    """
    refuse_existing(out)
    path = vocabulary / "words.parquet"
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: missing; make a vocabulary with `querylift extend-vocabulary`"
        )
    files = dict.fromkeys(("words", "base"), path)
    with _database([path]) as database:
        words, base = _encoded(path, vocabulary)
        database.register("words", words)
        database.register("base", base)
        checks = vocabulary_suite(config)
        return _report(config, database, checks, vocabulary.name, None, files, out)


@contextlib.contextmanager
def _database(files: Any) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory that spills to disk, and says in one line what it cannot read."""
    with tempfile.TemporaryDirectory() as spill:
        database = duckdb.connect(
            config={
                "memory_limit": _MEMORY,
                "threads": _THREADS,
                "temp_directory": spill,
                "preserve_insertion_order": False,
            }
        )
        database.execute("SET enable_progress_bar = false")
        database.create_function("query_key", query_key, ["VARCHAR"], "VARCHAR")
        database.create_function("has_card", pii.has_card, ["VARCHAR"], "BOOLEAN")
        try:
            yield database
        except duckdb.IOException as error:
            raise OSError(str(error).splitlines()[0]) from error
        except (duckdb.Error, UnicodeDecodeError, pa.ArrowInvalid) as error:
            for file in files:
                _refuse_other_encodings(file)
            names = ", ".join(str(file) for file in files)
            raise ValueError(f"{names}: {str(error).splitlines()[0]}") from error
        finally:
            database.close()


def _view(database: duckdb.DuckDBPyConnection, table: str, path: Path) -> None:
    columns = ", ".join(TABLES[table].names)
    # no prepared parameter in a view; glob characters in a path are not patterns
    file = glob.escape(str(path)).replace("'", "''")
    database.execute(
        f"CREATE VIEW {table} AS SELECT {columns}, file_row_number + 1 AS nr "
        f"FROM read_parquet('{file}', file_row_number = true)"
    )


def _refuse_other_encodings(path: Path) -> None:
    """Raise ``ValueError`` that names the first text of ``path`` that is no UTF-8."""
    first = 1
    for batch in pq.ParquetFile(path).iter_batches():
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid:
                for row, value in enumerate(column, first):
                    _refuse_other_encoding(path, name, row, value)
        first += len(batch)


def _refuse_other_encoding(path: Path, name: str, row: int, value: pa.Scalar) -> None:
    try:
        value.as_py()
    except UnicodeDecodeError as error:
        given = error.object[max(0, error.start - 10) : error.end + 10]
        raise ValueError(
            f"{path}: column {name!r}, row {row}: bytes {given!r} are no UTF-8, want UTF-8 text"
        ) from error


def _encoded(path: Path, vocabulary: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the tokenizer of ``vocabulary`` makes of its words, and of the tokens before them.

    Returns:
        A row a word: nr, word, count, tokens, pieces, is_unknown, decoded. A row a token of the
        tokenizer before extension: nr, token, was, is.
    """
    check_schema(str(path), pq.read_schema(path), WORDS)
    words = pq.read_table(path, columns=WORDS.names).to_pandas()
    tokenizer = _tokenizer(vocabulary / "tokenizer.json")
    unknown = tokenizer.token_to_id("[UNK]")
    texts = words["word"].fillna("").tolist()
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    words = words.assign(
        nr=range(1, len(words) + 1),
        tokens=[" ".join(found.tokens) for found in encoded],
        pieces=[len(found.ids) for found in encoded],
        is_unknown=[unknown in found.ids for found in encoded],
        decoded=tokenizer.decode_batch([found.ids for found in encoded]),
    )
    before = vocabulary / "base" / "tokenizer.json"
    ids = _tokenizer(before).get_vocab() if before.exists() else {}
    tokens = sorted(ids, key=ids.__getitem__)
    now = tokenizer.get_vocab()
    base = pd.DataFrame(
        {
            "nr": range(1, len(tokens) + 1),
            "token": pd.Series(tokens, dtype="str"),
            "was": [ids[token] for token in tokens],
            "now": pd.Series([now.get(token, -1) for token in tokens], dtype="int64"),
        }
    )
    return words, base


def _tokenizer(path: Path) -> Tokenizer:
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: missing; make a vocabulary with `querylift extend-vocabulary`"
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(f"{path}: not a readable tokenizer: {error}") from error


def _report(
    config: ContractConfig,
    database: duckdb.DuckDBPyConnection,
    checks: Suites,
    name: str,
    is_generated: bool | None,
    files: Mapping[str, Path],
    out: Path,
) -> dict[str, float]:
    """Observe, judge, write the report; raise if it blocks."""
    observed = {table: _observe(database, table, suite) for table, suite in checks.items()}
    counts = {table: int(facts["rows"].observed) for table, facts in observed.items()}
    with new_dir(out) as partial:
        passed = _expect(checks, observed, partial / "data_docs")
        results = [
            Result(
                check,
                observed[table][check.name].observed,
                observed[table][check.name].failing,
                passed[table, check.name],
                []
                if passed[table, check.name] or isinstance(check, Number)
                else _bad_rows(database, check, observed[table][check.name], config.max_rows_named),
            )
            for table, suite in checks.items()
            for check in suite
        ]
        report = Report(name, is_generated, counts, results)
        write_report(report, partial)
    if report.verdict == "block":
        raise Finding(finding(report, files, out))
    return report.metrics()


@dataclass(frozen=True)
class _Fact:
    observed: float
    """The number; or bad rows, as a count or as a share."""
    failing: int = 0
    """Bad rows."""
    bad: str = ""
    """Table or predicate of the bad rows."""


def _observe(
    database: duckdb.DuckDBPyConnection, table: str, checks: Sequence[Check]
) -> dict[str, _Fact]:
    """The facts that ``checks`` ask for, and ``rows``; one pass for all that a row tells."""
    asked = {"count(*)": 0}
    bad_tables: dict[str, str] = {}

    def ask(aggregate: str) -> int:
        return asked.setdefault(aggregate, len(asked))

    places: dict[str, tuple[int, int]] = {}
    for check in checks:
        if isinstance(check, Number):
            places[check.name] = ask(check.sql), -1
