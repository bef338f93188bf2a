"""Events a second that simulated shoppers leave in a store.

A shop is generated, then the log of two weeks of an experiment is written as `querylift ab
shoppers` does.

    python benchmarks/shoppers.py [--users 1000000] [DIR]

DIR (default: a temporary one) needs 40 bytes a row: 1.7 GB for a million users.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from abtest.experiment import Experiments
from abtest.shopper_plan import Simulation
from querylift.commands.shoppers import shop_of, write_log
from relevance.data.market import MarketConfig, make_market

EXPERIMENTS = {
    "version": 1,
    "unit": "client_id",
    "champion": "bert",
    "scorers": {
        "bert": {"url": "http://127.0.0.1:8001"},
        "ei-src": {"url": "http://127.0.0.1:8002"},
    },
    "layers": {"ranking": {"salt": "ranking"}},
    "experiments": {
        "new-ranking": {
            "layer": "ranking",
            "salt": "new-ranking",
            "phase": 1,
            "range": [0, 10_000],
            "start": "2026-11-02T00:00:00Z",
            "end": "2026-12-30T00:00:00Z",
            "variants": {
                "control": {"weight": 0.5, "scorer": "bert"},
                "treatment": {"weight": 0.5, "scorer": "ei-src"},
            },
            "primary": ["ctr", "pay"],
        }
    },
}


def measure(directory: Path, users: int) -> None:
    """Make the shop, write the log, print what it took."""
    make_market(MarketConfig(searches=0), directory / "shop")
    shop = shop_of(directory / "shop")
    simulation = Simulation(
        experiments=msgspec.convert(EXPERIMENTS, Experiments),
        experiment_id="new-ranking",
        begin=datetime(2026, 11, 2, tzinfo=UTC),
        days=14,
        users=users,
    )
    began, cpu_began = time.perf_counter(), time.process_time()
    rows = write_log(simulation, shop, directory / "store")["rows"]
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    count = rows["events"] + rows["queries"]
    size = sum(file.stat().st_size for file in (directory / "store").rglob("*.parquet"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{users:,} users, {rows['events']:,} events, {rows['queries']:,} queries")
    print(f"{seconds:.0f} s, {count / seconds:,.0f} rows/s; {cpu_s:.0f} s of CPU")
    print(f"load when it ended: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{size / 1e6:,.0f} MB, {size / count:.1f} bytes a row; peak RSS {peak:,.0f} MiB")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, nargs="?")
    parser.add_argument("--users", type=int, default=1_000_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.directory) as scratch:
        measure(Path(scratch), asked.users)


if __name__ == "__main__":
    main()
