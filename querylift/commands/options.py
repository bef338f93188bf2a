"""Options that several commands share, and how commands show their metrics."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from relevance.configs import Recipe
from relevance.recipes import recipe_config

DEFAULT_RECIPE = "shop"
DEFAULT_TRACKING_URI = "sqlite:///runs/mlflow.db"

Data = Annotated[
    Path, typer.Option(help="Dataset directory, as `import` and `market` make it.", metavar="DIR")
]
OutDir = Annotated[Path, typer.Option(help="New directory to write.", metavar="DIR")]
RecipeName = Annotated[
    str, typer.Option("--recipe", help="Named settings; `recipes` lists them.", metavar="NAME")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change one setting, for example teacher.stage_b.lr=3e-5 or seed=1. Repeatable.",
        metavar="KEY=VALUE",
    ),
]
State = Annotated[
    Path | None,
    typer.Option(
        help="Directory of the training state a killed run resumes from; default: beside --out.",
        metavar="DIR",
    ),
]
TrackingUri = Annotated[
    str, typer.Option(help="MLflow server or database that keeps runs and models.", metavar="URI")
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print the metrics as one JSON object and nothing else."),
]


def resolve(recipe: str, settings: list[str] | None) -> Recipe:
    """The recipe under its ``--set`` options; called before slow imports, to fail at once."""
    return recipe_config(recipe, settings or ())


def check_dataset(data: Path) -> None:
    """Raise, before anything slow, unless ``data`` is a dataset with its card and two tables.

    Raises:
        FileNotFoundError: The card, the queries or the products are missing.
        ValueError: One of them is damaged, or a table breaks its schema.
    """
    from relevance.data.tables import TABLES, has_table, open_table, read_card

    read_card(data)
    for table in TABLES:
        if table in ("queries", "products") or has_table(data, table):
            open_table(data, table).close()


def report(work: Callable[[], Mapping[str, float]], *, as_json: bool) -> None:
    """Do the work and print its metrics; with ``as_json`` nothing else reaches stdout."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        metrics = work()
    # torchrun starts the command once a process
    if os.environ.get("RANK", "0") != "0":
        return
    if not as_json:
        show(metrics)
        return
    # JSON has no NaN and no infinity
    finite = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
    print(json.dumps(finite, indent=2))


@contextlib.contextmanager
def row_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, moved by calls with rows done and rows in all."""
    from tqdm import tqdm

    # the bar waits, so that what ends at once is quiet
    with tqdm(desc=label, unit=" rows", unit_scale=True, delay=0.5) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance


def show(metrics: Mapping[str, float]) -> None:
    """Print one metric a line, names and values aligned."""
    width = max(map(len, metrics), default=0)
    for name, value in metrics.items():
        text = f"{value:,.0f}" if float(value).is_integer() else f"{value:.4f}"
        print(f"{name:<{width}}  {text:>12}")
