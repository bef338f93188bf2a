"""The rules that look at one day: what each client did, and which clicks follow an impression.

A user's events count from its first exposure on, which may be on an earlier day than the one
looked at. So totals of a day come twice: of all of it, and since the client's first exposure of
that day. Whoever knows the day of the first exposure of all takes the second there, the first
after it and neither before. Clicks, orders and payments are few and stay rows.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

import ibis

from abtest.events import Log, Study, naive

QUERIES = ("query", "zero_result_query")
COUNTED = {
    "impressions": ("impression",),
    "clicks": ("click",),
    "carts": ("add_to_cart",),
    "contacts": ("contact_supplier",),
    "queries": QUERIES,
    "zero_result_queries": ("zero_result_query",),
}
"""Totals of a client and day, and the actions that they count; each comes with ``_since`` too."""
MONEY = ("order", "pay", "refund")
_MOMENT = "timestamp(6)"


class Days(NamedTuple):
    """Any number of days, as tables."""

    totals: Any
    """A row for each client, day and side of the start."""
    deeds: Any
    """Clicks that follow an impression, orders, payments, refunds. ``since`` is the moment that
    a user's first exposure must not be after; ``copies`` are clicks of one moment on one thing."""
    bots: Any
    """Clients with too many events."""


def day_rows(log: Log, study: Study) -> Any:
    """Events and queries of any days, with what rules 3 and 4 say of each.

    What they drop stays, to be counted.
    """
    rows = _with_queries(log)
    windows = study.windows
    is_late = rows.received_at > naive(windows.end) + timedelta(days=windows.late_days)
    is_kept = ~is_late & (rows.at >= naive(windows.first)) & (rows.at < naive(windows.end))
    is_met = (
        is_kept
        & (rows.at >= naive(windows.start))
        & (rows.action == "exposure")
        & (rows.experiment_id == study.experiment_id)
        & (rows.phase == study.phase)
    )
    names = ["client_id", "client_check", "action", "at", "application", "query_id", "item_id"]
    names += ["variant", "is_fallback", "is_forced", "order_id", "amount", "currency"]
    return rows.select(
        *names,
        day=rows.at.date(),
        is_pre=rows.at < naive(windows.start),
        is_late=is_late,
        is_kept=is_kept,
        is_met=is_met.fill_null(False),
        is_event=~rows.action.isin(QUERIES),
    )


def repeated(events: Any) -> Any:
    """Ids that several rows have, and how many do."""
    copies = events.group_by("event_id").aggregate(copies=events.count())
    return copies.filter(copies.copies > 1)


def unique(events: Any) -> Any:
    """Rule 1: one row an event id, the first received."""
    copies = repeated(events)
    again = events.semi_join(copies, "event_id")
    place = ibis.row_number().over(group_by="event_id", order_by=["received_at", "at"])
    first = again.mutate(place=place)
    first = first.filter(first.place == 0).drop("place")
    return events.anti_join(copies, "event_id").union(first)


def _with_queries(log: Log) -> Any:
    """Queries as events of two sorts of their own."""
    events, queries = log
    if queries is None:
        return events
    known = {
        "at": queries.at,
        "received_at": queries.at,
        "client_id": queries.client_id,
        "client_check": queries.client_check,
        "action": ibis.ifelse(queries.n_items == 0, "zero_result_query", "query"),
    }
    columns = {
        name: known.get(name, ibis.null().cast(type_)) for name, type_ in events.schema().items()
    }
    return events.union(queries.select(**columns))


def day_totals(rows: Any) -> Any:
    """Counts of each client, of whole days and since its first exposure of the day."""
    rows = rows.filter(rows.client_id.notnull())
    exposures = rows.filter(rows.is_met & ~rows.is_forced)
    first = exposures.group_by("client_id", "day").aggregate(first=exposures.at.min())
    joined = rows.left_join(first, ["client_id", "day"])
    joined = joined.mutate(counts=joined.is_kept & (joined.at >= joined["first"]))
    met = joined.is_met & ~joined.is_forced
    totals = {
        "check": joined.client_check.min(),
        "last_check": joined.client_check.max(),
        "rows": joined.count(where=joined.is_event),
        "late": joined.count(where=joined.is_event & joined.is_late),
        "kept": joined.count(where=joined.is_event & joined.is_kept),
        "kept_since": joined.count(where=joined.is_event & joined.counts),
        "first": joined["first"].max(),
        "application": joined.application.min(where=met & (joined.at == joined["first"])),
        "variant": joined.variant.min(where=met),
        "last_variant": joined.variant.max(where=met),
        "exposures": joined.count(where=met),
        "fallbacks": joined.count(where=met & joined.is_fallback),
        "forced": joined.count(where=joined.is_met & joined.is_forced),
    }
    for name, actions in COUNTED.items():
        is_it = joined.action.isin(actions)
        totals[name] = joined.count(where=joined.is_kept & is_it)
        totals[f"{name}_since"] = joined.count(where=joined.counts & is_it)
    return joined.group_by("client_id", "day", "is_pre").aggregate(**totals)


def deeds_of(rows: Any) -> Any:
    """Clicks and what is about money, of ``day_rows``."""
    wanted = rows.filter(rows.is_kept, rows.action.isin(("click", *MONEY)))
    names = ("client_id", "at", "is_pre", "query_id", "item_id", "action")
    return wanted.select(*names, "order_id", "amount", "currency")


def shown_in(rows: Any) -> Any:
    """Impressions, of ``day_rows``."""
    shown = rows.filter(rows.is_kept, rows.action == "impression")
    return shown.select("client_id", "query_id", "item_id", shown_at="at")


def day_deeds(done: Any, shown: Any, study: Study) -> Any:
    """Clicks with the moment of their impression (rule 9), and what is about money.

    Args:
        done: Of ``deeds_of``, of whole days, one row an event.
        shown: Of ``shown_in``, of these days and of the minutes before them in a click's reach.
        study: The rules.
    """
    keys = ["client_id", "query_id", "item_id"]
    columns = ["client_id", "at", "is_pre", "query_id", "item_id"]
    clicks = done.filter(done.action == "click")
    # those of one moment follow the same impression
    clicks = clicks.group_by(columns).aggregate(copies=clicks.count())
    reach = ibis.interval(microseconds=round(study.windows.click_minutes * 60e6))
    pairs = clicks.inner_join(
        shown,
        [
            *keys,
            shown.shown_at <= clicks.at,
            shown.shown_at >= clicks.at - reach,
        ],
    )
    followed = pairs.group_by(*columns, "copies").aggregate(
        since=pairs.shown_at.max().cast(_MOMENT)
    )
    nothing = ibis.null()
    followed = followed.mutate(
        action=ibis.literal("click"),
        order_id=nothing.cast(done.order_id.type()),
        amount=nothing.cast("float64"),
        currency=nothing.cast("string"),
    )
    money = done.filter(done.action != "click")
    money = money.mutate(since=money.at.cast(_MOMENT), copies=ibis.literal(1, "int64"))
    names = ["action", *columns, "copies", "since", "order_id", "amount", "currency"]
    return followed.select(*names).union(money.select(*names))


def day_bots(totals: Any, rows: Any, study: Study) -> Any:
    """Rule 2: clients with more events in a day or a minute than a shopper makes."""
    bots = study.bots
    # the two sides of the start are one day
    events = totals.group_by("client_id", "day").aggregate(rows=totals["rows"].sum())
    busy = events.filter(events["rows"] > bots.max_a_day).select("client_id")
    # few have enough in a day to have too many in a minute
    some = events.filter(events["rows"] > bots.max_a_minute).select("client_id", "day")
    some = rows.filter(rows.is_event).semi_join(some, ["client_id", "day"])
    minutes = some.group_by("client_id", minute=some.at.truncate("m")).aggregate(n=some.count())
    quick = minutes.filter(minutes.n > bots.max_a_minute).select("client_id")
    return busy.union(quick, distinct=True)
