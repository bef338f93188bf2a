"""``querylift ab report`` and ``querylift ab serve``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from querylift.commands.ab import instant
from querylift.commands.analysis import Events, ExperimentFile, Name, State, Until
from relevance.errors import Finding

if TYPE_CHECKING:
    from abtest.result import Result


def report(
    out: Annotated[
        Path, typer.Option(help="Directory that the report's files are written to.", metavar="DIR")
    ],
    experiment: ExperimentFile = None,
    name: Name = None,
    events: Events = None,
    until: Until = None,
    state: State = None,
    result: Annotated[
        Path | None,
        typer.Option(
            help="Result that `ab analyze --json` printed, instead of --experiment and --events.",
            metavar="FILE",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a report of the same experiment and phase.")
    ] = False,
) -> None:
    """Write a page for people, and JSON, CSV and Markdown; exit 1 if a check says no."""
    from abtest.report import report as files_of
    from abtest.result import read_result
    from relevance.files import new_file, refuse_existing

    if (result is None) == (experiment is None or events is None):
        raise ValueError("want --experiment FILE with --events DIR, or --result FILE")
    if result is not None:
        found = read_result(result)
    else:
        assert experiment is not None
        assert events is not None
        found = _analysed(experiment, name, events, until, state)
    files = {out / file: text for file, text in files_of(found).items()}
    if not replace:
        for path in files:
            refuse_existing(path)
    for path, text in files.items():
        with new_file(path, replace=replace) as partial:
            partial.write_text(text, encoding="utf-8")
    print(next(iter(files)))
    if stopping := [gate.message for gate in found.gates if gate.status == "stop"]:
        raise Finding("; ".join(stopping))


def _analysed(
    experiment: Path, name: str | None, events: Path, until: str | None, state: Path | None
) -> Result:
    from abtest.experiment import load_experiments
    from abtest.log_analysis import Request, analyse_log, choose

    experiments = load_experiments(experiment)
    request = Request(
        experiments,
        experiment,
        choose(experiments, name),
        events,
        instant(until, "--until"),
        shlex.join(["querylift", *sys.argv[1:]]),
        state=state,
    )
    return analyse_log(request)


def serve(
    reports: Annotated[
        Path, typer.Option(help="Directory that `ab report` wrote to.", metavar="DIR")
    ],
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65_535)] = 8090,
) -> None:
    """List experiments and show their reports, on this computer alone."""
    import uvicorn

    from abtest.report_index import application
    from serving.servers import listening

    app = application(reports)
    listener = listening("127.0.0.1", port)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/", flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False))
    server.run(sockets=[listener])
