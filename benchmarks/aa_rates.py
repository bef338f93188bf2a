"""How often tests reject without an effect, and whether intervals hold an effect that is there.

Run ``python benchmarks/aa_rates.py [USERS] [RUNS]``: generated users whose activity, taste and
spending differ, who come back, with a pre-period, dealt to two arms again and again. The last table
looks at each deal once a day for a fortnight; it takes a fifth of the users.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import platform
import time
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import stats as distributions

from abtest.confidence_sequences import critical
from abtest.deals import Deals, UserTable, adjusted_values, dealt_arms, pull_of, values_of
from abtest.effects import ratio_of
from abtest.group_sequential import bounds
from abtest.result import Definition
from abtest.simulate import Rate, simulate

Columns = dict[str, NDArray[np.float64]]

DAYS, FIRST_LOOK = 14, 7
METRICS = {
    "CTR": ("clicks/impressions", ("pre_clicks/pre_impressions",)),
    "CVR": ("orders/clicks", ("pre_orders/pre_clicks",)),
    "PAY": ("amount", ("pre_amount", "was_there")),
}
EFFECTS = {"CTR": 0.02, "CVR": 0.03, "PAY": 0.05}


def definitions() -> dict[str, Definition]:
    """Of ``METRICS``."""
    found = {}
    for name, (text, covariates) in METRICS.items():
        top, bottom = ratio_of(text)
        found[name] = Definition(
            role="primary", numerator=top, denominator=bottom, text=text, covariates=covariates
        )
    return found


def shoppers(count: int) -> Columns:
    """Totals of each day of a fortnight, and of all of the one before.

    A fifth of the users was not there before. Users who are more active are seen earlier, so fewer
    are new every day, and those seen come back.

    Returns:
        Columns. [users, days]; those of the fortnight before: [users]
    """
    rng = np.random.default_rng(2026)
    activity, taste = rng.gamma(0.8, 1.25, count), rng.beta(2, 30, count)
    price, habit = rng.lognormal(3, 0.6, count), rng.beta(3, 22, count)
    was_in = rng.random(count) < 0.8
    columns: Columns = {}
    for prefix in ("pre_", ""):
        shape = (DAYS, count)
        impressions = rng.poisson(20 * activity / DAYS, shape) * (was_in if prefix else 1)
        clicks = rng.binomial(impressions, taste)
        orders = rng.binomial(clicks, habit)
        amount = orders * price * rng.lognormal(0, 0.5, shape)
        made = {"impressions": impressions, "clicks": clicks, "orders": orders, "amount": amount}
        for name, totals in made.items():
            columns[prefix + name] = (totals.sum(axis=0) if prefix else totals.T).astype(float)
    columns["was_there"] = (columns["pre_impressions"] > 0).astype(float)
    return columns


def until(made: Columns, day: int) -> tuple[Columns, NDArray[np.bool_]]:
    """Totals of users seen by the end of a day, and which of all users they are."""
    seen = made["impressions"][:, :day].any(axis=1)
    return {
        name: values[seen, :day].sum(axis=1) if values.ndim == 2 else values[seen]
        for name, values in made.items()
    }, seen


def limits(users: list[int]) -> dict[str, NDArray[np.float64]]:
    """How far from 0 a statistic is significant at the end of each day, by method. [days]

    Args:
        users: Seen by the end of each day.
    """
    planned = range(FIRST_LOOK, DAYS + 1)
    early = [math.inf] * (FIRST_LOOK - 1)
    return {
        "looks by the calendar": np.array([*early, *bounds([day / DAYS for day in planned])]),
        "looks by users": np.array(
            [*early, *bounds([users[day - 1] / users[-1] for day in planned])]
        ),
        "confidence sequence": np.array([critical(n, users[-1]) for n in users]),
        "peeking": np.full(DAYS, distributions.norm.isf(0.025)),
    }


def rejected_at_some_look(
    made: Columns, metrics: Mapping[str, Definition], deals: Deals
) -> dict[tuple[str, bool], dict[str, float]]:
    """Share of deals that are significant on some day: metric, with CUPED or not -> method."""
    days = [until(made, day) for day in range(1, DAYS + 1)]
    methods = limits([int(seen.sum()) for _, seen in days])
    tables = [{m: UserTable.of(columns, one) for m, one in metrics.items()} for columns, _ in days]
    tests = [(metric, is_cuped) for metric in metrics for is_cuped in (False, True)]
    count: dict[tuple[str, bool], dict[str, float]] = {
        test: dict.fromkeys(methods, 0.0) for test in tests
    }
    for treated in dealt_arms(len(made["impressions"]), deals):
        statistics = {test: np.empty((len(treated), DAYS)) for test in tests}
        for day, (_, seen) in enumerate(days):
            dealt = treated[:, seen]
            for metric, table in tables[day].items():
                arms = table.arms(dealt, 1.0)
                plain = [values_of(arm, table, pull_of(arm, table, table.metric)) for arm in arms]
                covariates = [ratio_of(text) for text in metrics[metric].covariates]
                adjusted = adjusted_values(arms, table, covariates, plain)
                for is_cuped, (control, treatment) in ((False, plain), (True, adjusted)):
                    error = np.sqrt(control.squared_error + treatment.squared_error)
                    effect = treatment.value - control.value
                    statistics[metric, is_cuped][:, day] = effect / error
        for test, found in statistics.items():
            for method, limit in methods.items():
                count[test][method] += float((np.abs(found) >= limit).any(axis=1).sum())
    return {
        test: {method: n / deals.runs for method, n in found.items()}
        for test, found in count.items()
    }


def named(metric: str, is_cuped: bool) -> str:
    """As in the tables."""
    return metric + (" with CUPED" if is_cuped else "")


def show(rates: list[Rate]) -> None:
    """A row a metric."""
    print("| metric | true effect | rejected | 95 % | mean estimate | intervals hold | saved |")
    print("|---|---|---|---|---|---|---|")
    for rate in rates:
        print(
            f"| {named(rate.metric, rate.is_cuped)} | {rate.effect:.0%} | {rate.rejected:.2%} | "
            f"{rate.ci_low:.2%} to {rate.ci_high:.2%} | {rate.mean_effect:+.3%} | "
            f"{rate.covered:.2%} | {rate.variance_saved:.1%} |"
        )


def show_looks(found: Mapping[tuple[str, bool], Mapping[str, float]]) -> None:
    """A row a metric, a column a method."""
    methods = list(next(iter(found.values())))
    print("| metric | " + " | ".join(methods) + " |\n|" + "---|" * (len(methods) + 1))
    for test, shares in found.items():
        print(f"| {named(*test)} | " + " | ".join(f"{shares[m]:.2%}" for m in methods) + " |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("users", type=int, nargs="?", default=100_000)
    parser.add_argument("runs", type=int, nargs="?", default=4_000)
    given = parser.parse_args()
    columns, _ = until(shoppers(given.users), DAYS)
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "scipy")
    )
    seen = len(columns["impressions"])
    print(f"{seen:,} users, {given.runs:,} deals; {platform.python_version()}, {versions}\n")
    for effects in ({}, EFFECTS):
        start = time.perf_counter()
        show(simulate(columns, definitions(), Deals(given.runs, seed=11), effects))
        print(f"\n{time.perf_counter() - start:.0f} s\n")
    start, made = time.perf_counter(), shoppers(given.users // 5)
    show_looks(rejected_at_some_look(made, definitions(), Deals(given.runs, seed=12)))
    by_day = [int(until(made, day)[1].sum()) for day in range(1, DAYS + 1)]
    print(f"\nusers by day: {by_day}; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
