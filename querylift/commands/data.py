"""``querylift import``, ``market``, ``validate-data`` and ``extend-vocabulary``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from querylift.commands.options import (
    DEFAULT_RECIPE,
    AsJson,
    Data,
    OutDir,
    RecipeName,
    Settings,
    check_dataset,
    report,
    resolve,
    row_bar,
)


def import_(
    layout: Annotated[
        str, typer.Argument(help="Whose layout SOURCE has: esci, wands, chorus or ubi.")
    ],
    source: Annotated[Path, typer.Argument(help="Directory, as its owners publish it.")],
    out: OutDir,
    locale: Annotated[
        str,
        typer.Option(help="Language and market to keep; only esci has several.", metavar="CODE"),
    ] = "us",
    splits: Annotated[
        Path | None,
        typer.Option(
            help="Parquet file with columns query and split, instead of the layout's own splits.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Turn a public dataset into a dataset of ours."""
    from relevance.data.readers import import_dataset

    import_dataset(layout, source, out, locale=locale, splits=splits)
    _show_dataset(out)


def market(
    out: OutDir,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change one setting of the shop, for example products=5000. Repeatable.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same bytes.")] = None,
) -> None:
    """Generate a shop; no real shopper is in it."""
    from relevance.config import override
    from relevance.data.market import MarketConfig, make_market

    chosen = [*(settings or ()), *([] if seed is None else [f"seed={seed}"])]
    config = override(MarketConfig(), chosen)
    with row_bar("market") as progress:
        make_market(config, out, progress)
    _show_dataset(out)
    print("The shop is generated: no real shopper, product or rater is in it.")


def _show_dataset(out: Path) -> None:
    from relevance.data.tables import TABLES, has_table, open_table

    for table in TABLES:
        if has_table(out, table):
            print(f"{table:<9}  {open_table(out, table).metadata.num_rows:>12,} rows")
    print(f"dataset: {out}")


def validate_data(
    data: Data,
    out: OutDir,
    vocabulary: Annotated[
        Path | None,
        typer.Option(
            help="Vocabulary to check as well, as `extend-vocabulary` made it; its report is in "
            "`vocabulary` of --out.",
            metavar="DIR",
        ),
    ] = None,
    recipe: RecipeName = DEFAULT_RECIPE,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Check a dataset; exit 1 if something blocks."""
    chosen = resolve(recipe, settings)
    from relevance.data import contract

    def work() -> dict[str, float]:
        metrics = contract.validate_data(chosen.contract, data, out)
        if vocabulary is not None:
            try:
                found = contract.validate_vocabulary(
                    chosen.contract, vocabulary, out / "vocabulary"
                )
            except (ValueError, OSError):
                # wrong use leaves nothing, as where the data itself cannot be read
                shutil.rmtree(out)
                raise
            metrics |= {f"vocabulary/{name}": value for name, value in found.items()}
        return metrics

    report(work, as_json=as_json)
    if not as_json:
        print(f"\nreport: {out / 'index.html'}")
        if vocabulary is not None:
            print(f"vocabulary: {out / 'vocabulary' / 'index.html'}")


def extend_vocabulary(
    data: Data,
    out: OutDir,
    recipe: RecipeName = DEFAULT_RECIPE,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Keep the shop's frequent words whole."""
    chosen = resolve(recipe, settings)
    from relevance.data import vocabulary

    check_dataset(data)
    report(
        lambda: vocabulary.extend_vocabulary(chosen.vocabulary, data, out),
        as_json=as_json,
    )
    if not as_json:
        print(f"\n{vocabulary.format_table(out / 'table.json')}")
