"""``querylift ab plan`` and ``simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from querylift.commands.analysis import (
    AsJson,
    CupedColumns,
    Metric,
    UnitColumn,
    UsersFile,
    number,
    numbers,
    pairs,
    table_of,
    write_new,
)
from querylift.commands.log_options import Events, bar

if TYPE_CHECKING:
    from abtest.log_history import History
    from abtest.stats import Estimate

Days = Annotated[
    int,
    typer.Option(
        help="Of --events: how many of the last days, as many as the experiment is to have.", min=1
    ),
]
EarlierDays = Annotated[
    int,
    typer.Option(
        "--pre-days", help="Of --events: days before that CUPED learns from; 0: no CUPED.", min=0
    ),
]


def plan(
    users: UsersFile = None,
    events: Events = None,
    metric: Metric = None,
    cuped: CupedColumns = None,
    days: Days = 14,
    pre_days: EarlierDays = 0,
    mean: Annotated[
        float | None, typer.Option(help="Instead of a table: mean of a user's total.")
    ] = None,
    sd: Annotated[
        float | None, typer.Option(help="Standard deviation of it between users.")
    ] = None,
    denominator_mean: Annotated[
        float | None, typer.Option(help="Of a ratio: mean of a user's denominator.")
    ] = None,
    denominator_sd: Annotated[float | None, typer.Option(help="Its standard deviation.")] = None,
    correlation: Annotated[
        float | None, typer.Option(help="Of numerator and denominator between users.")
    ] = None,
    effect: Annotated[
        float | None, typer.Option(help="Relative effect to find, as 0.02.", metavar="EFFECT")
    ] = None,
    users_by_day: Annotated[
        str | None,
        typer.Option(
            help="New users on each day, as 9000,7000,6000: gives days and the effect by day.",
            metavar="COUNTS",
        ),
    ] = None,
    power: Annotated[
        float, typer.Option(help="Chance to find the effect.", min=0.01, max=0.999)
    ] = 0.8,
    alpha: Annotated[float, typer.Option(help="Two-sided.", min=1e-6, max=0.5)] = 0.05,
    share: Annotated[
        float, typer.Option(help="Of users in the treatment.", min=0.001, max=0.999)
    ] = 0.5,
    comparisons: Annotated[
        int, typer.Option(help="Primary metrics times treatments, which share alpha.", min=1)
    ] = 1,
    looks: Annotated[int, typer.Option(help="Planned looks.", min=1, max=60)] = 1,
    svg: Annotated[
        Path | None,
        typer.Option(help="Draw the smallest effect by day into this new file.", metavar="FILE"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell how many users and days an effect needs, or what effect a day can find."""
    import json

    from abtest.aggregates import Aggregates
    from abtest.plan_plot import plan_svg
    from abtest.planning import Setup, plans
    from abtest.planning import plan as plan_one
    from querylift.commands.analysis_text import plans_text

    setup = Setup((1 - share, share), alpha, power, comparisons, looks)
    curve = numbers("--users-by-day", users_by_day)
    if mean is not None:
        if users is not None or events is not None:
            raise ValueError("want --mean and --sd, or --users FILE, or --events URL; not two")
        typed = _typed_in(mean, sd, denominator_mean, denominator_sd, correlation)
        found = [plan_one("metric", typed, setup, effect, curve)]
    else:
        past = _history(users, events, metric, cuped, days, pre_days)
        everybody = Aggregates.from_arrays(past.columns)
        found = [
            one
            for name, definition in past.definitions.items()
            for one in plans(
                everybody, name, definition, setup, effect, curve or past.new_users_by_day
            )
        ]
    if svg is not None:
        write_new(svg, plan_svg(found))
    if as_json:
        rows = [{**one._asdict(), "by_day": [day._asdict() for day in one.by_day]} for one in found]
        print(json.dumps(rows, indent=2))
    else:
        print(plans_text(found))


def simulate(
    users: UsersFile = None,
    events: Events = None,
    metric: Metric = None,
    cuped: CupedColumns = None,
    days: Days = 14,
    pre_days: EarlierDays = 0,
    effect: Annotated[
        list[str] | None,
        typer.Option(
            help="Relative effect to inject, as ctr=0.02: the rate is then the power. Repeatable.",
            metavar="METRIC=EFFECT",
        ),
    ] = None,
    runs: Annotated[int, typer.Option(help="Times that users are dealt to arms.", min=1)] = 4_000,
    share: Annotated[
        float, typer.Option(help="Of users in the treatment.", min=0.001, max=0.999)
    ] = 0.5,
    alpha: Annotated[float, typer.Option(help="Of each test.", min=1e-6, max=0.5)] = 0.05,
    seed: Annotated[int, typer.Option(help="Of the deals.", min=0)] = 0,
    unit_column: UnitColumn = None,
    as_json: AsJson = False,
) -> None:
    """Deal a log's users to two arms thousands of times and count how often a metric rejects."""
    import json

    from abtest.deals import Deals
    from abtest.simulate import simulate as deal
    from querylift.commands.analysis_text import rates_text

    effects = {name: number("--effect", text) for name, text in pairs("--effect", effect or ())}
    found = _history(users, events, metric, cuped, days, pre_days, unit_column)
    deals = Deals(runs, share, alpha, seed)
    with bar("deals") as advance:
        rates = deal(found.columns, found.definitions, deals, effects, advance)
    if as_json:
        print(json.dumps([rate._asdict() for rate in rates], indent=2))
    else:
        print(rates_text(rates, deals.alpha))


def _history(
    users: UsersFile,
    events: Events,
    metric: Metric,
    cuped: CupedColumns,
    days: int,
    pre_days: int,
    unit_column: str | None = None,
) -> History:
    """Users of a table, or of the last days of a store."""
    from abtest.log_history import History, history

    if (users is None) == (events is None):
        raise ValueError("want --users FILE or --events URL")
    if events is not None:
        if cuped:
            raise ValueError("--cuped is for --users; with --events give --pre-days")
        with bar("days") as advance:
            return history(
                events, metric or ("ctr", "cvr", "pay"), days, pre_days=pre_days, advance=advance
            )
    assert users is not None
    from abtest.analysis import definitions_of
    from abtest.user_file import read_users, with_known

    definitions = definitions_of(table_of(users, metric, cuped))
    table = read_users(users, definitions, unit_column=unit_column)
    return History(dict(table.columns), with_known(definitions, table), ())


def _typed_in(
    mean: float | None,
    sd: float | None,
    denominator_mean: float | None,
    denominator_sd: float | None,
    correlation: float | None,
) -> Estimate:
    from abtest.planning import ratio_variance
    from abtest.stats import Estimate

    if mean is None or sd is None or sd < 0:
        raise ValueError("--mean wants --sd beside it, 0 or more")
    if denominator_mean is None:
        return Estimate(mean, sd**2, 2)
    if denominator_sd is None or correlation is None:
        raise ValueError("--denominator-mean wants --denominator-sd and --correlation beside it")
    return ratio_variance(mean, sd, denominator_mean, denominator_sd, correlation)
