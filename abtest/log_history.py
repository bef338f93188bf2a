"""Users of a log as if everybody in it had been exposed: what an experiment is planned from."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import ibis
import numpy as np
from numpy.typing import NDArray

from abtest.aggregates import capped
from abtest.daily_state import update
from abtest.events import Study, Windows, open_duckdb
from abtest.experiment_log import definition, is_money, read_days
from abtest.metrics import METRICS
from abtest.moments import columns_of
from abtest.result import Definition
from abtest.store_files import StoreFiles
from abtest.user_days import COUNTED, Days
from abtest.user_rows import seen_users, user_rows, without_bots

Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class History:
    """One row a user, and when users came."""

    columns: dict[str, NDArray[np.float64]]
    """Totals of each user. [users]"""
    definitions: dict[str, Definition]
    new_users_by_day: tuple[int, ...]
    """Users seen for the first time on each day."""


def history(
    store: str | Path,
    metrics: Iterable[str],
    days: int,
    *,
    until: date | None = None,
    pre_days: int = 0,
    advance: Advance = lambda done, total: None,
) -> History:
    """Totals of every user of some days, by the rules of an experiment that starts with them.

    Args:
        store: Directory or URL of the Parquet files.
        metrics: Names of the table, quantiles excepted.
        days: As many as the experiment is to have: variances grow with them.
        until: The first day, in UTC, that is not looked at; None: the last one of the store, which
            may be half there.
        pre_days: Before them, for covariates.
        advance: Called with days of the log made and days in all.

    Raises:
        ValueError: A metric that is unknown or a quantile, or in money of several currencies.
        FileNotFoundError: The store has nothing of these days.
    """
    names = list(metrics)
    for name in names:
        if name in METRICS and METRICS[name].quantile is not None:
            raise ValueError(f"metric {name!r}: of rows, not of users; it cannot be planned")
    files = StoreFiles(store)
    end = until or _last_day(files)
    moment = datetime(end.year, end.month, end.day, tzinfo=UTC)
    study = Study("history", 1, Windows(moment - timedelta(days=days), moment, pre_days=pre_days))
    with open_duckdb() as connection, tempfile.TemporaryDirectory() as state:
        days_made = update(connection, files, Path(state), study, advance)
        everybody = without_bots(as_if_exposed(read_days(connection, days_made)), study)
        currencies = everybody.deeds.select("currency").distinct().to_pyarrow()["currency"]
        told = sorted(set(currencies.to_pylist()) - {None})
        if len(told) > 1 and any(map(is_money, names)):
            raise ValueError(f"amounts in {', '.join(told)}: they have no sum, want one currency")
        rows = connection.create_table(
            "history_users", user_rows(seen_users(everybody.totals), everybody, study), temp=True
        )
        definitions = {
            name: definition(name, "primary", rows, has_pre=pre_days > 0) for name in names
        }
        wanted = columns_of(names, has_pre=pre_days > 0)
        own = list(dict.fromkeys(name.removesuffix("_capped") for name in wanted))
        table = rows.select(*own, day=rows.first_exposure_at.date()).to_pyarrow()
    columns = {name: np.asarray(table[name].to_numpy(zero_copy_only=False), float) for name in own}
    for one in definitions.values():
        if one.cap is not None:
            column = columns[one.numerator.removesuffix("_capped")]
            columns[one.numerator] = capped(column, one.cap)
    came = Counter(table["day"].to_pylist())
    by_day = tuple(came[end - timedelta(days=days - n)] for n in range(days))
    return History(columns, definitions, by_day)


def as_if_exposed(days: Days) -> Days:
    """Everybody was exposed to one variant at the beginning of the first day."""
    totals = days.totals
    return days._replace(
        totals=totals.mutate(
            first=totals.day.cast("timestamp"),
            variant=ibis.literal("all"),
            last_variant=ibis.literal("all"),
            exposures=ibis.ifelse(totals.is_pre, 0, 1),
            forced=ibis.literal(0),
            **{f"{name}_since": totals[name] for name in COUNTED},
        )
    )


def _last_day(store: StoreFiles) -> date:
    days = store.days("events")
    if not days:
        raise FileNotFoundError(f"{store.url}/events: no day; want a store of `events compact`")
    return days[-1]
