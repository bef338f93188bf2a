"""User rows of a whole log at once, on any engine of Ibis: no days, no state.

Nearly every client is plain: exposed before all that it did, and no bot. Its totals need no look
at the first exposure, so that they are one pass over the log. The others are found on that pass and
go the long way of ``abtest.user_days``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from abtest.events import Log, Study, naive, near, read_log
from abtest.funnel import check_numbers
from abtest.store_files import StoreFiles
from abtest.user_days import (
    COUNTED,
    Days,
    day_bots,
    day_deeds,
    day_rows,
    day_totals,
    deeds_of,
    repeated,
    shown_in,
    unique,
)
from abtest.user_rows import (
    COUNTS,
    FACTS,
    PRE_COUNTS,
    PRE_FACTS,
    USER_COLUMNS,
    facts_of,
    known_bots,
    seen_users,
    summed,
    user_rows,
    without_bots,
)

_ALWAYS = ("client_id", "variant")
_OF_QUERIES = ("queries", "zero_result_queries")


def user_rows_at_once(
    connection: Any,
    store: str | Path,
    scratch: Path,
    study: Study,
    columns: Iterable[str] = USER_COLUMNS,
) -> Any:
    """The rows of ``abtest.user_table``, without what was dropped.

    What several steps read is written between them, for an engine that knows no named results
    would make it again for each.

    Args:
        connection: Of Ibis, in UTC.
        store: Directory or URL of the Parquet files.
        scratch: New directory for what is between.
        study: The rules.
        columns: That are wanted; each costs time and memory. The client and its variant come
            always.

    Raises:
        FileNotFoundError: The store has no events in the windows.
        ValueError: Clients that have the same number.
    """
    names = list(dict.fromkeys((*_ALWAYS, *columns)))

    def written(name: str, made: Any) -> Any:
        connection.to_parquet(made, str(scratch / name))
        return connection.read_parquet(str(scratch / name))

    scratch.mkdir(parents=True)
    files = StoreFiles(store)
    log = read_log(connection, files, study.windows.days)
    if not set(_OF_QUERIES).intersection(names):
        log = log._replace(queries=None)
    # to look takes as long as all else
    is_distinct = files.is_distinct(near(study.windows.days))
    if not is_distinct and repeated(log.events).count().execute():
        rows = written("rows", day_rows(Log(unique(log.events), log.queries), study))
    else:
        rows = day_rows(log, study)
    deeds = written("deeds", day_deeds(written("done", deeds_of(rows)), shown_in(rows), study))
    found = written("found", _plain(rows, deeds, study, names))
    check_numbers(int(found.filter(found.is_shared).count().execute()))
    others = found.filter(found.is_other).select("client_id")
    plain = found.filter(~found.is_other).drop("is_other", "is_shared")
    if not others.count().execute():
        return plain
    # what these are for is in the deeds, and ids are long to read
    rows = rows.drop("query_id", "item_id", "order_id", "amount", "currency")
    rows = written("other_rows", rows.semi_join(written("others", others), "client_id"))
    totals = written("totals", day_totals(rows))
    days = Days(totals, deeds.semi_join(others, "client_id"), day_bots(totals, rows, study))
    shoppers = without_bots(days, study)
    seen = written("seen", seen_users(shoppers.totals))
    exact = user_rows(seen, shoppers, study).select(*names)
    return plain.union(exact.cast(plain.schema()))


def _plain(rows: Any, deeds: Any, study: Study, names: list[str]) -> Any:
    """Users as if all were plain, and which are not.

    Only what is asked for is summed: each sum over all rows is a tenth of the time.
    """
    rows = rows.filter(rows.client_id.notnull())
    is_now, is_before = rows.is_kept & ~rows.is_pre, rows.is_kept & rows.is_pre
    is_met, application = rows.is_met, rows.application
    totals = {
        "n_rows": rows.count(),
        "is_shared": rows.client_check.min() != rows.client_check.max(),
        "first_exposure_at": rows.at.min(where=is_met),
        "first_at": rows.at.min(where=is_now),
        "variant": rows.variant.min(where=is_met),
        "last_variant": rows.variant.max(where=is_met),
        "forced": rows.count(where=is_met & rows.is_forced),
    }
    if "application" in names:
        totals["application"] = application.min(where=is_met)
        totals["last_application"] = application.max(where=is_met)
        totals["applications"] = application.count(where=is_met)
    if "exposures" in names or "application" in names:
        totals["exposures"] = rows.count(where=is_met)
    if "fallbacks" in names:
        totals["fallbacks"] = rows.count(where=is_met & rows.is_fallback)
    for name in COUNTS:
        if name in names:
            totals[name] = rows.count(where=is_now & rows.action.isin(COUNTED[name]))
    for name in PRE_COUNTS:
        if f"pre_{name}" in names:
            totals[f"pre_{name}"] = rows.count(where=is_before & rows.action.isin(COUNTED[name]))
    if "was_there" in names:
        totals["was_there"] = rows.count(where=is_before & rows.is_event)
    clients = rows.group_by("client_id").aggregate(**totals)
    is_one = (clients.variant == clients.last_variant).fill_null(True)
    is_user = (clients.forced == 0) & is_one
    clients = clients.filter(clients.first_exposure_at.notnull(), is_user | clients.is_shared)
    if known := known_bots(clients, study):
        clients = clients.filter(clients.client_id.notin(known))
    # a bot has that many
    is_other = clients.n_rows > min(study.bots.max_a_minute, study.bots.max_a_day)
    is_other |= clients.first_at < clients.first_exposure_at
    if "application" in names:
        is_one = (clients.application == clients.last_application).fill_null(True)
        is_other |= ~is_one | ~clients.applications.isin((0, clients.exposures))
    clients = clients.mutate(is_other=is_other)
    if "was_there" in names:
        clients = clients.mutate(was_there=(clients.was_there > 0).cast("int64"))
    joined = clients.left_join(_facts_of_clients(deeds, study, names), "client_id")
    facts = {*FACTS, *(f"pre_{name}" for name in PRE_FACTS)}
    sums = {name: joined[name].fill_null(0) for name in names if name in facts}
    kept = (name for name in names if name not in facts)
    return joined.select(*kept, "is_other", "is_shared", **sums)


def _facts_of_clients(deeds: Any, study: Study, names: list[str]) -> Any:
    """Sums of what clients of whom all counts did."""
    facts = facts_of(deeds, study)
    # an impression of the pre-period is none after the first exposure
    is_now = ~facts.is_pre & (facts.since >= naive(study.windows.start))
    sums = {name: summed(facts[name], is_now) for name in FACTS}
    sums |= {f"pre_{name}": summed(facts[name], facts.is_pre) for name in PRE_FACTS}
    return facts.group_by("client_id").aggregate(
        **{name: value for name, value in sums.items() if name in names}
    )
