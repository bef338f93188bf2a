"""What we expect of each table, as code: a suite per table, each check a piece of DuckDB's SQL.

Every table is a view of that name with one more column, ``nr``: the row's number in its file, the
first is 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

import pyarrow as pa

from relevance.configs import ContractConfig
from relevance.data import pii
from relevance.data.tables import ACTIONS, MAX_GRADE, SPLITS, TABLES

Severity = Literal["block", "warn"]

WORDS = pa.schema([pa.field("word", pa.string(), False), pa.field("count", pa.int64(), False)])
"""Columns of a vocabulary's ``words.parquet`` that are judged."""

ID: Mapping[str, str] = {
    "queries": "query_id",
    "products": "item_id",
    "events": "event_id",
    "judgments": "query_id || '/' || item_id",
    "words": "word",
    "base": "token",
}
"""SQL that names a row of each table."""

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""No log of a web shop is older; an epoch of 0, or seconds taken for milliseconds, is."""


@dataclass(frozen=True)
class Check:
    """One expectation of one table."""

    table: str
    name: str
    """Unique within the table."""
    wanted: str
    """What is expected, in words."""
    severity: Severity


@dataclass(frozen=True)
class Number(Check):
    """A number of the table lies within a band."""

    sql: str
    """Aggregate over the table."""
    low: float
    """Smallest value that passes."""


@dataclass(frozen=True)
class Rows(Check):
    """No row is bad, or no more than a share of them."""

    column: str
    """Column, or SQL, whose value is shown of a bad row."""
    bad: str = ""
    """Predicate that is true of a bad row; else ``bad_rows``."""
    bad_rows: str = ""
    """Query of the ``nr`` of bad rows, where one row does not tell."""
    max_share: float = 0.0
    """Share that passes, of the rows with ``of``."""
    of: str = "true"
    order_by: str = "nr"
    """Which bad rows are shown first."""


def suites(config: ContractConfig, tables: Collection[str]) -> dict[str, list[Check]]:
    """Checks of each of ``tables``, in the order of the report."""
    makers = {"queries": _queries, "products": _products, "events": _events}
    makers |= {"judgments": _judgments}
    return {table: list(make(config)) for table, make in makers.items() if table in tables}


def prepare(tables: Collection[str]) -> list[str]:
    """Statements to run before the checks of ``tables``."""
    # one pass for three checks: what happened to each item on each page that was acted upon
    actions = ", ".join(f"bool_or(action = '{action}') AS has_{action}" for action in _CHAIN)
    chains = f"""
        CREATE TEMP TABLE chains AS
        WITH acted AS (SELECT DISTINCT search_id, item_id FROM events WHERE action != 'impression')
        SELECT search_id, item_id, {actions}
        FROM events SEMI JOIN acted USING (search_id, item_id) GROUP BY ALL
    """
    return [chains] if "events" in tables else []


def vocabulary_suites(config: ContractConfig, tables: Collection[str]) -> dict[str, list[Check]]:
    """Checks of a vocabulary: ``words``, and the tokens of the ``base`` it extends.

    ``relevance.data.contract`` says what columns the two have.
    """
    makers = {"words": _words, "base": _base}
    return {table: list(make(config)) for table, make in makers.items() if table in tables}


def _queries(config: ContractConfig) -> Iterator[Check]:
    table = "queries"
    yield _volume(table, config.min_queries)
    yield from _all_filled(table)
    yield _unique(table, ["query_id"], "block")
    yield _unique(table, ["lower(trim(query))", "source"], "warn", name="query")
    yield _length(table, "query", config.max_query_chars)
    yield _no_placeholder(table, "query")
    yield from _encoding(config, table, "query")
    for name, what, pattern, severity in _PII:
        matches = f"regexp_matches(query, {_text(pattern)})"
        # CASE, so that Python sees only what may be a card
        bad = f"CASE WHEN {matches} THEN has_card(query) END" if name == "card" else matches
        yield Rows(table, f"query_no_{name}", f"no query holds {what}", severity, "query", bad)
    yield _in_set(table, "split", SPLITS)
    yield Rows(
        table, "searches_range", "searches is 0 or more", "block", "searches", "searches < 0"
    )
    yield Rows(
        table,
        "split_leak",
        "no query has a variant (plural, spacing, word order) in another split",
        "block",
        "query || ' (' || split || ')'",
        bad_rows="""
            WITH keys AS MATERIALIZED (
                SELECT nr, split, query_key(query) AS key FROM queries
                WHERE query IS NOT NULL AND split IS NOT NULL
            ), leaks AS (SELECT key FROM keys GROUP BY key HAVING count(DISTINCT split) > 1)
            SELECT nr FROM keys SEMI JOIN leaks USING (key)
        """,
        order_by="query_key(query), nr",
    )
    for split in SPLITS:
        yield Number(
            table,
            f"share_{split}",
            f"{percent(config.min_split_share)} of the queries or more are in {split}",
            "warn",
            f"coalesce(avg((split = '{split}')::INT), 0)",
            config.min_split_share,
        )


def _products(config: ContractConfig) -> Iterator[Check]:
    table = "products"
    yield _volume(table, config.min_products)
    yield from _all_filled(table)
    yield _unique(table, ["item_id"], "block")
    yield _length(table, "title", config.max_title_chars)
    yield _no_placeholder(table, "title")
    yield from _encoding(config, table, "title")
    yield Rows(
        table,
        "title_no_markup",
        "no title holds HTML",
        "warn",
        "title",
        rf"regexp_matches(title, {_text(_MARKUP)})",
    )
    yield from _encoding(config, table, "description", only_warn=True)
    for column in ("description", "category", "brand"):
        yield Rows(
            table,
            f"{column}_not_blank",
            f"{column} is null or not blank",
            "warn",
            column,
            _is_blank(column),
        )
    yield Rows(
        table,
        "attributes_not_blank",
        "no attribute has a blank name or value",
        "warn",
        "attributes::VARCHAR",
        "len(list_filter(list_concat(map_keys(attributes), map_values(attributes)), "
        "lambda part: part IS NULL OR trim(part::VARCHAR) = '')) > 0",
    )


def _events(config: ContractConfig) -> Iterator[Check]:
    table = "events"
    latest = datetime.now(UTC) + timedelta(days=1)  # clocks differ
    yield _volume(table, config.min_events)
    yield from _all_filled(table)
    yield _unique(table, ["event_id"], "block")
    yield _in_set(table, "action", ("impression", *ACTIONS))
    yield Rows(
        table,
        "position_range",
        "position is 1 or more",
        "block",
        "position",
        "position < 1",
    )
    yield Rows(
        table,
        "position_of_impression",
        "an impression has a position",
        "warn",
        "position",
        "action = 'impression' AND position IS NULL",
    )
    yield Rows(
        table,
        "timestamp_range",
        f"timestamp is between {EARLIEST:%Y} and now",
        "block",
        "timestamp::VARCHAR",
        f"epoch_ms(timestamp) NOT BETWEEN {_milliseconds(EARLIEST)} AND {_milliseconds(latest)}",
    )
    for before, after in itertools.pairwise(_CHAIN):
        yield from _tolerated(
            config.max_orphan_share,
            Rows(
                table,
                f"{after}_without_{before}",
                f"each {after} follows {_article(before)} of the item on that page",
                "block",
                "search_id || ' ' || item_id",
                bad_rows=f"""
                    SELECT nr FROM events
                    SEMI JOIN (FROM chains WHERE has_{after} AND NOT has_{before})
                        USING (search_id, item_id)
                    WHERE action = '{after}'
                """,
                of=f"action = '{after}'",
            ),
        )
    for reference in _references(table):
        yield from _tolerated(config.max_orphan_share, reference)


def _judgments(config: ContractConfig) -> Iterator[Check]:
    table = "judgments"
    yield _volume(table, config.min_judgments)
    yield from _all_filled(table)
    yield _unique(table, ["query_id", "item_id", "rater"], "block", name="pair_and_rater")
    yield Rows(
        table,
        "rater_not_blank",
        "rater is null or not blank",
        "block",
        "rater",
        _is_blank("rater"),
    )
    yield Rows(
        table,
        "grade_range",
        f"grade is 0 to {MAX_GRADE}",
        "block",
        "grade",
        f"grade NOT BETWEEN 0 AND {MAX_GRADE}",
    )
    yield from _references(table)
    yield Number(table, "grades", "two grades or more occur", "warn", "count(DISTINCT grade)", 2)
    yield Number(
        table,
        "splits",
        f"there are judgments of {', '.join(SPLITS)} queries",
        "warn",
        "(SELECT count(DISTINCT split) FROM queries SEMI JOIN judgments USING (query_id))",
        len(SPLITS),
    )


def _words(config: ContractConfig) -> Iterator[Check]:
    table = "words"
    yield Number(table, "volume", "there are new words", "warn", "count(*)", 1)
    yield _filled(table, "word")
    yield _unique(table, ["word"], "block")
    least = config.min_word_count
    wanted = f"a word was seen {least:,} times or more"
    bad = f"count IS NULL OR count < {least}"
    yield Rows(table, "count_range", wanted, "block", "count", bad)
    yield Rows(table, "known", "the tokenizer knows each word", "block", "tokens", "is_unknown")
    yield Rows(table, "whole", "the tokenizer keeps a word whole", "block", "tokens", "pieces != 1")
    wanted = "a word is the same when encoded and decoded"
    yield Rows(table, "round_trip", wanted, "block", "decoded", "decoded != word")


def _base(config: ContractConfig) -> Iterator[Check]:
    table = "base"
    yield Number(table, "volume", "there are tokens to extend", "block", "count(*)", 1)
    wanted = "a token keeps its id when words are added"
    shown = "id_before || ' to ' || id_now"
    yield Rows(table, "id_kept", wanted, "block", shown, "id_before != id_now")


_CHAIN = ("impression", "click", "order", "pay")
"""Each needs the one before it on the same page for the same item."""

_PII: Sequence[tuple[str, str, str, Severity]] = (
    ("email", "an e-mail address", pii.EMAIL, "block"),
    ("card", "a payment card's number", pii.CARD, "block"),
    ("phone", "what looks like a phone number", pii.PHONE, "warn"),
    ("ip", "what looks like an IP address", pii.IP, "warn"),
)

_PLACEHOLDERS = ("nan", "NaN", "NAN", "<NA>", "None", "NaT", "null", "NULL", r"\N")
"""What a missing value becomes when pandas, Java or MySQL write it as text."""

_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}]"
_MOJIBAKE = r"[ÃÂ][\x{80}-\x{bf}€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|â€|ï»¿"
"""UTF-8 that was read as Latin-1 or Windows-1252: the two bytes of é are Ã and ©."""
_MARKUP = r"</?[a-zA-Z]+( [^>]*)?/?>|&(amp|lt|gt|quot|nbsp|#[0-9]+);"


def _volume(table: str, rows: int) -> Check:
    rows = max(rows, 1)  # an empty table is never wanted
    wanted = f"{table} has {rows:,} {'row' if rows == 1 else 'rows'} or more"
    return Number(table, "volume", wanted, "block", "count(*)", rows)


def _all_filled(table: str) -> Iterator[Check]:
    for field in TABLES[table]:
        if not field.nullable:
            yield _filled(table, field.name, is_text=pa.types.is_string(field.type))


def _filled(table: str, column: str, *, is_text: bool = True) -> Check:
    bad, wanted = f"{column} IS NULL", f"{column} is not null"
    if is_text:
        # a regular expression per id of 10 M events costs too much, and ids are typed by machines
        is_blank = _is_blank(column) if column in ("query", "title") else f"trim({column}) = ''"
        bad, wanted = f"{bad} OR {is_blank}", f"{column} is neither null nor blank"
    return Rows(table, f"{column}_filled", wanted, "block", column, bad)


def _is_blank(column: str) -> str:
    return rf"regexp_full_match({column}, '[\s\p{{Z}}\p{{C}}]*')"


def _unique(
    table: str, columns: Sequence[str], severity: Severity, *, name: str | None = None
) -> Check:
    """Second and later rows of the same ``columns`` are bad.

    Rows are compared by a hash first: of 10 M distinct ids, only the hashes are held.
    """
    name = name or columns[0]
    key = ", ".join(columns)
    return Rows(
        table,
        f"{name}_unique",
        f"{name.replace('_', ' ') if len(columns) > 2 else name} is unique"
        + (" within its source" if "source" in columns else ""),
        severity,
        columns[0]
        if len(columns) == 1
        else " || ' · ' || ".join(f"coalesce({c}, '')" for c in columns),
        bad_rows=f"""
            WITH suspects AS (SELECT hash({key}) AS h FROM {table} GROUP BY h HAVING count(*) > 1),
            copies AS (
                SELECT nr, row_number() OVER (PARTITION BY {key} ORDER BY nr) AS copy
                FROM {table} SEMI JOIN suspects ON hash({key}) = h
            )
            SELECT nr FROM copies WHERE copy > 1
        """,
    )


def _length(table: str, column: str, chars: int) -> Check:
    return Rows(
        table,
        f"{column}_length",
        f"{column} has {chars:,} characters or fewer",
        "block",
        column,
        f"length({column}) > {chars}",
    )


def _no_placeholder(table: str, column: str) -> Check:
    return Rows(
        table,
        f"{column}_not_nan",
        f"{column} is no missing value written as text",
        "block",
        column,
        f"trim({column}) IN ({', '.join(map(_text, _PLACEHOLDERS))})",
    )


def _encoding(
    config: ContractConfig, table: str, column: str, *, only_warn: bool = False
) -> Iterator[Check]:
    broken = Rows(
        table,
        f"{column}_characters",
        f"{column} holds no replacement character (U+FFFD) and no control character",
        "warn" if only_warn else "block",
        column,
        f"contains({column}, chr(65533)) OR regexp_matches({column}, {_text(_CONTROL)})",
    )
    yield from [broken] if only_warn else _tolerated(config.max_broken_share, broken)
    yield Rows(
        table,
        f"{column}_mojibake",
        f"{column} holds no UTF-8 that was read as another encoding",
        "warn",
        column,
        f"regexp_matches({column}, {_text(_MOJIBAKE)})",
    )


def _in_set(table: str, column: str, allowed: Sequence[str]) -> Check:
    return Rows(
        table,
        f"{column}_set",
        f"{column} is one of {', '.join(allowed)}",
        "block",
        column,
        f"{column} NOT IN ({', '.join(map(_text, allowed))})",
    )


def _references(table: str) -> Iterator[Rows]:
    for column, owner in (("query_id", "queries"), ("item_id", "products")):
        yield Rows(
            table,
            f"{column}_known",
            f"{column} is in {owner}",
            "block",
            column,
            bad_rows=f"SELECT nr FROM {table} ANTI JOIN {owner} USING ({column}) "
            f"WHERE {column} IS NOT NULL",
            of=f"{column} IS NOT NULL",
        )


def _tolerated(max_share: float, check: Rows) -> Iterator[Rows]:
    """``check`` as a warning, and as a block above ``max_share``."""
    yield replace(check, severity="warn")
    yield replace(
        check,
        name=f"{check.name}_share",
        wanted=f"{check.wanted}, but for {percent(max_share)} at most",
        max_share=max_share,
    )


def percent(share: float) -> str:
    """``share`` for people.

    >>> percent(0.01), percent(0.17603)
    ('1 %', '17.6 %')
    """
    return f"{100 * share:.3g} %"


def _article(action: str) -> str:
    return f"an {action}" if action[0] in "aeiou" else f"a {action}"


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
