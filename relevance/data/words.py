"""Texts and word counts of a dataset of any size, by DuckDB through Ibis."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import ibis
import pyarrow as pa

from relevance.data.tables import check_table, has_table, table_path

PUNCTUATION = r"!-/:-@\[-`{-~¡§«¶·»¿‐-‧‰-⁃⁅-⁑⁓-⁞、-〃"
"""Inside of a regular expression class: where BERT breaks words, besides white space.

Of Unicode's rarer marks only those common in shops are here. BERT breaks at every one of these,
as a test checks; at the others it breaks words that we take for whole, and never find.
"""

_WORD = rf"[^\s\p{{Z}}{PUNCTUATION}]+"
_JOIN = r"[-'’&]"
_SHORT = r"\p{L}{1,3}"
_NUMBER = rf"[0-9]+(?:[.,/][0-9]+)+(?:{_WORD})?[%\"]?|[0-9]+(?:{_WORD})?[%\"]"
_COMPOUND = rf"{_NUMBER}|{_WORD}(?:{_JOIN}{_WORD})+|{_WORD}"
"""``3.5mm``, ``1/2"``, ``100%``; chains like ``wi-fi``; and plain words, skipped over whole."""
_KEPT = rf"^(?:{_NUMBER}|{_SHORT}{_JOIN}\p{{L}}(?:{_WORD})?|\p{{L}}(?:{_WORD})?{_JOIN}{_SHORT})$"
"""Compounds that mean one thing: numbers with their unit, and two words of which one is no more
than three letters (``wi-fi``, ``t-shirt``, ``men's``). ``stainless-steel`` and ``12-inch`` stay
apart, because a query says ``steel`` or ``12 inch``."""

MAX_WORD_CHARS = 100
"""BERT's WordPiece answers a longer word with [UNK]."""
_MAX_WORDS = 1_000_000
"""Most frequent words that leave the database; it bounds the memory here."""
_MEMORY = "2GB"
"""DuckDB writes to disk beyond this."""

_READ = {
    "queries": ["query_id", "query", "split", "searches"],
    "products": ["item_id", "title"],
    "events": ["query_id", "item_id", "action"],
    "judgments": ["query_id", "item_id"],
}
"""Columns that are read here, of tables of which the last two may be absent."""


@ibis.udf.scalar.builtin  # type: ignore[untyped-decorator]
def regexp_extract_all(text: str, pattern: str) -> list[str]:  # type: ignore[empty-body]
    """DuckDB's own: every match of ``pattern``."""


@ibis.udf.scalar.builtin  # type: ignore[untyped-decorator]
def list_concat(left: list[str], right: list[str]) -> list[str]:  # type: ignore[empty-body]
    """DuckDB's own."""


@ibis.udf.scalar.builtin  # type: ignore[untyped-decorator]
def strip_accents(text: str) -> str:  # type: ignore[empty-body]
    """DuckDB's own."""


class Texts:
    """The queries and titles of a dataset, of which a fifth of the items is held out.

    An item is held out by the sha256 of its id, so the same items are in every run.
    """

    def __init__(self, connection: Any, data: Path) -> None:
        for table, columns in _READ.items():
            if table in ("queries", "products") or has_table(data, table):
                check_table(data, table, columns)
        self._connection = connection
        self._data = data
        products = self._read("products").select("item_id", "title")
        self._products = products.filter(products.title.notnull())
        queries = self._read("queries").select("query_id", "query", "split", "searches")
        self._queries = queries.filter(queries.query.notnull())

    def to_learn(self) -> Any:
        """``titles_to_learn`` and ``queries_to_learn``."""
        return self.titles_to_learn().union(self.queries_to_learn())

    def titles_to_learn(self) -> Any:
        """Titles of the other four fifths: Ibis table of text and weight."""
        titles = self._products.filter(~_is_held_out(self._products.item_id))
        return titles.select(text=titles.title, weight=ibis.literal(1, "int64"))

    def queries_to_learn(self) -> Any:
        """Train queries by how often they were searched: Ibis table of text and weight."""
        queries = self._queries.filter(self._queries.split == "train")
        searches = ibis.greatest(queries.searches.fill_null(1), 1)
        return queries.select(text=queries["query"], weight=searches)

    def sample(self, limit: int) -> Iterator[str]:
        """At most ``limit`` texts to learn from, in an order that only they decide."""
        texts = self.to_learn()
        texts = texts.order_by(texts.text.hexdigest("sha256")).limit(limit).select("text")
        for batch in texts.to_pyarrow_batches(chunk_size=10_000):
            yield from batch.column("text").to_pylist()

    def held_out_titles(self, limit: int) -> list[str]:
        """At most ``limit`` titles of held-out items."""
        titles = self._products.filter(_is_held_out(self._products.item_id))
        titles = titles.order_by(titles.item_id.hexdigest("sha256"), titles.title).limit(limit)
        found: list[str] = titles.select("title").to_pyarrow().column("title").to_pylist()
        return found

    def held_out_pairs(self, limit: int) -> tuple[str, list[tuple[str, str]]]:
        """At most ``limit`` pairs whose item is held out.

        Returns:
            ``judged``, ``clicked`` or ``made`` (no such pair: queries in turn beside titles),
            and the pairs of query and title.
        """
        pairs: list[tuple[str, str]] = []
        for table, source in (("judgments", "judged"), ("events", "clicked")):
            if has_table(self._data, table):
                pairs = self._pairs(table, limit)
            if pairs:
                return source, pairs
        titles = self.held_out_titles(limit)
        queries = self._queries.order_by("query_id", "query").limit(limit).select("query")
        texts = queries.to_pyarrow().column("query").to_pylist()
        if not texts:
            raise ValueError(f"{table_path(self._data, 'queries')}: no row; want 1 or more queries")
        return "made", [(texts[row % len(texts)], title) for row, title in enumerate(titles)]

    def _pairs(self, table: str, limit: int) -> list[tuple[str, str]]:
        rows = self._read(table)
        if table == "events":
            rows = rows.filter(rows.action != "impression")
        rows = rows.filter(_is_held_out(rows.item_id)).select("query_id", "item_id").distinct()
        rows = rows.order_by((rows.query_id + "\n" + rows.item_id).hexdigest("sha256"))
        rows = rows.limit(limit)
        rows = rows.join(self._queries, "query_id").join(self._products, "item_id")
        found = rows.select("query", "title").order_by("query", "title").to_pyarrow()
        return list(
            zip(found.column("query").to_pylist(), found.column("title").to_pylist(), strict=True)
        )

    def _read(self, table: str) -> Any:
        return self._connection.read_parquet(str(table_path(self._data, table)))


@contextlib.contextmanager
def open_texts(data: Path) -> Iterator[Texts]:
    """Open the dataset ``data`` in a database that lives as long as the block.

    Raises:
        FileNotFoundError: A table is missing.
        ValueError: A table lacks a column or cannot be read.
    """
    with tempfile.TemporaryDirectory() as spill:
        connection = ibis.duckdb.connect(
            memory_limit=_MEMORY, temp_directory=spill, preserve_insertion_order=False
        )
        connection.con.execute("SET enable_progress_bar = false")
        try:
            yield Texts(connection, data)
        except duckdb.Error as error:
            raise ValueError(f"{data}: {str(error).splitlines()[0]}") from error
        finally:
            connection.disconnect()


def count_words(texts: Any, *, min_count: int, is_lowercased: bool) -> pa.Table:
    """Count the words of ``texts``, and the compounds that are to be kept whole.

    A kept compound is counted, and so are its parts: where it is not added, they are what
    the tokenizer sees. Case and accents are folded nearly as BERT folds them, which is enough
    to tell what is frequent; the caller folds exactly.

    Args:
        texts: Ibis table of text and weight.
        min_count: Rarer words are left out.
        is_lowercased: Whether the tokenizer folds case and accents.

    Returns:
        Columns word and count, most frequent first, ties in the alphabet's order.
    """
    # what stands between two spaces is counted first: the patterns then see each form once
    forms = texts.select(form=texts.text.split(" ").unnest(), weight=texts.weight)
    forms = forms.group_by("form").agg(weight=forms.weight.sum())
    form = strip_accents(forms.form.lower()) if is_lowercased else forms.form
    forms = forms.select(form=form, weight=forms.weight)
    compounds = regexp_extract_all(forms.form, _COMPOUND).filter(lambda word: _is_kept(word))
    found = list_concat(regexp_extract_all(forms.form, _WORD), compounds)
    words = forms.select(word=found.unnest(), weight=forms.weight)
    counts = words.group_by("word").agg(count=words.weight.sum().cast("int64"))
    counts = counts.filter(counts["count"] >= min_count, counts.word.length() <= MAX_WORD_CHARS)
    counts = counts.order_by(counts["count"].desc(), counts.word.asc()).limit(_MAX_WORDS)
    table: pa.Table = counts.to_pyarrow()
    return table


def _is_kept(word: Any) -> Any:
    return word.re_search(_KEPT) & word.re_search(f"[{PUNCTUATION}]")


def _is_held_out(item_id: Any) -> Any:
    # 0x3333 of 0xffff is a fifth
    return item_id.hexdigest("sha256") < "3333"
