"""``querylift serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from querylift.commands.options import DEFAULT_TRACKING_URI, TrackingUri

FROM_ENVIRONMENT = {"auto_envvar_prefix": "QUERYLIFT"}
"""Every option of these commands is also a variable: ``--cache-mb`` is QUERYLIFT_CACHE_MB."""


def scorer(
    model: Annotated[
        str,
        typer.Option(
            help="Checkpoint directory, models:/NAME@ALIAS or models:/NAME/VERSION.",
            metavar="MODEL",
        ),
    ],
    items: Annotated[
        Path | None,
        typer.Option(
            help="Item table, as `items build` makes it; without one only titles are scored.",
            metavar="DIR",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="fp32, bf16, int8, or auto: bf16 where the machine has it.", metavar="NAME"
        ),
    ] = "auto",
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is all.", metavar="HOST")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65_535)] = 8000,
    cache_mb: Annotated[
        int, typer.Option(help="Memory for scores of pairs, in MiB; 0 keeps none.", min=0)
    ] = 256,
    scores: Annotated[
        Path | None,
        typer.Option(help="Scores to begin with, as `cache build` makes them.", metavar="FILE"),
    ] = None,
    max_documents: Annotated[
        int, typer.Option(help="Titles or items that a request may have.", min=1)
    ] = 5_000,
    queue_tokens: Annotated[
        int, typer.Option(help="Tokens that may wait; a request beyond is refused.", min=1)
    ] = 300_000,
    deadline_s: Annotated[
        float, typer.Option(help="Seconds that a request may wait for its scores.", min=0.01)
    ] = 5.0,
    drain_s: Annotated[
        float, typer.Option(help="Seconds that requests in flight have after SIGTERM.", min=0)
    ] = 20.0,
    poll_s: Annotated[
        float, typer.Option(help="Mean seconds between looks at the alias.", min=0.1)
    ] = 20.0,
    tracking_uri: TrackingUri = DEFAULT_TRACKING_URI,
) -> None:
    """Serve a checkpoint over HTTP: reranking of titles, relevance of items."""
    from relevance.cpus import limit_threads

    # before anything that makes threads is imported
    limit_threads()
    from serving.limits import Batching, Limits
    from serving.scorer import Settings, serve

    serve(
        Settings(
            model,
            items=items,
            precision=precision,
            host=host,
            port=port,
            cache_mb=cache_mb,
            scores=scores,
            tracking_uri=tracking_uri,
            poll_s=poll_s,
            drain_s=drain_s,
            limits=Limits(max_documents=max_documents),
            batching=Batching(queue_tokens=queue_tokens, deadline_s=deadline_s),
        )
    )
