"""``querylift ab analyze``, and what the commands that read a table of users share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from querylift.commands.log_options import (
    Events,
    ExperimentFile,
    Fixed,
    Name,
    PlannedUsers,
    PreDays,
    State,
    Until,
    command_line,
    log_result,
)
from relevance.errors import Finding

if TYPE_CHECKING:
    from abtest.analysis import Table

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
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def analyze(
    experiment: ExperimentFile = None,
    name: Name = None,
    events: Events = None,
    until: Until = None,
    planned_users: PlannedUsers = None,
    fixed: Fixed = False,
    pre_days: PreDays = 0,
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
        raise ValueError("want --experiment FILE with --events URL, or --users FILE")
    if users is not None:
        table = table_of(
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
        fractions = tuple(numbers("--looks", looks))
        result = analyse_table(table, command=command_line(), fractions=fractions)
    elif experiment is None or events is None:
        raise ValueError("--events wants --experiment FILE beside it")
    else:
        result = log_result(
            experiment,
            events,
            name=name,
            until=until,
            planned_users=planned_users,
            fixed=fixed,
            pre_days=pre_days,
            state=state,
        )
    if out is not None:
        write_new(out / f"{result.subject.name}.json", to_json(result) + "\n")
    print(to_json(result) if as_json else result_text(result))
    if found := stops(result):
        raise Finding("; ".join(gate.message for gate in found))


def table_of(path: Path, metric: Metric, cuped: CupedColumns, **options: Any) -> Table:
    """The table that the options name.

    Raises:
        ValueError: No metric, a name twice, or text that is no NAME=VALUE.
    """
    from abtest.analysis import Table

    return Table(path, _metrics(metric), covariates=_covariates(cuped), **options)


def _metrics(given: list[str] | None) -> dict[str, str]:
    named = list(pairs("--metric", given or ()))
    if not named:
        raise ValueError("--users wants --metric NAME=COLUMN or NAME=COLUMN/COLUMN")
    metrics = dict(named)
    if len(metrics) < len(named):
        raise ValueError(f"--metric: one name twice in {', '.join(name for name, _ in named)}")
    return metrics


def _covariates(given: list[str] | None) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for metric, text in pairs("--cuped", given or ()):
        found[metric] = (*found.get(metric, ()), text)
    return found


def _weights(given: str) -> dict[str, float]:
    return {
        variant: number("--weights", text) for variant, text in pairs("--weights", given.split(","))
    }


def pairs(option: str, given: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names and values out of ``NAME=VALUE``.

    Raises:
        ValueError: It is none.
    """
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{option} {text!r}: want NAME=VALUE")
        yield name, value


def numbers(option: str, given: str | None) -> list[float]:
    """Out of ``1,2,3``; none where the option was left out.

    Raises:
        ValueError: One is none.
    """
    return [number(option, text) for text in (given or "").split(",") if text.strip()]


def number(option: str, text: str) -> float:
    """The number that an option was given.

    Raises:
        ValueError: It is none.
    """
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{option} {text!r}: want a number") from None


def write_new(path: Path, text: str) -> None:
    """A file that was not there before.

    Raises:
        OSError: It is there, or cannot be written.
    """
    from relevance.files import new_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
