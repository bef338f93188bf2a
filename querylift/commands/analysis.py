"""``querylift ab analyze``, ``plan`` and ``simulate``."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from querylift.commands.ab import instant
from relevance.errors import Finding

if TYPE_CHECKING:
    from abtest.analysis import Table
    from abtest.log_history import History
    from abtest.stats import Estimate

ExperimentFile = Annotated[
    Path | None, typer.Option(help="Experiment file; with --events.", metavar="FILE")
]
Name = Annotated[
    str | None,
    typer.Option(help="Which experiment of the file; needed if it has several.", metavar="NAME"),
]
Events = Annotated[
    Path | None, typer.Option(help="Store, as `events compact` makes it.", metavar="DIR")
]
UsersFile = Annotated[
    Path | None,
    typer.Option(help="Table of one row a user instead, .parquet or .csv.", metavar="FILE"),
]
Metric = Annotated[
    list[str] | None,
    typer.Option(
        help="Of --users: NAME=COLUMN, a mean per user, or NAME=COLUMN/COLUMN, a ratio of sums; to "
        "plan or simulate from --events: NAME. Repeatable.",
        metavar="NAME=COLUMNS",
    ),
]
CupedColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--cuped",
        help="METRIC=COLUMN or COLUMN/COLUMN from before the experiment, to take noise out. "
        "Repeatable.",
        metavar="METRIC=COLUMNS",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="Configured share of each variant, as control=0.5,treatment=0.5; default: all alike.",
        metavar="SHARES",
    ),
]
UnitColumn = Annotated[
    str | None,
    typer.Option(
        help="Of --users: the user's id; several rows of one are refused.", metavar="NAME"
    ),
]
Days = Annotated[
    int,
    typer.Option(
        help="Of --events: how many of the last days, as many as the experiment is to have.", min=1
    ),
]
PreDays = Annotated[
    int,
    typer.Option(help="Of --events: days before that CUPED learns from; 0: no CUPED.", min=0),
]
Until = Annotated[
    str | None,
    typer.Option(
        help="Look at events before this moment, with a time zone; default: the planned end, "
        "or now.",
        metavar="TIMESTAMP",
    ),
]
State = Annotated[
    Path | None,
    typer.Option(
        help="Directory that keeps what was read of each day, for the next time.", metavar="DIR"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def analyze(
    experiment: ExperimentFile = None,
    name: Name = None,
    events: Events = None,
    until: Until = None,
    planned_users: Annotated[
        int | None,
        typer.Option(
            help="Users that the experiment was planned for; default: looks go by the calendar.",
            min=4,
        ),
    ] = None,
    fixed: Annotated[
        bool, typer.Option("--fixed", help="This is the only look: nobody has peeked.")
    ] = False,
    pre_days: Annotated[
        int,
        typer.Option(help="Days before the start that CUPED learns from; 0: no CUPED.", min=0),
    ] = 0,
    state: State = None,
    users: UsersFile = None,
    variant_column: Annotated[
        str, typer.Option(help="Of --users: each user's variant.", metavar="NAME")
    ] = "variant",
    metric: Metric = None,
    lower_is_better: Annotated[
        list[str] | None,
        typer.Option(help="Of --users: a metric that should fall. Repeatable.", metavar="METRIC"),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(
            help="Of --users: the control; default: the variant called so, or the first by name.",
            metavar="NAME",
        ),
    ] = None,
    weights: Weights = None,
    cuped: CupedColumns = None,
    segment: Annotated[
        list[str] | None,
        typer.Option(help="Column to look at parts of the users by. Repeatable.", metavar="NAME"),
    ] = None,
    unit_column: UnitColumn = None,
    looks: Annotated[
        str | None,
        typer.Option(
            help="Of --users: fractions of the planned users at each look so far, the last one "
            "now, as 0.5,1; default: one look.",
            metavar="FRACTIONS",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write the result here, as JSON.", metavar="DIR")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the variants of an experiment; exit 1 if its numbers cannot be believed."""
    from abtest.analysis import analyse_table, stops
    from abtest.result import to_json
    from querylift.commands.analysis_text import result_text

    if (events is None) == (users is None):
        raise ValueError("want --experiment FILE with --events DIR, or --users FILE")
    command = shlex.join(["querylift", *sys.argv[1:]])
    if users is not None:
        table = _table(
            users,
            metric,
            cuped,
            variant_column=variant_column,
            control=control,
            weights=_weights(weights) if weights else None,
            lower_is_better=tuple(lower_is_better or ()),
            segments=tuple(segment or ()),
            unit_column=unit_column,
        )
        fractions = tuple(_numbers("--looks", looks))
        result = analyse_table(table, command=command, fractions=fractions)
    elif experiment is None or events is None:
        raise ValueError("--events wants --experiment FILE beside it")
    else:
        from abtest.experiment import load_experiments
        from abtest.log_analysis import Request, analyse_log, choose

        experiments = load_experiments(experiment)
        request = Request(
            experiments,
            experiment,
            choose(experiments, name),
            events,
            instant(until, "--until"),
            command,
            planned_users=planned_users,
            is_fixed=fixed,
            pre_days=pre_days,
            state=state,
        )
        with _bar("days") as advance:
            result = analyse_log(request, advance)
    if out is not None:
        _write_new(out / f"{result.subject.name}.json", to_json(result) + "\n")
    print(to_json(result) if as_json else result_text(result))
    if found := stops(result):
        raise Finding("; ".join(gate.message for gate in found))


def simulate(
    users: UsersFile = None,
    events: Events = None,
    metric: Metric = None,
    cuped: CupedColumns = None,
    days: Days = 14,
    pre_days: PreDays = 0,
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

    effects = {name: _number("--effect", text) for name, text in _pairs("--effect", effect or ())}
    found = _history(users, events, metric, cuped, days, pre_days, unit_column)
    deals = Deals(runs, share, alpha, seed)
    with _bar("deals") as advance:
        rates = deal(found.columns, found.definitions, deals, effects, advance)
    if as_json:
        print(json.dumps([rate._asdict() for rate in rates], indent=2))
    else:
        print(rates_text(rates, deals.alpha))


def plan(
    users: UsersFile = None,
    events: Events = None,
    metric: Metric = None,
    cuped: CupedColumns = None,
    days: Days = 14,
    pre_days: PreDays = 0,
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
    curve = _numbers("--users-by-day", users_by_day)
    if mean is not None:
        if users is not None or events is not None:
            raise ValueError("want --mean and --sd, or --users FILE, or --events DIR; not two")
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
        _write_new(svg, plan_svg(found))
    if as_json:
        rows = [{**one._asdict(), "by_day": [day._asdict() for day in one.by_day]} for one in found]
        print(json.dumps(rows, indent=2))
    else:
        print(plans_text(found))


def _table(path: Path, metric: list[str] | None, cuped: list[str] | None, **options: Any) -> Table:
    from abtest.analysis import Table

    return Table(path, _metrics(metric), covariates=_covariates(cuped), **options)


def _history(
    users: Path | None,
    events: Path | None,
    metric: list[str] | None,
    cuped: list[str] | None,
    days: int,
    pre_days: int,
    unit_column: str | None = None,
) -> History:
    """Users of a table, or of the last days of a store."""
    from abtest.log_history import History, history

    if (users is None) == (events is None):
        raise ValueError("want --users FILE or --events DIR")
    if events is not None:
        if cuped:
            raise ValueError("--cuped is for --users; with --events give --pre-days")
        with _bar("days") as advance:
            return history(
                events, metric or ("ctr", "cvr", "pay"), days, pre_days=pre_days, advance=advance
            )
    assert users is not None
    from abtest.analysis import definitions_of
    from abtest.user_file import read_users, with_known

    definitions = definitions_of(_table(users, metric, cuped))
    table = read_users(users, definitions, unit_column=unit_column)
    return History(dict(table.columns), with_known(definitions, table), ())


def _metrics(given: list[str] | None) -> dict[str, str]:
    pairs = list(_pairs("--metric", given or ()))
    if not pairs:
        raise ValueError("--users wants --metric NAME=COLUMN or NAME=COLUMN/COLUMN")
    metrics = dict(pairs)
    if len(metrics) < len(pairs):
        raise ValueError(f"--metric: one name twice in {', '.join(name for name, _ in pairs)}")
    return metrics


def _covariates(given: list[str] | None) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for metric, text in _pairs("--cuped", given or ()):
        found[metric] = (*found.get(metric, ()), text)
    return found


def _weights(given: str) -> dict[str, float]:
    return {
        variant: _number("--weights", text)
        for variant, text in _pairs("--weights", given.split(","))
    }


def _pairs(option: str, given: Iterable[str]) -> Iterator[tuple[str, str]]:
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{option} {text!r}: want NAME=VALUE")
        yield name, value


def _numbers(option: str, given: str | None) -> list[float]:
    return [_number(option, text) for text in (given or "").split(",") if text.strip()]


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{option} {text!r}: want a number") from None


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


def _write_new(path: Path, text: str) -> None:
    from relevance.files import new_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, moved by calls with what is done and what is to do in all."""
    from tqdm import tqdm

    with tqdm(desc=label, delay=0.5) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance
