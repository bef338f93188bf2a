"""Time and memory of ``validate_data`` on a generated log.

    python benchmarks/validate_events.py SCRATCH [--events 10000000] [--queries 100000]
        [--items 1000000]

Writes a dataset of random words and clicks into SCRATCH (kept, and used again by a second run),
validates it in a process of its own and prints a row of Markdown: events, size on disk, seconds,
peak memory, whether the bounds (60 s and 4 GiB for 10 M events) hold. Exit code 1 if not.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from relevance.data.splits import assign_split
from relevance.data.tables import TABLES, DatasetCard, write_card, write_table
from relevance.files import new_dir

MAX_SECONDS, MAX_GIB = 60, 4
"""Bounds for 10 M events on 2 cores."""

_CHUNK = 1_000_000
_PAGE = 10
"""Items shown on a page."""
_WORDS = 2_000


def main() -> int:
    """Make the dataset if it is not there, validate it, print the row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("scratch", type=Path, help="directory for the dataset and the report")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    asked = parser.parse_args()
    data = asked.scratch / f"log_{asked.events}_{asked.queries}_{asked.items}"
    if not data.exists():
        with new_dir(data) as partial:
            make_log(partial, asked.events, asked.queries, asked.items)
    seconds, peak_gib, metrics = measure(data, asked.scratch / "report")
    is_within = seconds <= MAX_SECONDS and peak_gib <= MAX_GIB
    size_mb = sum(file.stat().st_size for file in data.iterdir()) / 1e6
    print("| events | on disk | seconds | events/s | peak RSS | within 60 s and 4 GiB |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {metrics['rows_events']:,.0f} | {size_mb:,.0f} MB | {seconds:.1f} "
        f"| {metrics['rows_events'] / seconds:,.0f} | {peak_gib:.2f} GiB "
        f"| {'yes' if is_within else 'no'} |"
    )
    return 0 if is_within else 1


def make_log(data: Path, events: int, queries: int, items: int) -> None:
    """Write a dataset that passes: pages of impressions, some clicked, fewer ordered and paid."""
    rng = np.random.default_rng(0)
    _write_texts(rng, data, queries, items)
    start_ms = 1_700_000_000_000
    with pq.ParquetWriter(data / "events.parquet", TABLES["events"], compression="zstd") as writer:
        for first in range(0, events, _CHUNK):
            rows = min(_CHUNK, events - first)
            writer.write_table(_events(rng, first, rows, start_ms, queries, items))
    write_card(DatasetCard("benchmark", True, "CC0-1.0", {"events": events}), data)


def _write_texts(rng: np.random.Generator, data: Path, queries: int, items: int) -> None:
    letters = np.array(list("abdefgiklmnoprstuv"))
    words = ["".join(rng.choice(letters, 7)) for _ in range(_WORDS)]
    texts = [f"{words[i % _WORDS]} {words[i // _WORDS % _WORDS]} {i}mm" for i in range(queries)]
    query_ids = [f"q{i}" for i in range(queries)]
    write_table(
        pa.table(
            {
                "query_id": query_ids,
                "query": texts,
                "split": [assign_split(text) for text in texts],
                "source": ["log"] * queries,
                "searches": rng.integers(1, 1000, queries),
            }
        ),
        data,
        "queries",
    )
    picked = [np.array(words)[rng.integers(_WORDS, size=items)] for _ in range(9)]
    titles = [" ".join(parts) for parts in zip(*picked, strict=True)]
    write_table(
        pa.table(
            {
                "item_id": [f"p{i}" for i in range(items)],
                "title": titles,
                "description": [f"{title}. {title}" for title in titles],
                "category": picked[0],
                "brand": picked[1],
                "attributes": pa.array(
                    [[("material", word)] for word in picked[2]], pa.map_(pa.string(), pa.string())
                ),
            }
        ),
        data,
        "products",
    )


def _events(
    rng: np.random.Generator, first: int, rows: int, start_ms: int, queries: int, items: int
) -> pa.Table:
    """Sessions of ``_PAGE`` impressions; of a tenth of the rows the page before goes deeper.

    Within a page of 11 rows, ten are impressions and the last is an action on the first of them;
    a page in ten is clicked, ordered and paid in place of its last two impressions.
    """
    number = np.arange(first, first + rows)
    page, place = np.divmod(number, _PAGE + 1)
    is_paid = page % 10 == 0
    action = np.where(place < _PAGE, "impression", "click")
    action = np.where(is_paid & (place == _PAGE - 2), "click", action)
    action = np.where(is_paid & (place == _PAGE - 1), "order", action)
    action = np.where(is_paid & (place == _PAGE), "pay", action)
    shown = np.where(action == "impression", place, 0)
    # scattered by a prime, so that a page has ten different items
    item = (page * 7919 + shown * 104_729) % items
    text = pa.string()
    return pa.table(
        {
            # as long as a UUID, which is what loggers write
            "event_id": _ids("e", number, 32),
            "timestamp": pa.array(start_ms + number * 250, pa.timestamp("ms", tz="UTC")),
            "unit_id": _ids("u", rng.integers(1_000_000, size=rows), 0),
            "search_id": _ids("s", page, 16),
            "query_id": _ids("q", page * 31 % queries, 0),
            "item_id": _ids("p", item, 0),
            "action": pa.array(action, text),
            "position": pa.array(shown + 1, pa.int32()),
        }
    ).cast(TABLES["events"])


def _ids(prefix: str, numbers: np.ndarray, width: int) -> pa.Array:
    texts = pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), max(width - 1, 1), "0")
    return pc.binary_join_element_wise(prefix, texts, "")


def measure(data: Path, out: Path) -> tuple[float, float, dict[str, float]]:
    """Validate ``data`` in a process of its own.

    Returns:
        Seconds of the whole process, its peak resident memory in GiB, and the metrics.
    """
    shutil.rmtree(out, ignore_errors=True)
    program = (
        "import json, resource, sys; from pathlib import Path\n"
        "from relevance.configs import ContractConfig\n"
        "from relevance.data.contract import validate_data\n"
        "metrics = validate_data(ContractConfig(), Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "print(json.dumps(metrics))"
    )
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(data), str(out)], stdout=subprocess.PIPE, text=True
    )
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.02)
    output, _ = process.communicate()
    seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"validate_data ended with {process.returncode}")
    return seconds, peak / 2**30, json.loads(output)


if __name__ == "__main__":
    sys.exit(main())
