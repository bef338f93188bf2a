"""The event log of simulated shoppers: in chunks, in order of time, as the files of a store."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from abtest.shop import PAGE, Ints, Shop
from abtest.shopper_plan import (
    DAY_MS,
    People,
    Simulation,
    all_met,
    assigned,
    is_treated,
    milliseconds,
    searches_of,
    spoiled,
)
from abtest.shopper_tables import NONE, Names, Rows, Searches, event_table, query_table
from abtest.shoppers import CLICK, EXPOSURE, IMPRESSION, ORDER, PAY, REFUND, Deeds, react

_CHUNK = 40_000
"""Searches whose events are in memory at once: about half a million rows."""
_LATE_DAYS = 4
"""After the end at least; an analysis waits 3."""
_LATE_SPAN_DAYS = 5
_AGAIN_MS = 5_000
"""From a row's arrival to that of its copy."""
_LATENCY_MS = 40.0
"""Median of answers; log-normal, with a standard deviation of 0.5 in the logarithm."""


class File(NamedTuple):
    """A file of a store, its rows by id."""

    table: str
    """events or queries."""
    date: str
    """Of the ids, in UTC."""
    number: int
    """Of the chunk."""
    rows: pa.Table


class ShopperLog:
    """What shoppers leave behind."""

    def __init__(self, simulation: Simulation, shop: Shop) -> None:
        searches = assigned(simulation, searches_of(simulation, shop))
        searches, planted = spoiled(simulation, searches)
        self.searches: Searches = searches
        self.planted = Counter({"bots": simulation.bots, **planted})
        """Rows, and shoppers, that are dirty; complete when all files were taken."""
        self._simulation = simulation
        self._shop = shop
        self._people = People.of(simulation)
        self._is_treated = is_treated(simulation, searches)
        self._names = _names(simulation, shop)

    def files(
        self, advance: Callable[[int, int], None] = lambda done, total: None
    ) -> Iterator[File]:
        """All files, once; calling it again would count again what is dirty.

        Args:
            advance: Told searches done and searches in all.
        """
        habits, effect = self._simulation.habits, self._simulation.effect
        usual = self._shop.pages(habits.quality)
        better = self._shop.pages(habits.quality + effect.quality)
        total = len(self.searches)
        later: list[Rows] = []
        for number, start in enumerate(range(0, total, _CHUNK), start=1):
            rng = self._simulation.rng(3, number)
            part = np.arange(start, min(start + _CHUNK, total))
            query = self.searches.query[part]
            page = np.where(self._is_treated[part, None], better[query], usual[query])
            items = np.take_along_axis(self._shop.pools[query], page, axis=1)
            grades = np.take_along_axis(self._shop.grades[query], page, axis=1)
            done = self._done(part, items, self._deeds(part, grades, rng), rng)
            events = [*later, self._shown(part, items, rng), self._exposures(part)]
            events += [done, self._clicked_again(done, rng), self._refunded(done, rng)]
            rows = Rows.join(events)
            is_later = np.zeros(len(rows), bool)
            if part[-1] + 1 < total:
                is_later = rows.time_ms >= self.searches.time_ms[part[-1] + 1]
            later = [rows.take(is_later)]
            yield from self._events(number, rows.take(~is_later), rng)
            latency_ms = np.round(_LATENCY_MS * np.exp(0.5 * rng.normal(size=len(part))), 3)
            queries = query_table(self.searches, part, items, latency_ms, self._names)
            yield from _by_date("queries", number, self.searches.time_ms[part], queries)
            advance(len(part) + start, total)

    def _deeds(self, part: Ints, grades: Ints, rng: np.random.Generator) -> Deeds:
        """What follows the pages of some searches."""
        simulation, shopper = self._simulation, self.searches.shopper[part]
        deeds = react(
            grades,
            self._people.patience[shopper],
            self._is_treated[part],
            simulation.habits,
            simulation.effect,
            rng,
        )
        is_bot = shopper >= simulation.users
        row = np.repeat(np.flatnonzero(is_bot), PAGE)
        place = np.tile(np.arange(PAGE), int(is_bot.sum()))
        clicks = Deeds(row, place, np.full(len(row), CLICK, np.int8), 1_000 + 100 * place)
        return Deeds.join([deeds.take(~is_bot[deeds.row]), clicks])

    def _exposures(self, part: Ints) -> Rows:
        row, layer = np.nonzero(self.searches.met[part] != NONE)
        search = part[row]
        return replace(
            _rows(search, self.searches.time_ms[search], EXPOSURE),
            met=self.searches.met[search, layer],
            bucket=self.searches.bucket[search, layer],
        )

    def _shown(self, part: Ints, items: Ints, rng: np.random.Generator) -> Rows:
        # a page is there a moment after its order
        shown_ms = self.searches.time_ms[part] + rng.integers(50, 400, len(part))
        return replace(
            _rows(np.repeat(part, PAGE), np.repeat(shown_ms, PAGE), IMPRESSION),
            item=items.ravel().astype(np.int32),
            position=np.tile(np.arange(1, PAGE + 1, dtype=np.int8), len(part)),
        )

    def _done(self, part: Ints, items: Ints, deeds: Deeds, rng: np.random.Generator) -> Rows:
        search, item = part[deeds.row], items[deeds.row, deeds.place].astype(np.int32)
        factor = np.where(self._is_treated[search], self._simulation.effect.amount, 1.0)
        factor = factor * self._people.price_level[self.searches.shopper[search]]
        is_money = np.isin(deeds.action, (ORDER, PAY))
        return replace(
            # after the page was shown, which took at most 400 ms
            _rows(search, self.searches.time_ms[search] + deeds.wait_ms, deeds.action),
            item=item,
            position=np.where(is_money, 0, deeds.place + 1).astype(np.int8),
            amount=np.where(is_money, np.round(factor * self._shop.prices[item], 2), np.nan),
        )

    def _clicked_again(self, done: Rows, rng: np.random.Generator) -> Rows:
        clicks = done.take(done.action == CLICK)
        again = clicks.take(rng.random(len(clicks)) < self._simulation.dirt.second_clicks)
        self.planted["second_clicks"] += len(again)
        return replace(again, time_ms=again.time_ms + rng.integers(200, 2_000, len(again)))

    def _refunded(self, done: Rows, rng: np.random.Generator) -> Rows:
        paid = done.take(done.action == PAY)
        back = paid.take(rng.random(len(paid)) < self._simulation.dirt.refunds)
        self.planted["refunds"] += len(back)
        return replace(
            back,
            time_ms=back.time_ms + rng.integers(DAY_MS // 24, 2 * DAY_MS, len(back)),
            action=np.full(len(back), REFUND, np.int8),
            amount=-back.amount,
        )

    def _events(self, number: int, rows: Rows, rng: np.random.Generator) -> Iterator[File]:
        bits = rng.integers(2**64, size=len(rows), dtype=np.uint64)
        order = np.lexsort((bits, rows.time_ms))
        rows, copy = self._received(rows.take(order), rng)
        table = event_table(rows, bits[order][copy], self.searches, self._names)
        yield from _by_date("events", number, rows.time_ms, table)

    def _received(self, rows: Rows, rng: np.random.Generator) -> tuple[Rows, Ints]:
        """Rows as they arrive, some late, some twice; and of which row each is."""
        dirt, count = self._simulation.dirt, len(rows)
        is_sent = rows.action != EXPOSURE
        delay_ms = np.where(is_sent, 200 * np.exp(rng.normal(size=count)), 0)
        received_ms = rows.time_ms + delay_ms.astype(np.int64)
        is_late = is_sent & (rng.random(count) < dirt.late)
        late_ms = rng.integers(_LATE_DAYS * DAY_MS, (_LATE_DAYS + _LATE_SPAN_DAYS) * DAY_MS, count)
        late_ms += milliseconds(self._simulation.end)
        received_ms = np.where(is_late, np.maximum(late_ms, received_ms), received_ms)
        is_twice = is_sent & (rng.random(count) < dirt.duplicates)
        self.planted["late"] += int(is_late.sum())
        self.planted["duplicates"] += int(is_twice.sum())
        copy = np.repeat(np.arange(count), 1 + is_twice)
        received_ms = received_ms[copy]
        received_ms[1:][copy[1:] == copy[:-1]] += _AGAIN_MS
        return replace(rows.take(copy), received_ms=received_ms), copy


def _names(simulation: Simulation, shop: Shop) -> Names:
    people = map(simulation.unit_id, range(simulation.users + simulation.bots))
    # nobody is behind them, so their hashes need no key
    clients = [hashlib.blake2b(name.encode(), digest_size=16).hexdigest() for name in people]
    return Names(
        clients=pa.array(clients, pa.string()),
        queries=shop.queries,
        item_ids=shop.item_ids,
        met=all_met(simulation),
        champion=simulation.experiments.champion,
        config_version=simulation.experiments.version,
        currency=simulation.habits.currency,
    )


def _rows(search: Ints, time_ms: NDArray[np.int64], action: Any) -> Rows:
    """Events about nothing yet."""
    count = len(search)
    return Rows(
        time_ms=time_ms,
        received_ms=time_ms,
        action=np.full(count, action, np.int8),
        search=search.astype(np.int64),
        item=np.full(count, NONE, np.int32),
        position=np.zeros(count, np.int8),
        amount=np.full(count, np.nan),
        met=np.full(count, NONE, np.int16),
        bucket=np.zeros(count, np.int16),
    )


def _by_date(table: str, number: int, time_ms: Ints, rows: pa.Table) -> Iterator[File]:
    """Rows in order of time, by their day in UTC."""
    days, starts, counts = np.unique(time_ms // DAY_MS, return_index=True, return_counts=True)
    for day, start, count in zip(days.tolist(), starts.tolist(), counts.tolist(), strict=True):
        date = datetime.fromtimestamp(day * DAY_MS / 1_000, UTC).date().isoformat()
        yield File(table, date, number, rows.slice(start, count))
