"""What the commands that analyse an experiment from its log share."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from querylift.commands.ab import instant

if TYPE_CHECKING:
    from abtest.result import Result

ExperimentFile = Annotated[
    Path | None, typer.Option(help="Experiment file; with --events.", metavar="FILE")
]
Name = Annotated[
    str | None,
    typer.Option(help="Which experiment of the file; needed if it has several.", metavar="NAME"),
]
Events = Annotated[
    str | None,
    typer.Option(help="Directory or URL of the store that `events compact` makes.", metavar="URL"),
]
Until = Annotated[
    str | None,
    typer.Option(
        help="Look at events before this moment, with a time zone; default: the planned end, "
        "or now.",
        metavar="TIMESTAMP",
    ),
]
PlannedUsers = Annotated[
    int | None,
    typer.Option(
        help="Users that the experiment was planned for: fewer are less than the calendar says.",
        min=4,
    ),
]
Fixed = Annotated[bool, typer.Option("--fixed", help="This is the only look: nobody has peeked.")]
PreDays = Annotated[
    int,
    typer.Option(help="Days before the start that CUPED learns from; 0: no CUPED.", min=0),
]
State = Annotated[
    Path | None,
    typer.Option(
        help="Directory that keeps what was read of each day, for the next time.", metavar="DIR"
    ),
]


def command_line() -> str:
    """That makes the same result again."""
    return shlex.join(["querylift", *sys.argv[1:]])


def log_result(
    experiment: Path,
    events: str,
    *,
    name: str | None,
    until: str | None,
    planned_users: int | None,
    fixed: bool,
    pre_days: int,
    state: Path | None,
) -> Result:
    """The result of an experiment, by the options above.

    Raises:
        ValueError, OSError: See ``abtest.log_analysis.analyse_log``.
    """
    from abtest.experiment import load_experiments
    from abtest.log_analysis import Request, analyse_log, choose

    experiments = load_experiments(experiment)
    request = Request(
        experiments,
        experiment,
        choose(experiments, name),
        events,
        instant(until, "--until"),
        command_line(),
        planned_users=planned_users,
        is_fixed=fixed,
        pre_days=pre_days,
        state=state,
    )
    with bar("days") as advance:
        return analyse_log(request, advance)


@contextlib.contextmanager
def bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, moved by calls with what is done and what is to do in all."""
    from tqdm import tqdm

    with tqdm(desc=label, delay=0.5) as shown:

        def advance(done: int, total: int) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield advance
