"""``querylift ab report`` and ``querylift ab serve``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    log_result,
)
from relevance.errors import Finding

if TYPE_CHECKING:
    from abtest.model_links import Links
    from abtest.result import Result


def report(
    out: Annotated[
        Path, typer.Option(help="Directory that the report's files are written to.", metavar="DIR")
    ],
    experiment: ExperimentFile = None,
    name: Name = None,
    events: Events = None,
    until: Until = None,
    planned_users: PlannedUsers = None,
    fixed: Fixed = False,
    pre_days: PreDays = 0,
    state: State = None,
    result: Annotated[
        Path | None,
        typer.Option(
            help="Result that `ab analyze --json` printed, instead of --experiment and --events.",
            metavar="FILE",
        ),
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(
            help="MLflow server where the models of the log are registered, to link them.",
            metavar="URL",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a report of the same experiment and phase.")
    ] = False,
) -> None:
    """Write a page for people, and JSON, CSV and Markdown; exit 1 if a check says no."""
    from abtest.model_links import NO_LINKS, checked
    from abtest.report import report as files_of
    from abtest.result import read_result
    from relevance.files import new_file, refuse_existing

    if (result is None) == (experiment is None or events is None):
        raise ValueError("want --experiment FILE with --events URL, or --result FILE")
    registry = None if registry is None else checked(registry)
    of_the_log = {
        "--name": name, "--until": until, "--planned-users": planned_users, "--fixed": fixed,
        "--pre-days": pre_days, "--state": state,
    }  # fmt: skip
    if result is not None:
        if given := [option for option, value in of_the_log.items() if value]:
            raise ValueError(f"{', '.join(given)}: of --events; --result has been analysed already")
        found = read_result(result)
    else:
        assert experiment is not None
        assert events is not None
        found = log_result(
            experiment,
            events,
            name=name,
            until=until,
            planned_users=planned_users,
            fixed=fixed,
            pre_days=pre_days,
            state=state,
        )
    links = NO_LINKS if registry is None else _links(found, registry)
    files = {out / file: text for file, text in files_of(found, links).items()}
    if not replace:
        for path in files:
            refuse_existing(path)
    for path, text in files.items():
        with new_file(path, replace=replace) as partial:
            partial.write_text(text, encoding="utf-8")
    print(next(iter(files)))
    if stopping := [gate.message for gate in found.gates if gate.status == "stop"]:
        raise Finding("; ".join(stopping))


def _links(found: Result, registry: str) -> Links:
    from abtest.model_links import model_link
    from relevance.registry import registered_versions

    models = {model for counts in found.provenance.model_versions.values() for model in counts}
    return {
        model: model_link(registry, version.name, version.version)
        for model, version in registered_versions(models, tracking_uri=registry).items()
    }


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
