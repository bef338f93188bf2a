"""``querylift ab``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal

import typer

from relevance.errors import Finding

if TYPE_CHECKING:
    from abtest.assignment import Assignment

At = Annotated[
    str | None,
    typer.Option(
        help="Instant to look at, with a time zone, as 2026-11-05T08:00Z; default: now.",
        metavar="TIMESTAMP",
    ),
]
_COLUMNS = ("experiment_id", "layer", "phase", "variant", "bucket", "scorer", "is_forced")


def check(
    file: Annotated[Path, typer.Argument(help="Experiment file that is to run.")],
    running: Annotated[
        Path | None,
        typer.Option(
            help="Experiment file that runs now: changes of units or of the plan are findings.",
            metavar="FILE",
        ),
    ] = None,
    at: At = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
) -> None:
    """Check an experiment file; exit 1 if something is wrong with it."""
    import msgspec

    from abtest.experiment import read_experiments
    from abtest.findings import findings

    moment = instant(at)
    experiments = read_experiments(file)
    found = findings(experiments, read_experiments(running) if running else None, moment)
    if as_json:
        answer = {"version": experiments.version, "at": moment, "findings": found}
        print(msgspec.json.format(msgspec.json.encode(answer)).decode())
    else:
        print(*found, sep="\n", end="\n" if found else "")
    if found:
        raise Finding(f"{file}: {len(found)} {'finding' if len(found) == 1 else 'findings'}")
    if not as_json:
        print(f"{file}: fine, version {experiments.version}")


def schema(
    of: Annotated[
        Literal["experiments", "result"],
        typer.Option(help="Experiment files, for editors, or what `ab analyze --json` prints."),
    ] = "experiments",
) -> None:
    """Print a JSON Schema."""
    import json

    from abtest import experiment, result

    made = {"experiments": experiment.schema, "result": result.schema}[of]()
    print(json.dumps(made, indent=2))


def assign(
    experiments: Annotated[Path, typer.Option(help="Experiment file.", metavar="FILE")],
    at: At = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a unit, each on a line.")
    ] = False,
) -> None:
    """Tell the experiments of the unit ids on stdin, one a line."""
    from abtest.assignment import Split
    from abtest.experiment import load_experiments

    split = Split.of(load_experiments(experiments), instant(at))
    if not as_json:
        print("unit_id", *_COLUMNS, sep="\t")
    form = _json_line if as_json else _tab_lines
    for number, unit_id in _unit_ids(sys.stdin.buffer):
        try:
            sys.stdout.write(form(unit_id, split.assign(unit_id)))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None


def instant(text: str | None, option: str = "--at") -> datetime:
    """The moment that an option names; now where it was left out.

    Raises:
        ValueError: It is none, or has no time zone.
    """
    if text is None:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{option} {text!r}: no timestamp; want one as 2026-11-05T08:00Z"
        ) from None
    if moment.tzinfo is None:
        raise ValueError(f"{option} {text!r}: no time zone; want one, as in 2026-11-05T08:00Z")
    return moment


def _unit_ids(lines: BinaryIO) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, start=1):
        try:
            yield number, line.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"line {number}: no UTF-8 ({error.reason})") from None


def _json_line(unit_id: str, assignments: tuple[Assignment, ...]) -> str:
    import msgspec

    found = [assignment._asdict() for assignment in assignments]
    return msgspec.json.encode({"unit_id": unit_id, "assignments": found}).decode() + "\n"


def _tab_lines(unit_id: str, assignments: tuple[Assignment, ...]) -> str:
    """A line an assignment, or one with nothing but the id."""
    if "\t" in unit_id:
        raise ValueError(f"unit id {unit_id!r} has a tab; want --json")
    if not assignments:
        return unit_id + "\t" * len(_COLUMNS) + "\n"
    return "".join(
        f"{unit_id}\t{a.experiment_id}\t{a.layer}\t{a.phase}\t{a.variant}\t{a.bucket}\t{a.scorer}"
        f"\t{str(a.is_forced).lower()}\n"
        for a in assignments
    )
