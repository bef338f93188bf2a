"""One row for each exposed user, out of what each did a day.

What users did is joined to exposures, or users who did nothing would be lost. There is one join
for all of it: with five million users it is what takes the time.
"""

from __future__ import annotations

from typing import Any

import ibis

from abtest.events import Study, hashed
from abtest.user_days import COUNTED, Days

COUNTS = tuple(name for name in COUNTED if name != "clicks")
FACTS = (
    *("clicks", "clicked_impressions", "orders", "attributed_orders"),
    *("amount", "attributed_amount", "refunds"),
)
"""Sums of rows that each have a moment ``since``, which the first exposure must not be after."""
PRE_COUNTS = ("impressions", "carts", "contacts")
PRE_FACTS = ("clicks", "orders", "amount")
"""Sums that also come of the pre-period, as ``pre_clicks`` and so on."""
USER_COLUMNS = frozenset(
    {
        *("client_id", "variant", "first_exposure_at", "application", "exposures", "fallbacks"),
        *(*COUNTS, *FACTS, "was_there"),
        *(f"pre_{name}" for name in (*PRE_COUNTS, *PRE_FACTS)),
    }
)


def without_bots(days: Days, study: Study) -> Days:
    """Rule 2."""
    totals, deeds = (t.anti_join(days.bots, "client_id") for t in (days.totals, days.deeds))
    if known := known_bots(totals, study):
        totals, deeds = (t.filter(t.client_id.notin(known)) for t in (totals, deeds))
    return Days(totals, deeds, days.bots)


def known_bots(table: Any, study: Study) -> list[Any]:
    """Clients that are named, as numbers of the engine that a table is of."""
    engine = table.get_backend().name
    return [hashed(ibis.literal(client_id), engine) for client_id in sorted(study.bots.client_ids)]


def seen_users(totals: Any) -> Any:
    """Rules 5 and 6: each exposed user, when, to what, and whether it is left out."""
    met = totals.filter((totals.exposures > 0) | (totals.forced > 0))
    seen = met.group_by("client_id").aggregate(
        first_exposure_at=met["first"].min(),
        variant=met.variant.min(),
        last_variant=met.last_variant.max(),
        is_forced=(met.forced > 0).any(),
    )
    return seen.mutate(
        first_day=seen.first_exposure_at.date(),
        is_crossover=(seen.variant != seen.last_variant).fill_null(False),
    ).drop("last_variant")


def user_rows(seen: Any, days: Days, study: Study) -> Any:
    """Rules 7, 8 and 10 to 13: a row for each exposed user who is looked at.

    Args:
        seen: Of ``seen_users``.
        days: Without bots.
        study: The rules.
    """
    kept = seen.filter(~seen.is_forced & ~seen.is_crossover)
    kept = kept.select("client_id", "variant", "first_exposure_at", "first_day")
    did = _side_by_side(days.totals.drop("variant"), facts_of(days.deeds, study))
    rows = kept.inner_join(did, "client_id")
    is_fact = rows.since.notnull()
    is_first = ~rows.is_pre & (rows.day == rows.first_day)
    counts = is_fact & ~rows.is_pre & (rows.since >= rows.first_exposure_at)
    is_pre_fact = is_fact & rows.is_pre
    return rows.group_by("client_id").aggregate(
        variant=rows.variant.arbitrary(),
        first_exposure_at=rows.first_exposure_at.arbitrary(),
        application=rows.application.min(where=is_first),
        exposures=summed(rows.exposures),
        fallbacks=summed(rows.fallbacks),
        **{name: summed(counted(rows, name)) for name in COUNTS},
        **{name: summed(rows[name], counts) for name in FACTS},
        **{f"pre_{name}": summed(rows[name], rows.is_pre) for name in PRE_COUNTS},
        **{f"pre_{name}": summed(rows[name], is_pre_fact) for name in PRE_FACTS},
        was_there=(rows.is_pre & (rows.kept > 0)).any().fill_null(False).cast("int64"),
    )


def counted(rows: Any, name: str) -> Any:
    """Rule 7: a total of a client and day, as far as it is of after the first exposure."""
    is_later = ~rows.is_pre & (rows.day > rows.first_day)
    is_first = ~rows.is_pre & (rows.day == rows.first_day)
    since = ibis.ifelse(is_first, rows[f"{name}_since"], 0)
    return ibis.ifelse(is_later, rows[name], since)


def facts_of(deeds: Any, study: Study) -> Any:
    """Clicks, orders and money, each with the moment ``since``; none asks for the exposure."""
    clicks = deeds.filter(deeds.action == "click")
    impressions = clicks.group_by("client_id", "query_id", "item_id", "since", "is_pre").aggregate(
        clicks=clicks.copies.sum(), clicked_impressions=ibis.literal(1, "int64")
    )
    orders = _orders(deeds, clicks, study)
    paid = orders.group_by("client_id", "order_id").aggregate(attributed=orders.attributed.max())
    money = deeds.filter(deeds.action.isin(("pay", "refund")))
    money = money.left_join(paid, ["client_id", "order_id"])
    # somebody may pay before the order is logged, or before the exposure
    money = money.mutate(
        attributed=ibis.ifelse(money.attributed > money.at, money.at, money.attributed)
    )
    is_pay = money.action == "pay"
    return _side_by_side(
        impressions.drop("query_id", "item_id"),
        orders.select("client_id", "is_pre", since="at", orders=ibis.literal(1, "int64")),
        _attributed(orders, attributed_orders=ibis.literal(1, "int64")),
        money.select(
            "client_id",
            "is_pre",
            since="at",
            amount=ibis.ifelse(is_pay, money.amount, 0.0),
            refunds=ibis.ifelse(is_pay, 0.0, money.amount),
        ),
        _attributed(money.filter(is_pay), attributed_amount=money.amount),
    )


def _attributed(rows: Any, **values: Any) -> Any:
    found = rows.filter(rows.attributed.notnull())
    return found.select("client_id", "is_pre", since="attributed", **values)


def _orders(deeds: Any, clicks: Any, study: Study) -> Any:
    """Rule 11: orders, and the latest impression that led to a click that led to each."""
    reach = ibis.interval(microseconds=round(study.windows.order_hours * 3_600e6))
    # those of one moment follow the same click
    keys = ["client_id", "item_id", "at"]
    orders = deeds.filter(deeds.action == "order")
    clicks = clicks.select("client_id", "item_id", clicked_at="at", shown_at="since")
    led = orders.select(*keys).inner_join(
        clicks,
        [
            "client_id",
            "item_id",
            clicks.clicked_at <= orders.at,
            clicks.clicked_at >= orders.at - reach,
        ],
    )
    led = led.group_by(keys).aggregate(attributed=led.shown_at.max())
    return orders.left_join(led, keys).select(*orders.columns, "attributed")


def _side_by_side(*tables: Any) -> Any:
    """Rows of all tables, null where one lacks a column."""
    types = {name: type_ for table in tables for name, type_ in table.schema().items()}
    nulls = {name: ibis.null().cast(type_) for name, type_ in types.items()}
    full = [
        table.select(**{n: table[n] if n in table.columns else nulls[n] for n in types})
        for table in tables
    ]
    return ibis.union(*full)


def summed(values: Any, where: Any = None) -> Any:
    """A sum, 0 of nothing."""
    # DuckDB's sums of whole numbers have 128 bits
    total = values.sum(where=where).fill_null(0)
    return total.cast("int64") if values.type().is_integer() else total
