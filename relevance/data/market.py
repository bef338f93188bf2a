"""The generated shop, our embedded default: no shopper, product or rater of it is real.

Products are drawn as structured attributes. Titles, queries, grades and clicks all follow from
those, and grades from nothing else: see ``market_truth.grade``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from relevance.data import market_catalogue
from relevance.data.market_catalogue import chunks, ids, make_catalogue, product_rows
from relevance.data.market_log import Log
from relevance.data.market_queries import POOL, Pools, Queries, Shelves, make_queries
from relevance.data.market_truth import Intent, Product, grade
from relevance.data.splits import assign_split
from relevance.data.tables import TABLES, DatasetCard, table_path, write_card
from relevance.files import new_dir

__all__ = ["Intent", "MarketConfig", "Product", "grade", "make_market"]

_QUERY_CHUNK = 5_000
"""Queries whose pools are sought, and whose judgments are written, at once."""
_JUDGED_PER_QUERY = 24
"""Judged items of a query, while there are queries enough."""

_HARDNESS = 0.7
"""How far judgments prefer items that are hard to tell apart; 0 is not at all."""


@dataclass(frozen=True)
class MarketConfig:
    """Size and habits of the generated shop."""

    products: int = 20_000
    """Rows of the products table."""
    queries: int = 2_000
    """Different queries."""
    searches: int = 30_000
    """Searches in the log, of about 12.8 events each; 0 writes no log."""
    judgments: int = 48_000
    """Judged pairs, 24 a query while there are queries enough; 0 writes none."""
    shoppers: int = 5_000
    """People who search."""
    days: int = 28
    """Span of the log."""
    zipf: float = 0.9
    """Exponent of query frequency by rank; 0 makes all alike."""
    accidents: float = 0.03
    """Chance that an examined item is clicked whatever it is."""
    seed: int = 0
    """The same seed gives the same bytes."""

    def __post_init__(self) -> None:
        least = {
            "products": 10 * POOL,
            "queries": 1,
            "searches": 0,
            "judgments": 0,
            "shoppers": 1,
            "days": 1,
            "zipf": 0,
            "seed": 0,
        }
        for name, bound in least.items():
            value = getattr(self, name)
            if not value >= bound:  # so that nan is refused too
                raise ValueError(f"{name} is {value}, want {bound} or more")
        for name in ("products", "queries", "shoppers"):
            if getattr(self, name) >= 2**31:
                raise ValueError(f"{name} is {getattr(self, name)}, want less than 2**31")
        if self.judgments > self.queries * POOL:
            raise ValueError(
                f"judgments is {self.judgments}, want at most {self.queries * POOL}: "
                f"{POOL} for each of {self.queries} queries"
            )
        if not 0 <= self.accidents < 1:
            raise ValueError(f"accidents is {self.accidents}, want 0 or more, below 1")


def make_market(
    config: MarketConfig, out: Path, progress: Callable[[int, int], None] | None = None
) -> None:
    """Generate a shop into the new dataset ``out``.

    Besides the four tables it holds ``intents.parquet``, what each query means, so that anyone
    can grade again. Text is made and written in chunks; what stays in memory is 20 bytes a
    product and about 0.5 kB a query.

    Args:
        config: Size and seed.
        out: Dataset directory to make; whole or absent afterwards.
        progress: Called with rows done and rows in all; the log counts as searches.

    Raises:
        ValueError: The products do not give rise to so many different queries.
        FileExistsError: ``out`` is there already.
        OSError: The disk is full.
    """
    total = config.products + 2 * config.queries + config.searches + config.judgments
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress(done, total)

    with new_dir(out) as partial:
        catalogue = make_catalogue(config.products, config.seed)
        with _writer(partial, "products") as writer:
            for rows in chunks(config.products, market_catalogue.CHUNK):
                writer.write_table(product_rows(catalogue, rows, config.seed))
                advance(rows.stop - rows.start)
        queries = make_queries(catalogue, config.queries, config.seed)
        advance(config.queries)
        shelves = Shelves(catalogue)
        parts = []
        for rows in chunks(config.queries, _QUERY_CHUNK):
            parts.append(shelves.pools(queries, rows, config.seed))
            advance(rows.stop - rows.start)
        pools = Pools.join(parts)
        searches = np.zeros(config.queries, np.int64)
        if config.searches:
            with _writer(partial, "events") as writer:
                first = 0
                for asked, events in _log(config, pools).chunks(_popularity(queries, config.seed)):
                    writer.write_table(events.table(first))
                    first += len(events)
                    searches += np.bincount(asked, minlength=config.queries)
                    advance(len(asked))
        if config.judgments:
            with _writer(partial, "judgments") as writer:
                for table in _judgments(config, pools):
                    writer.write_table(table)
                    advance(len(table))
        _write_queries(queries, searches if config.searches else None, partial)
        write_card(
            DatasetCard(
                name="market",
                is_generated=True,
                licence="generated by querylift (Apache-2.0)",
                settings=asdict(config),
            ),
            partial,
        )


def _writer(data: Path, table: str) -> pq.ParquetWriter:
    # level 1: a third of the time at nearly the size
    return pq.ParquetWriter(
        table_path(data, table), TABLES[table], compression="zstd", compression_level=1
    )


def _log(config: MarketConfig, pools: Pools) -> Log:
    return Log(
        pools=pools,
        searches=config.searches,
        shoppers=config.shoppers,
        days=config.days,
        zipf=config.zipf,
        accidents=config.accidents,
        seed=config.seed,
    )


def _popularity(queries: Queries, seed: int) -> NDArray[np.int64]:
    """Queries, the most frequent first: short ones more often than not."""
    rng = np.random.default_rng((seed, 6))
    n_words = np.array([len(text.split()) for text in queries.texts])
    return np.argsort(n_words + rng.normal(0, 1.5, len(n_words)), kind="stable")


def _judgments(config: MarketConfig, pools: Pools) -> Iterator[pa.Table]:
    """Consensus grades of items drawn from the pools of randomly chosen queries."""
    rng = np.random.default_rng((config.seed, 7))
    wanted = min(config.queries, -(-config.judgments // _JUDGED_PER_QUERY))
    judged = np.sort(rng.choice(config.queries, wanted, replace=False))
    each, more = divmod(config.judgments, wanted)
    for rows in chunks(wanted, _QUERY_CHUNK):
        part = judged[rows]
        count = each + (np.arange(rows.start, rows.stop) < more)
        # pools begin with what is hard to tell apart and end with random items
        draw = rng.random((len(part), POOL)) + np.linspace(0, _HARDNESS, POOL)
        query, place = np.nonzero(draw.argsort(axis=1).argsort(axis=1) < count[:, None])
        yield pa.table(
            [
                ids("q", part[query]),
                ids("p", pools.items[part[query], place]),
                pa.array(pools.grades[part[query], place]),
                pa.nulls(len(query), pa.string()),
            ],
            schema=TABLES["judgments"],
        )


def _write_queries(queries: Queries, searches: NDArray[np.int64] | None, data: Path) -> None:
    n = len(queries)
    rows = pa.table(
        [
            ids("q", np.arange(n)),
            pa.array(queries.texts, pa.string()),
            pa.array([assign_split(text) for text in queries.texts], pa.string()),
            pa.repeat("market", n),
            pa.nulls(n, pa.int64()) if searches is None else pa.array(searches),
        ],
        schema=TABLES["queries"],
    )
    with _writer(data, "queries") as writer:
        writer.write_table(rows)
    pq.write_table(queries.intent_rows(), data / "intents.parquet", compression="zstd")
