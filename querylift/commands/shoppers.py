"""``querylift ab shoppers``."""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from querylift.commands.options import Data
from relevance.errors import Finding

if TYPE_CHECKING:
    from abtest.shop import Shop
    from abtest.shopper_plan import Simulation


def shoppers(
    experiments: Annotated[Path, typer.Option(help="Experiment file.", metavar="FILE")],
    data: Data,
    store: Annotated[
        Path | None,
        typer.Option(help="New store to write, as `events compact` makes it.", metavar="DIR"),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="Live splitter to ask and to send events to, instead.", metavar="URL"),
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option(help="Whose variants the effect is of; default: the only one.", metavar="ID"),
    ] = None,
    users: Annotated[int, typer.Option(help="Shoppers who search at least once.", min=1)] = 10_000,
    days: Annotated[int, typer.Option(help="Days that they come back on.", min=1)] = 14,
    pre_days: Annotated[
        int, typer.Option(help="Of these, days before the experiment's start.", min=0)
    ] = 0,
    effect: Annotated[
        str,
        typer.Option(
            help="What is different for those not in the control, as click=1.03,amount=1.01: "
            "quality is added, click, order and amount are factors. Default: nothing, an A/A test.",
            metavar="KEY=VALUE,…",
        ),
    ] = "",
    dirty: Annotated[
        str,
        typer.Option(
            help="Shares of what is wrong, as duplicates=0.01,bots=0.001; also late, "
            "second_clicks, refunds, crossovers and unexposed.",
            metavar="KEY=VALUE,…",
        ),
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change one habit of shoppers, for example searches_a_day=0.3. Repeatable.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.", min=0)] = 0,
    searches: Annotated[int, typer.Option(help="To send to --url.", min=1)] = 1_000,
    concurrency: Annotated[
        int, typer.Option(help="Searches under way at --url at a time.", min=1)
    ] = 8,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
) -> None:
    """Simulate shoppers of an experiment: write their log, or let them use a live splitter."""
    if (store is None) == (url is None):
        raise ValueError("want either --store DIR, a log to write, or --url URL, a live splitter")
    if store is not None and store.exists():
        raise FileExistsError(f"{store}: exists already; remove it or choose another --store")
    if url is not None and (dirty or pre_days):
        raise ValueError("--dirty and --pre-days are for --store: a live log is what it is")
    from abtest.experiment import load_experiments
    from abtest.shopper_plan import Dirt, Simulation
    from abtest.shoppers import Effect, Shoppers, true_effects
    from relevance.config import override

    read = load_experiments(experiments)
    if experiment is None:
        if len(read.experiments) != 1:
            known = ", ".join(read.experiments)
            raise ValueError(f"{experiments}: several experiments; want --experiment of {known}")
        (experiment,) = read.experiments
    elif experiment not in read.experiments:
        raise ValueError(f"--experiment {experiment!r}; want one of {', '.join(read.experiments)}")
    start = read.experiments[experiment].start
    simulation = Simulation(
        experiments=read,
        experiment_id=experiment,
        begin=start - timedelta(days=pre_days) if url is None else datetime.now(UTC),
        days=days,
        users=users,
        seed=seed,
        habits=override(Shoppers(), settings or ()),
        effect=override(Effect(), _parts(effect)),
        dirt=override(Dirt(), _parts(dirty)),
    )
    if url is not None and simulation.effect.quality:
        raise ValueError("--effect quality: with --url the scorers make the order")
    shop = shop_of(data)
    if url is not None:
        _drive(url, simulation, shop, searches, concurrency, as_json=as_json)
        return
    assert store is not None
    told = write_log(simulation, shop, store)
    effects = true_effects(shop, simulation.habits, simulation.effect)
    if as_json:
        # JSON has no NaN
        finite = {name: v if math.isfinite(v) else None for name, v in effects.items()}
        print(json.dumps({**told, "true_effects": finite}, indent=2))
        return
    for name, rows in told["rows"].items():
        print(f"{name:<22}  {rows:>12,}")
    for name, count in told["planted"].items():
        print(f"{'dirty: ' + name:<22}  {count:>12,}")
    for name, value in effects.items():
        print(f"{name:<22}  {value:>+12.4%}  true effect")
    print("Nobody in it is real.")


def shop_of(data: Path) -> Shop:
    """A dataset as shoppers see it: queries that have judgments enough to fill a page.

    Raises:
        FileNotFoundError, ValueError: It is no dataset, has no judgments, or too few.
    """
    import numpy as np
    import pyarrow.compute as pc

    from abtest.shop import Shop
    from relevance.data.tables import read_card, read_table

    read_card(data)
    queries = read_table(data, "queries", ["query_id", "query", "searches"])
    products = read_table(data, "products", ["item_id", "title"])
    judgments = read_table(data, "judgments", ["query_id", "item_id", "grade"])
    # raters of one pair may differ
    pairs = judgments.group_by(["query_id", "item_id"], use_threads=False)
    pairs = pairs.aggregate([("grade", "mean")])
    query = pc.index_in(pairs["query_id"], value_set=queries["query_id"])
    item = pc.index_in(pairs["item_id"], value_set=products["item_id"])
    is_known = pc.and_(pc.is_valid(query), pc.is_valid(item))
    query, item, grade = (
        column.filter(is_known).to_numpy() for column in (query, item, pairs["grade_mean"])
    )
    return Shop.of(
        queries["query"].to_pylist(),
        # so that a query that nobody searched yet may be
        queries["searches"].fill_null(0).to_numpy() + 1,
        products["item_id"].to_pylist(),
        products["title"].to_pylist(),
        (query, item, np.round(grade).astype(np.int8)),
    )


def write_log(simulation: Simulation, shop: Shop, store: Path) -> dict[str, Any]:
    """Write a store, ledger included; it is there whole or not at all.

    Returns:
        Rows by table and action, and what is dirty.

    Raises:
        FileExistsError: It is there already.
    """
    from abtest.shopper_log import ShopperLog
    from relevance.files import new_dir
    from serving.log_store import Shipped, Store, day_of, part

    writer = f"shoppers-{simulation.seed}"
    with new_dir(store) as partial, _search_bar() as advance:
        target, log = Store(str(partial)), ShopperLog(simulation, shop)
        rows: Counter[str] = Counter()
        files: dict[int, dict[str, int]] = {}
        for file in log.files(advance):
            path = part(day_of(file.table, file.date), writer, file.number)
            target.write(path, file.rows)
            files.setdefault(file.number, {})[path] = len(file.rows)
            rows[file.table] += len(file.rows)
            if file.table == "events":
                for action in file.rows["action_name"].value_counts().to_pylist():
                    rows[action["values"]] += action["counts"]
        for number, written in files.items():
            target.record(
                Shipped(
                    writer=writer,
                    number=number,
                    lines=sum(written.values()),
                    damaged=0,
                    duplicates={},
                    files=written,
                )
            )
    return {"store": str(store), "rows": dict(rows), "planted": dict(log.planted)}


def _drive(
    url: str,
    simulation: Simulation,
    shop: Shop,
    searches: int,
    concurrency: int,
    *,
    as_json: bool,
) -> None:
    import asyncio
    from dataclasses import asdict

    from querylift.live_shoppers import drive

    with _search_bar() as advance:
        driven = asyncio.run(drive(url, simulation, shop, searches, concurrency, advance))
    told = asdict(driven)
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        for name in ("searches", "failed", "fallbacks", "unassigned", "events", "refused"):
            print(f"{name:<22}  {told[name]:>12,}")
        for name, count in sorted(told["variants"].items()):
            print(f"{name:<22}  {count:>12,}")
    if driven.failed or driven.refused:
        raise Finding(
            f"{driven.failed:,} searches failed and {driven.refused:,} events were refused: "
            f"{driven.error}"
        )


def _parts(text: str) -> list[str]:
    return [part for part in text.split(",") if part.strip()]


@contextlib.contextmanager
def _search_bar() -> Iterator[Callable[[int, int], None]]:
    from tqdm import tqdm

    with tqdm(desc="shoppers", unit=" searches", unit_scale=True, delay=0.5) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance
