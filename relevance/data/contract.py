"""The data contract: what must hold of a dataset before anything is trained on it.

DuckDB computes one small frame of facts per table, whatever the table's size; Great Expectations
judges the frames and writes its data docs. Its own engines take the rows into memory (pandas) or
start a cluster (Spark), and its route to DuckDB through SQLAlchemy is broken.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import great_expectations as gx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.expectations.core.expect_column_max_to_be_between import (
    ExpectColumnMaxToBeBetween,
)
from great_expectations.expectations.metadata_types import FailureSeverity
from tokenizers import Tokenizer

from relevance.configs import ContractConfig
from relevance.data.contract_report import Report, Result, finding, write_report
from relevance.data.expectations import (
    WORDS,
    Check,
    Number,
    Rows,
    prepare,
    suites,
    vocabulary_suites,
)
from relevance.data.facts import (
    Fact,
    add_table,
    bad_rows,
    observe,
    open_database,
    refuse_unreadable,
)
from relevance.data.tables import TABLES, check_schema, has_table, open_table, read_card, table_path
from relevance.errors import Finding
from relevance.files import new_dir, refuse_existing


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
            are not UTF-8, for example. There is no report then.
    """
    refuse_existing(out)
    card = read_card(data)
    tables = [
        table for table in TABLES if table in ("queries", "products") or has_table(data, table)
    ]
    for table in tables:
        open_table(data, table)
    files = {table: table_path(data, table) for table in tables}
    with open_database(files.values()) as database:
        for table, path in files.items():
            add_table(database, table, path)
        for statement in prepare(tables):
            database.execute(statement)
        report = Report(card.name, card.is_generated)
        return _judge(config, database, suites(config, tables), report, files, out)


def validate_vocabulary(config: ContractConfig, vocabulary: Path, out: Path) -> dict[str, float]:
    """Check what ``extend_vocabulary`` made, and report on it in ``out``.

    Args:
        config: Limits.
        vocabulary: Directory of a tokenizer and ``words.parquet``; the tokens of the tokenizer in
            its ``base``, where there is one, must have kept their ids.
        out: Directory to make, as ``validate_data`` does.

    Returns:
        ``rows_words``, ``rows_base`` and the counts of checks.

    Raises:
        FileExistsError: ``out`` is there already.
        FileNotFoundError: The tokenizer or its words are missing.
        Finding: Something blocks. The report is in ``out`` all the same.
        ValueError: The tokenizer or the words cannot be read.
    """
    refuse_existing(out)
    frames = {"words": _encoded_words(vocabulary)}
    files = {"words": vocabulary / "words.parquet"}
    if (vocabulary / "base").exists():
        frames["base"] = _base_tokens(vocabulary)
        files["base"] = vocabulary / "base" / "tokenizer.json"
    with open_database([]) as database:
        for table, frame in frames.items():
            database.register(table, frame)
        checks = vocabulary_suites(config, list(frames))
        return _judge(config, database, checks, Report(vocabulary.name, None), files, out)


def _encoded_words(vocabulary: Path) -> pd.DataFrame:
    """The words and what the tokenizer makes of them.

    Returns:
        Columns nr, word, count, tokens, pieces, is_unknown, decoded; a row a word.
    """
    path = _existing(vocabulary / "words.parquet")
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: not a readable Parquet file: {reason}") from error
    check_schema(str(path), schema, WORDS)
    refuse_unreadable(path)
    words = pq.read_table(path, columns=WORDS.names).to_pandas()
    tokenizer = _tokenizer(vocabulary)
    unknown = tokenizer.token_to_id("[UNK]")
    encoded = tokenizer.encode_batch(words["word"].fillna("").tolist(), add_special_tokens=False)
    return words.assign(
        nr=range(1, len(words) + 1),
        tokens=pd.Series([" ".join(found.tokens) for found in encoded], dtype="str"),
        pieces=pd.Series([len(found.ids) for found in encoded], dtype="int64"),
        is_unknown=pd.Series([unknown in found.ids for found in encoded], dtype="bool"),
        decoded=pd.Series(tokenizer.decode_batch([f.ids for f in encoded]), dtype="str"),
    )


def _base_tokens(vocabulary: Path) -> pd.DataFrame:
    """The tokens before extension, with their ids then and now (-1: gone)."""
    before = _tokenizer(vocabulary / "base").get_vocab()
    now = _tokenizer(vocabulary).get_vocab()
    tokens = sorted(before, key=before.__getitem__)
    return pd.DataFrame(
        {
            "nr": range(1, len(tokens) + 1),
            "token": tokens,
            "id_before": [before[token] for token in tokens],
            "id_now": [now.get(token, -1) for token in tokens],
        }
    )


def _tokenizer(directory: Path) -> Tokenizer:
    path = _existing(directory / "tokenizer.json")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(f"{path}: not a readable tokenizer: {error}") from error


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: missing; make a vocabulary with `querylift extend-vocabulary`"
        )
    return path


def _judge(
    config: ContractConfig,
    database: duckdb.DuckDBPyConnection,
    checks: Mapping[str, Sequence[Check]],
    report: Report,
    files: Mapping[str, Path],
    out: Path,
) -> dict[str, float]:
    """Observe, judge and write ``report``; raise if it blocks."""
    facts: dict[str, dict[str, Fact]] = {}
    for table, suite in checks.items():
        report.rows[table], facts[table] = observe(database, table, suite)
    with new_dir(out) as partial:
        passed = _expect(checks, facts, partial / "data_docs")
        for table, suite in checks.items():
            for check in suite:
                result = Result(check, facts[table][check.name], passed[table, check.name])
                if isinstance(check, Rows) and not result.success:
                    result.rows.extend(bad_rows(database, check, config.max_rows_named))
                report.results.append(result)
        write_report(report, partial)
    if report.verdict == "block":
        raise Finding(finding(report, files, out))
    return report.metrics()


def _expect(
    checks: Mapping[str, Sequence[Check]],
    facts: Mapping[str, Mapping[str, Fact]],
    docs: Path,
) -> dict[tuple[str, str], bool]:
    """Let Great Expectations judge ``facts`` and write its pages into ``docs``.

    Returns:
        Whether each (table, check) passed.
    """
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(docs.absolute()),
        },
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    # it says hundreds of lines at INFO, the level that Kubeflow's executor runs at
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    context = gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            analytics_enabled=False,  # else releases before 1.24 call home
            data_docs_sites={"data_docs": site},
            progress_bars=ProgressBarsConfig(globally=False),
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        ),
    )
    source = context.data_sources.add_pandas("facts")
    passed = {}
    for table, suite in checks.items():
        frame = pd.DataFrame([{name: fact.observed for name, fact in facts[table].items()}])
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(
                name=table,
                data=source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("all"),
                suite=context.suites.add(
                    gx.ExpectationSuite(name=table, expectations=list(map(_expectation, suite)))
                ),
            )
        )
        for result in definition.run(batch_parameters={"dataframe": frame}).results:
            asked = result.expectation_config
            if asked is None or "observed_value" not in result.result:
                raise RuntimeError(f"{table}: {asked}: {result.exception_info}")
            passed[table, asked.kwargs["column"]] = bool(result.success)
    context.build_data_docs()
    for picture in (docs / "static").rglob("*.gif"):  # no page shows them, and they are 3 MB
        picture.unlink()
    return passed


def _expectation(check: Check) -> ExpectColumnMaxToBeBetween:
    """What Great Expectations asks of the one row of facts."""
    is_block = check.severity == "block"
    return ExpectColumnMaxToBeBetween(
        column=check.name,
        min_value=check.low if isinstance(check, Number) else None,
        max_value=check.max_share if isinstance(check, Rows) else None,
        severity=FailureSeverity.CRITICAL if is_block else FailureSeverity.WARNING,
        description=check.wanted,
    )
