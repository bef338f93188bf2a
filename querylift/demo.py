"""``querylift demo``, behind ``make run``: the pipeline on a generated shop."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from querylift.commands.options import DEFAULT_RECIPE, RecipeName, Settings, row_bar
from relevance.recipes import pipeline_config


def demo(
    out: Annotated[
        Path,
        typer.Option(help="Directory of the shop, and of one new directory a run.", metavar="DIR"),
    ] = Path("runs/demo"),
    recipe: RecipeName = DEFAULT_RECIPE,
    settings: Settings = None,
) -> None:
    """Run the whole pipeline on a generated shop."""
    pipeline_config(recipe, settings or ())
    from pipelines.local import run_local
    from querylift.commands.tables import evaluation_text

    shop = out / "market"
    _ensure_market(shop)
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


def _ensure_market(shop: Path) -> None:
    """Generate ``shop`` at the default settings, unless it is there.

    Raises:
        ValueError: Something else is there: a shop of other settings, or no shop.
    """
    from relevance.data.market import MarketConfig, make_market
    from relevance.data.tables import read_card

    config = MarketConfig()
    if not shop.exists():
        with row_bar("market") as progress:
            make_market(config, shop, progress)
        return
    given = read_card(shop).settings
    for name, wanted in asdict(config).items():
        if given.get(name) != wanted:
            raise ValueError(
                f"{shop / 'dataset.json'}: {name} is {given.get(name)}, want {wanted}; "
                f"remove {shop} or choose another --out"
            )
