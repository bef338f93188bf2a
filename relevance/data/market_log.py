"""Click log of the generated shop: searches by simulated shoppers, as a stream of chunks.

A shopper examines rank r with chance r ** -0.8 and clicks what is examined by its grade, or by
accident. A click may lead to the cart, the cart to an order, an order to payment; asking the
supplier is a side step that any click may lead to. So pay has an order, an order an
add_to_cart, and that a click; contact_supplier has a click, and an order needs none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relevance.data.market_catalogue import Ints, chunks, ids
from relevance.data.market_queries import Pools
from relevance.data.tables import ACTIONS, TABLES

CHUNK = 20_000
"""Searches whose events are in memory at once; one row group."""

PAGE = 10
"""Items shown per search."""

START_MS = 1_767_225_600_000
"""First moment of the log: 2026-01-01, UTC."""

_DAY_MS = 86_400_000
_EXAMINED = np.arange(1, PAGE + 1) ** -0.8
_CLICK = np.array([0.0, 0.12, 0.35, 0.65])
_CART = np.array([0.02, 0.10, 0.22, 0.40])
_CONTACT = np.array([0.01, 0.06, 0.12, 0.20])
_ORDER = np.array([0.05, 0.20, 0.40, 0.60])
_PAY = np.array([0.50, 0.70, 0.85, 0.92])
"""Chance of each action by grade, given the one before it."""

_ACTION_NAMES = pa.array(["impression", *ACTIONS], pa.string())


@dataclass(frozen=True)
class Events:
    """Events as numbers, one array a column."""

    time_ms: NDArray[np.int64]
    search: NDArray[np.int64]
    shopper: NDArray[np.int32]
    query: NDArray[np.int32]
    item: NDArray[np.int32]
    action: NDArray[np.int8]
    position: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.time_ms)

    def take(self, rows: Ints | NDArray[np.bool_]) -> Events:
        """Rows by number or mask."""
        return Events(*(getattr(self, field.name)[rows] for field in fields(self)))

    @staticmethod
    def join(parts: list[Events]) -> Events:
        """All rows of ``parts``."""
        names = [field.name for field in fields(Events)]
        return Events(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))

    def table(self, first: int) -> pa.Table:
        """The events table, ``first`` being the number of the first row."""
        columns = [
            ids("e", np.arange(first, first + len(self))),
            pa.array(self.time_ms).cast(pa.timestamp("ms", tz="UTC")),
            ids("u", self.shopper),
            ids("s", self.search),
            ids("q", self.query),
            ids("p", self.item),
            _ACTION_NAMES.take(pa.array(self.action)),
            pa.array(self.position),
        ]
        return pa.table(columns, schema=TABLES["events"])


@dataclass(frozen=True)
class Log:
    """Who searches what, and when."""

    pools: Pools
    searches: int
    shoppers: int
    days: int
    zipf: float
    accidents: float
    seed: int

    def chunks(self, popularity: Ints) -> Iterator[tuple[Ints, Events]]:
        """The log in order of time.

        Args:
            popularity: Queries, the most frequent first.

        Yields:
            The query of every search in the chunk, and the events up to the next chunk.
        """
        share = (np.arange(len(popularity)) + 2.0) ** -self.zipf
        ends = np.cumsum(share / share.sum())
        later: list[Events] = []
        for rows in chunks(self.searches, CHUNK):
            rng = np.random.default_rng((self.seed, 5, rows.start))
            rank = np.searchsorted(ends, rng.random(rows.stop - rows.start))
            query = popularity[np.minimum(rank, len(popularity) - 1)].astype(np.int32)
            events = Events.join([*later, *self._searches(rows, query, rng)])
            events = events.take(np.argsort(events.time_ms, kind="stable"))
            is_later = events.time_ms >= self._starts(np.array([rows.stop]))[0]
            if rows.stop == self.searches:
                is_later[:] = False
            later = [events.take(is_later)]
            yield query, events.take(~is_later)

    def _starts(self, search: NDArray[np.float64] | Ints) -> NDArray[np.int64]:
        return (START_MS + search * (self.days * _DAY_MS / self.searches)).astype(np.int64)

    def _searches(
        self, rows: slice, query: NDArray[np.int32], rng: np.random.Generator
    ) -> list[Events]:
        """Impressions, then each depth of action."""
        n = len(query)
        search = np.arange(rows.start, rows.stop)
        start = self._starts(search + rng.random(n))
        shopper = (self.shoppers * rng.random(n) ** 1.5).astype(np.int32)
        # queries are ranked alike every time, but for some luck
        rank = self.pools.matches[query] + rng.normal(0, 0.35, (n, self.pools.items.shape[1]))
        page = np.argsort(-rank, axis=1, kind="stable")[:, :PAGE]
        item = np.take_along_axis(self.pools.items[query], page, axis=1)
        grade: Ints = np.take_along_axis(self.pools.grades[query], page, axis=1).ravel()
        shown = Events(
            np.repeat(start, PAGE),
            np.repeat(search, PAGE),
            np.repeat(shopper, PAGE),
            np.repeat(query, PAGE),
            item.ravel(),
            np.zeros(n * PAGE, np.int8),
            np.tile(np.arange(1, PAGE + 1, dtype=np.int32), n),
        )

        def after(
            events: Events, grade: Ints, chance: NDArray[np.float64], action: str, wait_s: float
        ) -> tuple[Events, Ints]:
            """Those of ``events`` that lead to ``action``, 1 s to ``wait_s`` later."""
            happens = rng.random(len(events)) < chance
            events, grade = events.take(happens), grade[happens]
            wait = (1_000 + rng.random(len(events)) * (wait_s - 1) * 1_000).astype(np.int64)
            code = np.full(len(events), 1 + ACTIONS.index(action), np.int8)
            return (
                Events(
                    events.time_ms + wait,
                    events.search,
                    events.shopper,
                    events.query,
                    events.item,
                    code,
                    events.position,
                ),
                grade,
            )

        attraction = self.accidents + (1 - self.accidents) * _CLICK[grade]
        examined = np.tile(_EXAMINED, n)
        click, grade = after(shown, grade, examined * attraction, "click", 60)
        contact, _ = after(click, grade, _CONTACT[grade], "contact_supplier", 300)
        cart, grade = after(click, grade, _CART[grade], "add_to_cart", 120)
        order, grade = after(cart, grade, _ORDER[grade], "order", 300)
        pay, _ = after(order, grade, _PAY[grade], "pay", 60)
        return [shown, click, cart, contact, order, pay]
