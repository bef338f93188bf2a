"""How often tests reject without an effect, and whether intervals hold an effect that is there.

Run ``python benchmarks/aa_rates.py [USERS] [RUNS]``: generated users whose activity, taste and
spending differ, with a pre-period, dealt to two arms again and again.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import time

import numpy as np
from numpy.typing import NDArray

from abtest.deals import Deals
from abtest.effects import ratio_of
from abtest.result import Definition
from abtest.simulate import Rate, simulate

METRICS = {
    "CTR": ("clicks/impressions", ("pre_clicks/pre_impressions",)),
    "CVR": ("orders/clicks", ("pre_clicks/pre_impressions",)),
    "PAY": ("amount", ("pre_amount", "was_there")),
}
EFFECTS = {"CTR": 0.02, "CVR": 0.03, "PAY": 0.05}


def users(count: int) -> dict[str, NDArray[np.float64]]:
    """Totals of a fortnight, and of the one before; a fifth of the users was not there then."""
    rng = np.random.default_rng(2026)
    activity, taste = rng.gamma(0.8, 1.25, count), rng.beta(2, 30, count)
    price = rng.lognormal(3, 0.6, count)
    was_there = rng.random(count) < 0.8
    columns = {"was_there": was_there}
    for prefix, is_in in (("", np.ones(count, bool)), ("pre_", was_there)):
        impressions = np.where(is_in, rng.poisson(20 * activity) + 1, 0)
        clicks = rng.binomial(impressions, taste)
        orders = rng.binomial(clicks, 0.12)
        columns[f"{prefix}impressions"] = impressions
        columns[f"{prefix}clicks"] = clicks
        columns[f"{prefix}orders"] = orders
        columns[f"{prefix}amount"] = orders * price * rng.lognormal(0, 0.5, count)
    return {name: np.asarray(values, float) for name, values in columns.items()}


def show(rates: list[Rate]) -> None:
    """A row a metric."""
    print("| metric | true effect | rejected | 95 % | mean estimate | intervals hold | saved |")
    print("|---|---|---|---|---|---|---|")
    for rate in rates:
        name = rate.metric + (" with CUPED" if rate.is_cuped else "")
        print(
            f"| {name} | {rate.effect:.0%} | {rate.rejected:.2%} | {rate.ci_low:.2%} to "
            f"{rate.ci_high:.2%} | {rate.mean_effect:+.3%} | {rate.covered:.2%} | "
            f"{rate.variance_saved:.1%} |"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("users", type=int, nargs="?", default=100_000)
    parser.add_argument("runs", type=int, nargs="?", default=4_000)
    given = parser.parse_args()
    columns = users(given.users)
    definitions = {}
    for name, (text, covariates) in METRICS.items():
        top, bottom = ratio_of(text)
        definitions[name] = Definition(
            role="primary", numerator=top, denominator=bottom, text=text, covariates=covariates
        )
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "scipy")
    )
    print(f"{given.users:,} users, {given.runs:,} deals; {platform.python_version()}, {versions}\n")
    for effects in ({}, EFFECTS):
        start = time.perf_counter()
        show(simulate(columns, definitions, Deals(given.runs, seed=11), effects))
        print(f"\n{time.perf_counter() - start:.0f} s\n")


if __name__ == "__main__":
    main()
