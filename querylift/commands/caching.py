"""``querylift cache``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from querylift.commands.judging import Checkpoint
from querylift.commands.options import AsJson, Data, check_dataset, report


def build(
    checkpoint: Checkpoint,
    data: Data,
    out: Annotated[
        Path,
        typer.Option(
            help="New Parquet file of scores, which a scorer starts with.", metavar="FILE"
        ),
    ],
    share: Annotated[
        float,
        typer.Option(help="Of the log's distinct queries, the most searched first.", min=0, max=1),
    ] = 0.2,
    max_items: Annotated[
        int,
        typer.Option(help="Items of one query at most, those with the most events first.", min=1),
    ] = 5_000,
    precision: Annotated[
        str,
        typer.Option(
            help="fp32, bf16, int8, or auto: as the scorer will run, or its scores are others.",
            metavar="NAME",
        ),
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Score the most searched queries of the log in advance."""
    from relevance.files import refuse_existing

    check_dataset(data)
    refuse_existing(out)
    from querylift.cache_build import build_cache
    from relevance.scorer import open_scorer

    report(
        lambda: build_cache(
            open_scorer(checkpoint, precision=precision),
            data,
            out,
            share=share,
            max_items=max_items,
        ),
        as_json=as_json,
    )
