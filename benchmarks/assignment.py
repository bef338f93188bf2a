"""Assignment by murmur3, beside md5 and sha1 from the standard library.

Run ``python benchmarks/assignment.py [UNITS]``. The file has a holdout, two experiments in one
layer and one in another: five hashes a unit. Rows differ in the hash alone; the last column is
one hash without the rest. Then an experiment is ramped from 5 to 50 to 100 %, and the units that
leave it or change variant are counted: there must be none.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from unittest import mock

from mmh3 import mmh3_32_uintdigest

from abtest import assignment
from abtest.assignment import Split
from abtest.experiment import Experiment, Experiments, Holdout, Layer, Scorer, Variant

START = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2027, 1, 1, tzinfo=UTC)
HASHES: dict[str, Callable[[bytes, int], int]] = {
    "murmur3 (mmh3)": mmh3_32_uintdigest,
    "md5 (hashlib)": lambda key, _: int.from_bytes(hashlib.md5(key).digest()[:4], "little"),
    "sha1 (hashlib)": lambda key, _: int.from_bytes(hashlib.sha1(key).digest()[:4], "little"),
}


def experiment(name: str, layer: str, first: int, end: int) -> Experiment:
    """Two variants of equal weight."""
    return Experiment(
        layer=layer,
        salt=name,
        phase=1,
        range=(first, end),
        start=START,
        end=END,
        variants={
            "control": Variant(weight=0.5, scorer="bert"),
            "treatment": Variant(weight=0.5, scorer="ei-src" if layer == "ranking" else "bert"),
        },
        primary=("ctr",),
    )


def split(experiments: dict[str, Experiment]) -> Split:
    """While all of them run."""
    file = Experiments(
        version=1,
        unit="client_id",
        champion="bert",
        scorers={name: Scorer(url=f"http://{name}:8000") for name in ("bert", "ei-src")},
        holdout=Holdout(salt="holdout", range=(0, 200)),
        layers={name: Layer(salt=f"{name}-layer") for name in ("ranking", "page")},
        experiments=experiments,
    )
    return Split.of(file, START)


def best_us(work: Callable[[str], object], units: Sequence[str], repeats: int = 1_000) -> float:
    """Microseconds a unit, the best of some rounds."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        for unit_id in units:
            work(unit_id)
        best = min(best, time.perf_counter() - start)
    return best / len(units) * 1e6


def moved(units: Sequence[str]) -> tuple[list[int], int]:
    """Units in the experiment at each step of a ramp, and those that left it or changed variant."""
    counts, wrong = [], 0
    before: dict[str, str] = {}
    for end in (500, 5_000, 10_000):
        step = split({"ramped": experiment("ramped", "ranking", 0, end)})
        now = {u: found[0].variant for u in units if (found := step.assign(u))}
        wrong += sum(now.get(unit_id) != variant for unit_id, variant in before.items())
        counts.append(len(now))
        before = now
    return counts, wrong


def main() -> None:
    """Print one table and the ramp."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("units", type=int, nargs="?", default=1_000_000)
    units = [f"client-{number}" for number in range(parser.parse_args().units)]
    three = split(
        {
            "first": experiment("first", "ranking", 0, 5_000),
            "second": experiment("second", "ranking", 5_000, 10_000),
            "third": experiment("third", "page", 0, 10_000),
        }
    )
    print(
        f"{len(units):,} units; {os.cpu_count()} cores; Python {platform.python_version()}, ",
        end="",
    )
    print(f"mmh3 {importlib.metadata.version('mmh3')}", end="\n\n")
    print("| hash | µs an assignment | million a second | µs a bare hash |")
    print("|---|---|---|---|")
    sample = units[:1_000]
    for name, function in HASHES.items():
        with mock.patch.object(assignment, "mmh3_32_uintdigest", function):
            whole = best_us(three.assign, sample)
        bare = best_us(
            lambda unit_id, f=function: f(b"ranking-layer:" + unit_id.encode(), 0), sample
        )
        print(f"| {name} | {whole:.2f} | {1 / whole:.2f} | {bare:.2f} |")
    counts, wrong = moved(units)
    print(f"\nramp: {', '.join(f'{count:,}' for count in counts)} units in; {wrong} moved")


if __name__ == "__main__":
    main()
