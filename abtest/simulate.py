"""How often a test rejects on one's own users: without an effect (A/A), and with one (power).

Users of a log are dealt to two arms anew, thousands of times. Whatever is odd about them, heavy
spenders above all, is in every deal, so what is found holds for them and not for a textbook.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats as distributions

from abtest.aggregates import FloatArray
from abtest.deals import Deals, Moments, UserTable, adjusted_values, dealt_arms, pull_of, values_of
from abtest.effects import ratio_of
from abtest.result import Definition
from abtest.stats import Ratio

Advance = Callable[[int, int], None]


class Rate(NamedTuple):
    """What many deals gave for one metric."""

    metric: str
    is_cuped: bool
    runs: int
    rejected: float
    """Share of deals with a p-value of at most alpha: the false alarms without an effect, the
    power with one."""
    ci_low: float
    """Wilson's interval of that share, 95 %."""
    ci_high: float
    effect: float
    """True one, relative."""
    mean_effect: float
    """Mean of the estimates, relative."""
    covered: float
    """Share of deals whose 95 % interval (1 - alpha) of the relative effect holds the true one."""
    variance_saved: float
    """By covariates, mean over deals; 0 without."""


def simulate(
    columns: Mapping[str, NDArray[np.float64]],
    definitions: Mapping[str, Definition],
    deals: Deals,
    effects: Mapping[str, float] | None = None,
    advance: Advance = lambda done, total: None,
) -> list[Rate]:
    """Deal users to two arms again and again, and count how often each metric is significant.

    Args:
        columns: Totals of each user. [users]
        definitions: Metrics; those with covariates are tested with and without.
        deals: How many, and how.
        effects: Relative effect by metric: the numerators of treated users are multiplied by
            1 + effect. None: an A/A.
        advance: Called with deals done and deals in all.

    Returns:
        Two rates for each metric with covariates, else one.

    Raises:
        ValueError: A metric that is a quantile, an effect of an unknown metric, fewer than four
            users, or a column that does not vary.
    """
    injected = dict.fromkeys(definitions, 0.0) | dict(effects or {})
    for metric in injected:
        if metric not in definitions:
            raise ValueError(f"effect of {metric!r}: no such metric; there are {list(definitions)}")
    tests = [
        (metric, covariates)
        for metric, definition in definitions.items()
        for covariates in dict.fromkeys(((), definition.covariates))
    ]
    for metric, definition in definitions.items():
        if definition.probability is not None:
            raise ValueError(f"metric {metric!r}: of rows, not of users; it cannot be simulated")
    tables = {metric: UserTable.of(columns, one) for metric, one in definitions.items()}
    found: dict[tuple[str, tuple[str, ...]], list[FloatArray]] = {test: [] for test in tests}
    done = 0
    for treated in dealt_arms(len(next(iter(columns.values()))), deals):
        arms = {m: table.arms(treated, 1 + injected[m]) for m, table in tables.items()}
        for metric, covariates in tests:
            before = [ratio_of(text) for text in covariates]
            found[metric, covariates].append(
                _compared(arms[metric], tables[metric], before, injected[metric], deals.alpha)
            )
        done += len(treated)
        advance(done, deals.runs)
    return [
        _rate(metric, bool(covariates), np.concatenate(found[metric, covariates], axis=1), injected)
        for metric, covariates in tests
    ]


def _compared(
    arms: tuple[Moments, Moments],
    table: UserTable,
    covariates: list[Ratio],
    effect: float,
    alpha: float,
) -> FloatArray:
    """Is it rejected, relative effect, is it covered, squared error, that without. [5, deals]"""
    plain = [values_of(arm, table, pull_of(arm, table, table.metric)) for arm in arms]
    before = plain[0].squared_error + plain[1].squared_error
    control, treatment = adjusted_values(arms, table, covariates, plain) if covariates else plain
    squared = control.squared_error + treatment.squared_error
    if not np.all(squared > 0):
        raise ValueError(f"{table.metric.numerator!r}: no variance in a deal")
    difference = treatment.value - control.value
    spread = control.squared_error**2 / (control.units - 1)
    spread = spread + treatment.squared_error**2 / (treatment.units - 1)
    critical = distributions.t.isf(alpha / 2, squared**2 / spread)
    # Fieller: the test that the relative effect is the true one
    away = difference - effect * np.abs(control.value)
    scale = 1 + effect * np.sign(control.value)
    error = np.sqrt(treatment.squared_error + scale**2 * control.squared_error)
    return np.stack(
        [
            np.abs(difference) >= critical * np.sqrt(squared),
            difference / np.abs(control.value),
            np.abs(away) <= critical * error,
            squared,
            before,
        ]
    )


def _rate(metric: str, is_cuped: bool, found: FloatArray, injected: Mapping[str, float]) -> Rate:
    rejected, effects, covered, squared, before = found
    runs = len(rejected)
    interval = distributions.binomtest(int(rejected.sum()), runs).proportion_ci(method="wilson")
    return Rate(
        metric,
        is_cuped,
        runs,
        float(rejected.mean()),
        float(interval.low),
        float(interval.high),
        injected[metric],
        float(effects.mean()),
        float(covered.mean()),
        float(1 - (squared / before).mean()) if is_cuped else 0.0,
    )
