"""Word counts of a generated log: DuckDB through Ibis, beside a plain Python loop.

Linux only. Run ``python benchmarks/word_counts.py [ROWS]``. The loop reads a tenth of the rows
and its time is taken times ten; it counts plain words only, the easier job. Each way runs in a
process of its own, so that the memory is its own. The titles are generated: words by Zipf's law,
of which three in ten have a unit, a sign or a hyphen.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import multiprocessing
import os
import platform
import re
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from relevance.data.tables import TABLES, table_path
from relevance.data.words import PUNCTUATION, count_words, open_texts

WORDS_PER_TITLE = 10
LEXICON = 200_000
BATCH = 200_000
LOOP_SHARE = 10
MIN_COUNT = 5


def make_titles(data: Path, rows: int, seed: int = 0) -> None:
    """Write a dataset of ``rows`` generated titles and one query."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, length)) for length in rng.integers(3, 9, LEXICON)]
    shapes = ("{}", "{}", "{}", "{}", "{}", "{}", "{}", "wi-{}", "12.5{}", "100%")
    lexicon = np.array([shapes[n % 10].format(word) for n, word in enumerate(words)], object)
    share = 1 / np.arange(1, LEXICON + 1)
    cumulative = np.cumsum(share) / share.sum()
    schema = TABLES["products"]
    with pq.ParquetWriter(table_path(data, "products"), schema, compression="zstd") as writer:
        for start in range(0, rows, BATCH):
            count = min(BATCH, rows - start)
            drawn = np.searchsorted(cumulative, rng.random((count, WORDS_PER_TITLE)))
            columns = {field.name: pa.nulls(count, field.type) for field in schema}
            columns["item_id"] = pa.array([f"item:{start + n}" for n in range(count)])
            columns["title"] = pa.array([" ".join(row) for row in lexicon[drawn]])
            writer.write_table(pa.table(columns, schema=schema))
    queries = {"query_id": ["0"], "query": ["lamp"], "split": ["train"], "source": ["generated"]}
    table = pa.table(queries | {"searches": pa.array([1], pa.int64())}, schema=TABLES["queries"])
    pq.write_table(table, table_path(data, "queries"))


def by_duckdb(data: Path, rows: int) -> int:
    """Words found by ours in the four fifths that are not held out."""
    with open_texts(data) as texts:
        table = count_words(texts.to_learn(), min_count=MIN_COUNT, is_lowercased=True)
    return len(table)


def by_loop(data: Path, rows: int) -> int:
    """Words found by a loop over the first ``rows`` titles."""
    word = re.compile(rf"[^\s{PUNCTUATION}]+")
    counts: Counter[str] = Counter()
    seen = 0
    for batch in pq.ParquetFile(table_path(data, "products")).iter_batches(columns=["title"]):
        for title in batch.column("title").to_pylist()[: rows - seen]:
            text = title.lower()
            if not text.isascii():
                marks = unicodedata.normalize("NFD", text)
                text = "".join(c for c in marks if unicodedata.category(c) != "Mn")
            counts.update(word.findall(text))
        seen += batch.num_rows
        if seen >= rows:
            break
    return sum(count >= MIN_COUNT for count in counts.values())


def measure(count: Callable[[Path, int], int], data: Path, rows: int) -> tuple[float, int, float]:
    """Seconds, words found and peak memory [GiB] of ``count`` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_timed, (count, data, rows))


def _timed(count: Callable[[Path, int], int], data: Path, rows: int) -> tuple[float, int, float]:
    start = time.perf_counter()
    found = count(data, rows)
    seconds = time.perf_counter() - start
    # getrusage would count the parent's memory at the fork
    status = Path("/proc/self/status").read_text()
    peak_kib = int(re.findall(r"VmHWM:\s+(\d+)", status)[0])
    return seconds, found, peak_kib / 2**20


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=int, nargs="?", default=10_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory)
        make_titles(data, rows)
        ours, ours_words, ours_gib = measure(by_duckdb, data, rows)
        # ours reads the titles that are not held out, so the loop's share is one of those
        part = rows * 4 // 5 // LOOP_SHARE
        loop, loop_words, loop_gib = measure(by_loop, data, part)
    versions = [
        f"{name} {importlib.metadata.version(name)}" for name in ("duckdb", "ibis-framework")
    ]
    print(f"{rows:,} titles; {os.cpu_count()} cores; Python {platform.python_version()}, ", end="")
    print(", ".join(versions), end="\n\n")
    print("| | titles counted | seconds | titles a second | words | peak GiB |")
    print("|---|---|---|---|---|---|")
    for name, count, seconds, words, gib in (
        ("DuckDB through Ibis", rows * 4 // 5, ours, ours_words, ours_gib),
        ("Python loop", part, loop, loop_words, loop_gib),
    ):
        speed = count / seconds
        print(f"| {name} | {count:,} | {seconds:.1f} | {speed:,.0f} | {words:,} | {gib:.2f} |")
    scaled = loop * LOOP_SHARE
    print(
        f"\nThe loop over all of them: {scaled:.0f} s if it scales, {scaled / ours:.2f} times ours."
    )


if __name__ == "__main__":
    main()
