"""What became of every row of the log, and what is wrong with the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from abtest.events import Study
from abtest.user_days import Days
from abtest.user_rows import counted

MAX_CROSSOVER = 0.01
"""Share of users in more than one variant above which something is broken."""
MIN_DAYS = 7
"""A week has two kinds of days."""


class Funnel(NamedTuple):
    """Counts, in the order in which the rules drop."""

    rows: Mapping[str, int]
    """``read``, then each reason, then ``kept``; reasons and ``kept`` add up to ``read``."""
    users: Mapping[str, int]
    """``bots``, ``exposed``, ``forced``, ``crossover``, ``kept``."""

    @property
    def crossover_share(self) -> float:
        """Of exposed users who were not forced."""
        own = self.users["exposed"] - self.users["forced"]
        return self.users["crossover"] / own if own else 0.0


def tally(days: Days, shoppers: Days, seen: Any, rows: Any) -> Any:
    """Counts of some clients, all their rows included: one row, to be added to others.

    Args:
        days: With bots.
        shoppers: Without.
        seen: Of ``seen_users``.
        rows: Of ``user_rows``.
    """
    joined = shoppers.totals.left_join(seen, "client_id")
    is_seen, is_forced = joined.is_forced.notnull(), joined.is_forced.fill_null(False)
    is_crossed = is_seen & ~is_forced & joined.is_crossover.fill_null(False)
    is_mine = is_seen & ~is_forced & ~is_crossed
    kept, total = joined.kept, joined["rows"]
    dropped = joined.aggregate(
        shoppers=total.sum(),
        late=joined.late.sum(),
        outside=(total - joined.late - kept).sum(),
        not_exposed=kept.sum(where=~is_seen),
        forced=kept.sum(where=is_forced),
        crossover=kept.sum(where=is_crossed),
        pre_period=kept.sum(where=is_mine & joined.is_pre),
        mine=kept.sum(where=is_mine & ~joined.is_pre),
        counted=counted(joined, "kept").sum(where=is_mine),
        all_clicks=counted(joined, "clicks").sum(where=is_mine),
        shopper_clients=joined.client_id.nunique(),
    )
    money = days.deeds.filter(days.deeds.action != "click")
    # comparisons with NaN hold on one engine and fail on another
    is_odd = money.amount.isnan() | money.amount.isinf() | money.amount.isnull()
    clients = days.totals.group_by("client_id").aggregate(
        rows=days.totals["rows"].sum(),
        is_shared=days.totals.check.min() != days.totals.last_check.max(),
    )
    tables = [
        clients.aggregate(
            clients=clients.count(),
            with_client=clients["rows"].sum(),
            shared_numbers=clients.count(where=clients.is_shared),
        ),
        seen.aggregate(
            exposed_users=seen.count(),
            forced_users=seen.count(where=seen.is_forced),
            crossover_users=seen.count(where=seen.is_crossover & ~seen.is_forced),
        ),
        rows.aggregate(impressions=rows.impressions.sum(), clicks=rows.clicks.sum()),
        money.aggregate(
            bad_pay=money.count(where=(money.action == "pay") & (is_odd | (money.amount < 0))),
            bad_refund=money.count(
                where=(money.action == "refund") & (is_odd | (money.amount > 0))
            ),
        ),
    ]
    for table in tables:
        dropped = dropped.cross_join(table)
    return dropped


def check(tallied: Counter[str], experiments: set[str], currencies: set[str], study: Study) -> None:
    """Refuse a log that would give misleading numbers.

    Raises:
        ValueError: Clients that have the same number, no exposure to this phase of the
            experiment, amounts in several currencies, or an amount that has the wrong sign, is
            infinite or missing.
    """
    check_numbers(tallied["shared_numbers"])
    met = f"{study.experiment_id}/{study.phase}"
    if met not in experiments:
        known = ", ".join(sorted(experiments)) or "none"
        raise ValueError(f"experiment {met}: no exposures in the log, which has {known}")
    if len(currencies) > 1:
        raise ValueError(f"amounts in {', '.join(sorted(currencies))}: want one currency")
    for action, want in (("pay", "0 or more"), ("refund", "0 or less")):
        if bad := tallied[f"bad_{action}"]:
            raise ValueError(f"{bad:,} amounts of {action}: want finite numbers, {want}")


def check_numbers(shared: int) -> None:
    """Refuse a log in which two clients would be one user.

    Raises:
        ValueError: Some number stands for several clients.
    """
    if shared:
        raise ValueError(
            f"client ids: {shared:,} of their numbers of 64 bits stand for two clients or more, "
            "want none: these users cannot be told apart"
        )


def funnel(tallied: Counter[str], duplicates: int, without_client: int) -> Funnel:
    """Counts of all clients as a funnel."""
    dropped = {
        "duplicate": duplicates,
        "without_client": without_client,
        "bot": tallied["with_client"] - tallied["shoppers"],
        "late": tallied["late"],
        "outside": tallied["outside"],
        "not_exposed": tallied["not_exposed"],
        "forced": tallied["forced"],
        "crossover": tallied["crossover"],
        "pre_period": tallied["pre_period"],
        "before_exposure": tallied["mine"] - tallied["counted"],
        "click_without_impression": tallied["all_clicks"] - tallied["clicks"],
    }
    read = duplicates + without_client + tallied["with_client"]
    exposed, forced, crossover = (
        tallied[f"{name}_users"] for name in ("exposed", "forced", "crossover")
    )
    users = {
        "bots": tallied["clients"] - tallied["shopper_clients"],
        "exposed": exposed,
        "forced": forced,
        "crossover": crossover,
        "kept": exposed - forced - crossover,
    }
    return Funnel({"read": read, **dropped, "kept": read - sum(dropped.values())}, users)


def findings(found: Funnel, tallied: Counter[str], variants: list[str], study: Study) -> list[str]:
    """What a reader of the result should know."""
    said = []
    days = (study.windows.end - study.windows.start).days
    if days < MIN_DAYS:
        said.append(f"{days} full days, want {MIN_DAYS} or more: weekdays differ")
    if found.crossover_share > MAX_CROSSOVER:
        share = f"{found.crossover_share:.2%} of users met more than one variant"
        said.append(f"{share}, want {MAX_CROSSOVER:.0%} or less")
    if len(variants) < 2:
        names = ", ".join(variants) or "none"
        said.append(f"users of {len(variants)} variants ({names}), want 2 or more")
    said += [
        f"no {n} of any user in the study" for n in ("impressions", "clicks") if not tallied[n]
    ]
    return said
