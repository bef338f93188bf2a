"""Real experiments at every checkpoint: how often peeking misleads, and what our looks say.

Run ``python benchmarks/asos.py FILE``, a Parquet file of the ASOS Digital Experiments Dataset (Liu
et al. 2021): a row for each experiment, variant, metric and checkpoint with the cumulative count,
mean and variance of both arms. Users are the unit. Each series is analysed as if its last
checkpoint were the planned end; planned looks are whole days from the seventh on, as in
``querylift ab analyze``. A look's fraction is that of the days, or of the users where it is less.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from abtest.confidence_sequences import critical
from abtest.group_sequential import bounds
from abtest.sample_ratio import sample_ratio, sequential_sample_ratio
from abtest.schedule import MIN_STEP
from abtest.stats import Comparison, Estimate, compare

ALPHA = 0.05
MIN_DAYS, MIN_UNITS = 7, 100
STRONG = 0.001


class Point(NamedTuple):
    """A checkpoint that can be analysed."""

    days: float
    units: int
    compared: Comparison


class Series(NamedTuple):
    """What the tests say of one metric of one treatment."""

    is_at_end: bool
    is_at_some_peek: bool
    is_by_planned_looks: bool
    is_by_sequence: bool
    is_planned_against_end: bool
    """Planned looks found an effect of the other sign than the end's."""


def points(rows: pd.DataFrame) -> list[Point]:
    """Checkpoints with enough units and some variance, in order of time."""
    found: list[Point] = []
    for row in rows.sort_values("time_since_start").itertuples():
        arms = [
            Estimate(row.mean_c, row.variance_c, int(row.count_c)),
            Estimate(row.mean_t, row.variance_t, int(row.count_t)),
        ]
        units = arms[0].units + arms[1].units
        is_usable = all(
            math.isfinite(a.variance) and a.variance > 0 and a.units >= MIN_UNITS for a in arms
        )
        if is_usable and (not found or units > found[-1].units):
            found.append(Point(row.time_since_start, units, compare(*arms, ALPHA)))
    return found


def judged(found: Sequence[Point]) -> Series:
    """All tests over a series."""
    last = found[-1]
    # users who come back bring more of their own: users alone would count most of it too early
    fractions = [min(each.units / last.units, each.days / last.days) for each in found]
    planned, looks = [last], [1.0]
    for point, fraction in zip(reversed(found[:-1]), reversed(fractions[:-1]), strict=True):
        is_look = point.days >= MIN_DAYS and point.days % 1 == 0
        if is_look and looks[0] - fraction >= MIN_STEP:
            planned.insert(0, point)
            looks.insert(0, fraction)
    limits = bounds(looks, ALPHA, is_final=True)
    crossed = [
        point
        for point, bound in zip(planned, limits, strict=True)
        if abs(point.compared.statistic) >= bound
    ]
    return Series(
        is_at_end=last.compared.pvalue <= ALPHA,
        is_at_some_peek=any(point.compared.pvalue <= ALPHA for point in found),
        is_by_planned_looks=bool(crossed),
        is_by_sequence=any(
            abs(point.compared.statistic) >= critical(point.units, last.units, ALPHA)
            for point in found
        ),
        is_planned_against_end=any(
            point.compared.effect * last.compared.effect < 0 for point in crossed
        ),
    )


def ratios(table: pd.DataFrame) -> list[tuple[str, Mapping[str, Any]]]:
    """Experiments and variants whose arms are not alike in size, worst first."""
    found = []
    for (experiment, variant), rows in table.groupby(["experiment_id", "variant_id"]):
        ordered = rows[rows.metric_id == rows.metric_id.min()].sort_values("time_since_start")
        counts = ordered[["count_c", "count_t"]].cummax().to_numpy()
        tested = sample_ratio([int(n) for n in counts[-1]], [0.5, 0.5])
        always = float(sequential_sample_ratio(counts, [0.5, 0.5])[-1])
        facts = {"counts": counts[-1], "pvalue": tested.pvalue, "always": always}
        if tested.pvalue < STRONG or always < STRONG:
            found.append((f"{experiment}, variant {variant}", facts))
    return sorted(found, key=lambda item: item[1]["pvalue"])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    table = pd.read_parquet(parser.parse_args().file)
    keys = ["experiment_id", "variant_id", "metric_id"]
    left_out, counts, checkpoints = 0, {}, 0
    for (_, _, metric), rows in table.groupby(keys):
        found = points(rows)
        checkpoints += len(found)
        if not found:
            left_out += 1
            continue
        series = judged(found)
        counter = counts.setdefault(metric, Counter())
        counter["series"] += 1
        counter.update({name: int(value) for name, value in series._asdict().items()})
    names = ("series", *Series._fields)
    print(f"{checkpoints:,} checkpoints analysed; {left_out} series without any\n")
    print("| metric | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    for metric, counter in counts.items():
        print(f"| {metric} | " + " | ".join(str(counter[name]) for name in names) + " |")
    total = sum(counts.values(), Counter())
    print("| all | " + " | ".join(str(total[name]) for name in names) + " |\n")
    print("| not 50 to 50 | control | treatment | chi-square p | sequential p |")
    print("|---|---|---|---|---|")
    for name, facts in ratios(table):
        control, treatment = facts["counts"]
        print(
            f"| {name} | {control:,.0f} | {treatment:,.0f} | {facts['pvalue']:.1e} | "
            f"{facts['always']:.1e} |"
        )


if __name__ == "__main__":
    main()
