"""``querylift demo``, behind ``make run``: the pipeline on a generated shop."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from querylift.commands.options import DEFAULT_RECIPE, RecipeName, Settings, resolve


def demo(
    out: Annotated[
        Path,
        typer.Option(help="Directory of the shop, and of one new directory a run.", metavar="DIR"),
    ] = Path("runs/demo"),
    recipe: RecipeName = DEFAULT_RECIPE,
    settings: Settings = None,
) -> None:
    """Run the whole pipeline on a generated shop."""
    resolve(recipe, settings)
    from pipelines.local import run_local
    from querylift.commands.tables import evaluation_text
    from relevance.data.market import MarketConfig, make_market

    shop = out / "market"
    if not shop.exists():
        make_market(MarketConfig(), shop)
    run = out / datetime.now().strftime("%Y%m%d-%H%M%S")
    tracking_uri = f"sqlite:///{(out / 'mlflow.db').resolve()}"
    run_local([shop], recipe, settings or [], out=run, tracking_uri=tracking_uri)
    print()
    print(evaluation_text(run / "evaluation"))
    print(
        f"\nThe shop is generated: no real shopper, product or rater is in it.\n\n"
        f"data report  {run / 'validation' / 'index.html'}\n"
        f"evaluation   {run / 'evaluation' / 'index.html'}\n"
        f"runs, models mlflow ui --backend-store-uri {tracking_uri}"
    )
