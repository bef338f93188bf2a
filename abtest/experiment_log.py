"""What the store says of one experiment: its users as aggregates, in all and day by day."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import ibis

from abtest import over_time
from abtest.daily_state import PARTS, part_of
from abtest.effects import Arms
from abtest.events import Study, read_log, scan
from abtest.experiment import Experiment
from abtest.funnel import Funnel, check, funnel, tally
from abtest.metrics import METRICS, metric
from abtest.moments import cap, columns_of, latencies, moments
from abtest.quantiles import quantile_estimate
from abtest.result import Definition, Role
from abtest.stats import Estimate, Ratio
from abtest.store_files import StoreFiles
from abtest.user_days import Days
from abtest.user_rows import seen_users, user_rows, without_bots

NO_CURRENCY = "no currency"
"""Of an amount whose currency the log does not name."""
_MONEY = "money"
"""In units of metrics, whatever the currency."""
_PART = "application"


class ExperimentLog:
    """Users of an experiment, and what they did, up to the end of a day."""

    def __init__(
        self,
        connection: Any,
        store: StoreFiles,
        experiment: Experiment,
        study: Study,
        folders: list[Path],
        days: list[date],
    ) -> None:
        """Read the days that ``abtest.daily_state.update`` made.

        Args:
            connection: Of ``abtest.events.open_duckdb``.
            store: Its Parquet files.
            experiment: Its variants and metrics.
            study: The rules.
            folders: Of all days, those of the pre-period among them.
            days: That are looked at, from the start on.

        Raises:
            ValueError: The log would give misleading numbers: see ``abtest.funnel.check``; or
                moments without a zone.
        """
        self._connection = connection
        self._store = store
        self.study = study
        self.days = days
        self._check_zones()
        self.weights = {name: one.weight for name, one in experiment.variants.items()}
        read = [folder for folder in folders if folder.name[:10] <= days[-1].isoformat()]
        self._days = read_days(connection, read)
        shoppers = without_bots(self._days, study)
        # read many times: made once
        self._shoppers = Days(
            self._made("shopper_totals", connection.compile(shoppers.totals)),
            self._made("shopper_deeds", connection.compile(shoppers.deeds)),
            shoppers.bots,
        )
        self.seen = self._made("seen_users", connection.compile(seen_users(self._shoppers.totals)))
        everybody = user_rows(self.seen, self._shoppers, study)
        self.rows = self._made("kept_users", connection.compile(everybody))
        self.funnel = self._funnel(read)
        self.currencies = self._currencies()
        self.definitions = definitions(
            experiment,
            self.rows,
            has_pre=study.windows.pre_days > 0,
            currencies=self.currencies,
        )

    def counts(self) -> dict[str, int]:
        """Users of each variant."""
        rows = self.rows
        counted = rows.group_by("variant").aggregate(users=rows.count()).to_pyarrow().to_pylist()
        return {row["variant"]: int(row["users"]) for row in counted}

    def everybody(self) -> tuple[Arms, dict[str, str]]:
        """All users, with quantiles; and why a quantile could not be computed, by metric."""
        quantiles, refused = {}, {}
        for name, definition in self.definitions.items():
            if definition.probability is not None:
                try:
                    quantiles[name] = self._quantile(definition, definition.probability)
                except ValueError as error:
                    refused[name] = str(error)
        return Arms(self._arms(self.rows, self.definitions).aggregates, quantiles), refused

    def by_day(self, metrics: Collection[str]) -> dict[date, Arms]:
        """What was known at the end of each day on which every variant had users."""
        look = self._made("look", _look(day=self.days[-1]))
        days = over_time.until_day(self._shoppers, look.day.as_scalar())
        sql = self._connection.compile(user_rows(seen_users(days.totals), days, self.study))
        found = {}
        for day in self.days:
            self._made("look", _look(day=day))
            with contextlib.suppress(ValueError):
                found[day] = self._arms(self._made("users_then", sql), metrics)
        return found

    def by_days_since(self, metrics: Collection[str]) -> dict[int, Arms]:
        """What users did on their n-th day, of those who have been in for more than n days."""
        look = self._made("look", _look(n=0, last=self.days[-1]))
        days = over_time.nth_day(self._shoppers, self.seen, look.n.cast("int64").as_scalar())
        seen = self.seen.filter(self.seen.first_day <= look.last.as_scalar())
        sql = self._connection.compile(user_rows(seen, days, self.study))
        found = {}
        for n in range(min(len(self.days), over_time.MAX_SINCE)):
            self._made("look", _look(n=n, last=self.days[-1] - timedelta(days=n)))
            with contextlib.suppress(ValueError):
                found[n] = self._arms(self._made("users_then", sql), metrics)
        return found

    def parts(self, metrics: Collection[str]) -> dict[tuple[str, str], Arms]:
        """Users by application; nothing if there is one alone, which would be everybody."""
        rows = self.rows
        values = rows.select(_PART).distinct().order_by(_PART).to_pyarrow()[_PART].to_pylist()
        found = {}
        for value in values if len(values) > 1 else ():
            some = rows.filter(rows[_PART].isnull() if value is None else rows[_PART] == value)
            with contextlib.suppress(ValueError):
                found[_PART, "none" if value is None else value] = self._arms(some, metrics)
        return found

    def last_event_at(self) -> datetime:
        """Of these days."""
        log = read_log(self._connection, self._store, self.days)
        last: datetime = log.events.at.max().execute().to_pydatetime()
        return last.replace(tzinfo=UTC)

    def models(self) -> tuple[dict[str, dict[str, int]], int]:
        """Who answered each variant, and the newest experiment file that the log knows of."""
        table = scan(self._connection, self._store, "events", self.days)
        inside = table.event_attributes["experiment"]
        names = ("variant", "model_version", "config_version", "experiment_id", "phase")
        table = table.mutate(**{name: inside[name] for name in names})
        table = table.filter(
            table.action_name == "exposure",
            table.experiment_id == self.study.experiment_id,
            table.phase == self.study.phase,
        )
        found = table.group_by("variant", "model_version").aggregate(
            exposures=table.count(), config_version=table.config_version.max()
        )
        models: dict[str, dict[str, int]] = {}
        logged = 0
        for row in found.order_by("variant", "model_version").to_pyarrow().to_pylist():
            answered = models.setdefault(row["variant"], {})
            answered[row["model_version"] or "unknown"] = row["exposures"]
            logged = max(logged, row["config_version"] or 0)
        return models, logged

    def sha256(self) -> str:
        """Of the names and sizes of the store's files of these days."""
        sizes = [
            f"{file} {fact.size}"
            for table in ("events", "queries")
            for file, fact in self._store.facts(table, self.days).items()
        ]
        return hashlib.sha256("\n".join(sizes).encode()).hexdigest()

    def _check_zones(self) -> None:
        """Refuse files whose moments have no zone: beside others they would be taken for UTC."""
        found = self._store.of("events", self.study.windows.days)
        naive = self._connection.raw_sql(
            f"SELECT min(file_name), count(DISTINCT file_name) FROM parquet_schema({found}) "
            "WHERE name IN ('timestamp', 'received_at') "
            "AND logical_type NOT LIKE '%isAdjustedToUTC=1%'"
        ).fetchone()
        if naive[1]:
            raise ValueError(
                f"{naive[0]}: moments without a zone, and so in {naive[1]:,} of {len(found):,} "
                "files; want UTC"
            )

    def _made(self, name: str, sql: str) -> Any:
        """A table of the rows that a query has now."""
        self._connection.raw_sql(f"CREATE OR REPLACE TEMP TABLE {name} AS {sql}")
        return self._connection.table(name)

    def _arms(self, rows: Any, metrics: Collection[str]) -> Arms:
        """Aggregates of some of the users, of the columns that metrics need.

        Raises:
            ValueError: A variant has none of them.
        """
        sums = [name for name in metrics if self.definitions[name].probability is None]
        found = moments(rows, columns_of(sums, has_pre=self.study.windows.pre_days > 0))
        if missing := [variant for variant in self.weights if variant not in found]:
            raise ValueError(f"no users of {', '.join(missing)}")
        return Arms({variant: found[variant] for variant in self.weights})

    def _funnel(self, folders: list[Path]) -> Funnel:
        """What was dropped on the way; refuses a log that would give misleading numbers."""
        logs = [json.loads((folder / "counts.json").read_text()) for folder in folders]
        counts = tally(self._days, self._shoppers, self.seen, self.rows).to_pyarrow().to_pylist()
        tallied = Counter({name: int(count or 0) for name, count in counts[0].items()})
        known = {name for log in logs for name in log["experiments"]}
        # currencies are a gate: those of other users do no harm, and clicks can still be compared
        check(tallied, known, set(), self.study)
        duplicates, nobody = (
            sum(log[name] for log in logs) for name in ("duplicates", "without_client")
        )
        return funnel(tallied, duplicates, nobody)

    def _currencies(self) -> dict[str, int]:
        """Amounts of the users, by currency, the most frequent first."""
        deeds = self._shoppers.deeds
        money = deeds.filter(deeds.amount.notnull()).semi_join(self.rows, "client_id")
        currency = money.currency.fill_null(NO_CURRENCY)
        found = money.group_by(currency=currency).aggregate(amounts=money.count())
        rows = found.order_by([ibis.desc("amounts"), "currency"]).to_pyarrow().to_pylist()
        return {row["currency"]: int(row["amounts"]) for row in rows}

    def _quantile(self, definition: Definition, probability: float) -> dict[str, Estimate]:
        log = read_log(self._connection, self._store, self.days)
        found = latencies(log, self.rows, self.study, probability)
        below = Ratio(definition.numerator, definition.denominator)
        if missing := [variant for variant in self.weights if variant not in found]:
            raise ValueError(f"no queries of {', '.join(missing)}")
        return {
            variant: quantile_estimate(
                found[variant].arm, below, probability, found[variant].quantile
            )
            for variant in self.weights
        }


def definitions(
    experiment: Experiment, rows: Any, *, has_pre: bool, currencies: Collection[str] = ()
) -> dict[str, Definition]:
    """Primaries, guardrails, and what else the table of metrics has.

    Args:
        experiment: What is primary and what a guardrail.
        rows: User rows, for caps.
        has_pre: There is a pre-period for covariates.
        currencies: Of the amounts. Of several there is no sum: metrics in money are left out.

    Raises:
        ValueError: A metric that is unknown, or primary and guardrail at once.
    """
    if both := [name for name in experiment.primary if name in experiment.guardrails]:
        raise ValueError(f"metric {both[0]!r}: primary and guardrail at once, want one of them")
    roles: dict[str, Role] = dict.fromkeys(experiment.primary, "primary")
    roles.update(dict.fromkeys(experiment.guardrails, "guardrail"))
    # a quantile that nobody asked for is not worth reading the queries
    for name, one in METRICS.items():
        if one.quantile is None:
            roles.setdefault(name, "other")
    margins = {name: guardrail.margin for name, guardrail in experiment.guardrails.items()}
    currency = next(iter(currencies), NO_CURRENCY)
    return {
        name: definition(
            name, role, rows, margin=margins.get(name), has_pre=has_pre, currency=currency
        )
        for name, role in roles.items()
        if len(currencies) < 2 or not is_money(name)
    }


def is_money(name: str) -> bool:
    """Whether a metric is in units of a currency."""
    return metric(name).unit.startswith(_MONEY)


def definition(
    name: str,
    role: Role,
    rows: Any,
    *,
    margin: float | None = None,
    has_pre: bool = False,
    currency: str = NO_CURRENCY,
) -> Definition:
    """A metric of the table, as results have it.

    Raises:
        ValueError: There is none of that name.
    """
    one = metric(name)
    column = one.numerator.removesuffix("_capped")
    covariates = [f"{top}/{bottom}" if bottom else top for top, bottom in one.covariates]
    return Definition(
        role=role,
        numerator=one.numerator,
        denominator=one.denominator,
        scale=one.scale,
        cap=None if column == one.numerator else cap(rows, column),
        probability=one.quantile,
        unit=one.unit if currency == NO_CURRENCY else one.unit.replace(_MONEY, currency),
        is_higher_better=one.better == "higher",
        text=one.definition,
        margin=margin,
        covariates=tuple(covariates) if has_pre else (),
    )


def _look(**values: int | date) -> str:
    """One row: what a query looks at, so that it is written once."""
    cells = [
        f"DATE '{v}' AS {n}" if isinstance(v, date) else f"{v} AS {n}" for n, v in values.items()
    ]
    return f"SELECT {', '.join(cells)}"


def read_days(connection: Any, folders: list[Path]) -> Days:
    """All clients of some days that ``abtest.daily_state.update`` made."""

    def table(name: str) -> Any:
        found = [file for part in range(PARTS) for file in part_of(folders, name, part)]
        return connection.read_parquet(list(dict.fromkeys(found)), hive_partitioning=False)

    bots = connection.read_parquet([str(folder / "bots.parquet") for folder in folders])
    return Days(table("totals"), table("deeds"), bots.distinct())
