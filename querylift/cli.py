"""The commands and what their exit codes mean: 0 fine, 1 a finding, 2 wrong use.

Nothing here or in ``querylift.commands`` imports anything slow before a command runs, so that
``--help`` answers at once.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from querylift import demo
from querylift.commands import (
    ab,
    analysis,
    caching,
    comparing,
    data,
    events,
    items,
    judging,
    pipeline,
    planning,
    recipes,
    reporting,
    serving,
    shoppers,
    splitting,
    terms,
    training,
)
from relevance.errors import Finding

COMMANDS: Mapping[str, Callable[..., None]] = {
    "import": data.import_,
    "market": data.market,
    "validate-data": data.validate_data,
    "extend-vocabulary": data.extend_vocabulary,
    "learn-terms": terms.learn_terms,
    "terms": terms.terms,
    "pretrain": training.pretrain,
    "finetune": training.finetune,
    "distill": training.distill,
    "evaluate": judging.evaluate,
    "register": judging.register,
    "score": judging.score,
    "compare": comparing.compare,
    "recipes": recipes.recipes,
    "demo": demo.demo,
}

GROUPS: Mapping[str, tuple[str, Mapping[str, Callable[..., None]]]] = {
    "pipeline": (
        "The whole graph: run it here, or send it to Kubeflow.",
        {"run": pipeline.run, "compile": pipeline.compile_, "submit": pipeline.submit},
    ),
    "serve": (
        "Answer requests.",
        {"scorer": serving.scorer, "splitter": splitting.splitter},
    ),
    "ab": (
        "Experiments: their files, and who is in what.",
        {
            "check": ab.check,
            "assign": ab.assign,
            "schema": ab.schema,
            "plan": planning.plan,
            "simulate": planning.simulate,
            "analyze": analysis.analyze,
            "report": reporting.report,
            "serve": reporting.serve,
            "shadow-report": splitting.shadow_report,
            "shoppers": shoppers.shoppers,
        },
    ),
    "events": (
        "The event log: read it, ship it, prove it.",
        {
            "tail": events.tail,
            "compact": events.compact,
            "verify": events.verify,
            "forget": events.forget,
            "retain": events.retain,
        },
    ),
    "items": ("The catalogue, as a scorer wants it.", {"build": items.build}),
    "cache": ("Scores that a scorer starts with.", {"build": caching.build}),
}

# by group: what its commands take beside their options
_CONTEXTS: Mapping[str, dict[str, Any]] = {"serve": serving.FROM_ENVIRONMENT}

# libraries that report home, or show a bar for every file they read, unless told not to
_QUIET = {
    "BENTOML_DO_NOT_TRACK": "True",
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "TRANSFORMERS_VERBOSITY": "error",
}

_SERVICES = ("kfp_server_api", "mlflow", "sqlalchemy", "urllib3")


def _application() -> typer.Typer:
    style: dict[str, Any] = {"rich_markup_mode": None, "no_args_is_help": True}
    app = typer.Typer(
        name="querylift",
        help=(
            "From a shop's catalogue, clicks and judgments to a fast relevance model.\n\n"
            "Exit codes: 0 fine, 1 a check said no, 2 wrong use."
        ),
        pretty_exceptions_enable=False,
        add_completion=False,
        **style,
    )
    app.callback()(_root)
    for name, command in COMMANDS.items():
        app.command(name)(command)
    for group, (text, commands) in GROUPS.items():
        inner = typer.Typer(**style)
        for name, command in commands.items():
            inner.command(name, context_settings=_CONTEXTS.get(group))(command)
        app.add_typer(inner, name=group, help=text)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(importlib.metadata.version("querylift"))
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    pass


app = _application()


def main() -> None:
    """Run the command in ``sys.argv``; a mistake of the caller's is one line, a bug a traceback."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        app(prog_name="querylift")
    except Finding as finding:
        _fail(finding, code=1)
    except (ValueError, OSError) as error:
        _fail(error, code=2)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        ours = ("", "abtest", "components", "pipelines", "querylift", "relevance", "serving")
        if package in ours:
            raise
        _fail(
            f"this command needs the package {package!r}, which is not installed; "
            "install querylift with its extras, for example querylift[data,train] "
            "or querylift[train,serve]",
            code=2,
        )
    except Exception as error:
        # of a service that is not there or says no; these libraries derive from no OSError
        if type(error).__module__.partition(".")[0] not in _SERVICES:
            raise
        _fail(error, code=2)


def _fail(message: object, *, code: int) -> None:
    print("querylift:", " ".join(str(message).split()), file=sys.stderr)
    sys.exit(code)
