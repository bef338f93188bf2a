"""From user rows to what statistics need, summed by the database: no user enters Python."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

import ibis
import numpy as np

from abtest.aggregates import Aggregates
from abtest.events import Log, Study, naive
from abtest.metrics import CAP, metric

_GRID = tuple(float(q) for q in np.linspace(0, 1, 2_001))
"""Probabilities at which latencies are read; what is between them is interpolated."""
_CAPPED = "_capped"


def columns_of(metrics: Iterable[str], *, has_pre: bool = False) -> list[str]:
    """Columns of the user rows that metrics need, covariates included if there is a pre-period."""
    found: dict[str, None] = {}
    for name in metrics:
        if metric(name).quantile is None:
            found |= dict.fromkeys(metric(name).columns)
            for covariate in metric(name).covariates if has_pre else ():
                found |= dict.fromkeys(column for column in covariate if column)
    return list(found)


def moments(rows: Any, columns: Iterable[str], by: str = "variant") -> dict[str, Aggregates]:
    """Aggregates of user totals for each variant, in one pass.

    Args:
        rows: User rows.
        columns: Of them; ``amount_capped`` is ``amount`` capped at ``cap``.
        by: Another column to group by, as ``application``.

    Raises:
        ValueError: There is no user, or a total is not finite.
    """
    names = list(columns)
    values = {name: _value(rows, name) for name in names}
    pairs = list(combinations_with_replacement(names, 2))
    sums = rows.group_by(by).aggregate(
        units=rows.count(),
        **{f"s{i}": values[name].sum() for i, name in enumerate(names)},
        **{f"p{i}": (values[a] * values[b]).sum() for i, (a, b) in enumerate(pairs)},
    )
    arms = {
        row[by]: Aggregates.from_sums(
            row["units"],
            {name: row[f"s{i}"] for i, name in enumerate(names)},
            {pair: row[f"p{i}"] for i, pair in enumerate(pairs)},
        )
        for row in sums.order_by(by).to_pyarrow().to_pylist()
    }
    if not arms:
        raise ValueError("user rows: none, want users in two variants or more")
    return arms


def cap(rows: Any, column: str) -> float:
    """What totals of a column are capped at: a quantile of all arms together."""
    value = rows[column].cast("float64").quantile(CAP).execute()
    if value is None or not np.isfinite(value):
        raise ValueError(f"cap of {column}: {value}, want users with finite totals")
    return float(value)


def _value(rows: Any, name: str) -> Any:
    if not name.endswith(_CAPPED):
        return rows[name].cast("float64")
    column = name.removesuffix(_CAPPED)
    return ibis.least(rows[column].cast("float64"), cap(rows, column))


class Latencies(NamedTuple):
    """Of one variant, for ``abtest.quantiles``."""

    arm: Aggregates
    """Columns ``latency_below`` and ``latency_rows``, per user."""
    grid: tuple[float, ...]
    """Latencies at evenly spaced probabilities from 0 to 1."""

    def quantile(self, probability: float) -> float:
        """Latency in ms that a share of the queries stays below."""
        return float(np.interp(probability, _GRID, self.grid))


def latencies(log: Log, rows: Any, study: Study, probability: float) -> dict[str, Latencies]:
    """How long queries of users took from their first exposure on, by variant.

    Args:
        log: Of which the queries are read.
        rows: User rows.
        study: The rules.
        probability: At which ``latency_below`` counts, as 0.95.

    Raises:
        ValueError: The log has no queries of these users.
    """
    if log.queries is None:
        raise ValueError("latency: the log has no queries")
    queries = log.queries.filter(log.queries.at < naive(study.windows.end))
    people = rows.select("client_id", "variant", "first_exposure_at")
    asked = queries.inner_join(people, "client_id")
    asked = asked.filter(asked.at >= asked.first_exposure_at)
    grids = asked.group_by("variant").aggregate(grid=asked.latency_ms.quantile(list(_GRID)))
    found = {row["variant"]: row["grid"] for row in grids.to_pyarrow().to_pylist()}
    if not found:
        raise ValueError("latency: no queries of users in the study")
    # each variant's own quantile
    bounds = {name: float(np.interp(probability, _GRID, grid)) for name, grid in found.items()}
    bound = ibis.cases(*[(asked.variant == name, bound) for name, bound in bounds.items()])
    counts = asked.group_by("client_id").aggregate(
        latency_rows=asked.count(), latency_below=asked.count(where=asked.latency_ms <= bound)
    )
    waited = people.left_join(counts, "client_id").drop("client_id_right")
    names = ["latency_below", "latency_rows"]
    waited = waited.mutate(**{name: waited[name].fill_null(0) for name in names})
    arms = moments(waited, names)
    return {name: Latencies(arms[name], tuple(grid)) for name, grid in found.items()}
