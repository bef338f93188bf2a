"""``querylift pipeline run``, ``compile`` and ``submit``."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from querylift.commands.options import (
    DEFAULT_RECIPE,
    DEFAULT_TRACKING_URI,
    AsJson,
    OutDir,
    RecipeName,
    Settings,
    TrackingUri,
    report,
)
from relevance.recipes import pipeline_config

Image = Annotated[
    str, typer.Option(help="Image the steps run in, by digest: NAME@sha256:...", metavar="IMAGE")
]
Gpus = Annotated[int, typer.Option(help="GPUs that a training step asks for.", min=0)]


def run(
    data: Annotated[
        list[Path],
        typer.Option(help="Dataset directory. Repeatable: they are joined.", metavar="DIR"),
    ],
    out: OutDir,
    recipe: RecipeName = DEFAULT_RECIPE,
    settings: Settings = None,
    tracking_uri: TrackingUri = DEFAULT_TRACKING_URI,
    as_json: AsJson = False,
) -> None:
    """Run every step here, one after the other."""
    pipeline_config(recipe, settings or ())
    from pipelines.local import run_local

    report(
        lambda: run_local(data, recipe, settings or [], out=out, tracking_uri=tracking_uri),
        as_json=as_json,
    )


def compile_(
    out: Annotated[Path, typer.Option(help="YAML file to write.", metavar="FILE")],
    image: Image,
    gpus: Gpus = 0,
) -> None:
    """Write the graph for a Kubeflow cluster."""
    from pipelines.cluster import compile_pipeline

    compile_pipeline(out, image, gpus)
    print(f"pipeline: {out}")


def submit(
    host: Annotated[
        str, typer.Option(help="Address of the Kubeflow Pipelines API.", metavar="URL")
    ],
    image: Image,
    data: Annotated[
        list[str],
        typer.Option(help="Where the cluster finds a dataset. Repeatable.", metavar="URI"),
    ],
    recipe: RecipeName = DEFAULT_RECIPE,
    settings: Settings = None,
    gpus: Gpus = 0,
    tracking_uri: Annotated[
        str,
        typer.Option(help="MLflow server; default: what the cluster names.", metavar="URI"),
    ] = "",
) -> None:
    """Start the graph on a Kubeflow cluster and print the run's id."""
    pipeline_config(recipe, settings or ())
    from pipelines.cluster import submit as start

    with contextlib.redirect_stdout(sys.stderr):  # kfp's client prints links
        run_id = start(
            host, image, data, recipe, settings or [], gpus=gpus, tracking_uri=tracking_uri
        )
    print(run_id)
