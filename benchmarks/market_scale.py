"""Time and memory of the generated shop at full size; prints a markdown table.

Run ``python benchmarks/market_scale.py --out DIR``; the shop is removed afterwards.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from dataclasses import fields
from pathlib import Path

from relevance.data.market import MarketConfig, make_market
from relevance.data.tables import TABLES, open_table, table_path

FULL = MarketConfig(
    products=1_000_000, queries=20_000, searches=800_000, judgments=480_000, shoppers=200_000
)
"""A million products and ten million events."""


def main() -> None:
    """Make one shop and say what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for field in fields(MarketConfig):
        default = getattr(FULL, field.name)
        parser.add_argument(f"--{field.name}", type=type(default), default=default)
    parser.add_argument("--out", type=Path, help="where the shop is made, and removed again")
    settings = vars(parser.parse_args())
    with tempfile.TemporaryDirectory(dir=settings.pop("out")) as work:
        data = Path(work) / "market"
        before = _peak_mib()
        start = time.perf_counter()
        make_market(MarketConfig(**settings), data)
        seconds = time.perf_counter() - start
        print("| table | rows | MiB on disk |\n|---|---:|---:|")
        for table in TABLES:
            with open_table(data, table) as file:
                size = table_path(data, table).stat().st_size / 2**20
                print(f"| {table} | {file.metadata.num_rows:,} | {size:.1f} |")
    print(f"\n{seconds:.1f} s of wall time; peak RSS {_peak_mib():.0f} MiB ({before:.0f} on start)")


def _peak_mib() -> float:
    # kibibytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
