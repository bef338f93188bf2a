"""Simulated shoppers before a live splitter: they ask it, and send it what they do.

What they do comes at once, a thousand times faster than people would, so that nothing is dated
ahead of the splitter's clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import aiohttp
import msgspec
import numpy as np
import pyarrow as pa

from abtest.records import Commerce, Event, EventAttributes, Item, Position, uuid7
from abtest.shop import PAGE, Ints, Shop
from abtest.shopper_plan import People, Simulation, searches_of
from abtest.shopper_tables import Searches
from abtest.shoppers import ACTIONS, IMPRESSION, ORDER, PAY, Deeds, react

_FASTER = 1_000
_TIMEOUT_S = 30.0
_TRIES = 10
"""For a log that takes nothing now."""
_FIRST = Position(ordinal=0)
"""Of an event of no place in a list."""


@dataclass
class Driven:
    """What shoppers met and sent."""

    searches: int = 0
    failed: int = 0
    """Searches that got no answer, or no order."""
    fallbacks: int = 0
    unassigned: int = 0
    """Answered without an experiment."""
    events: int = 0
    """That were accepted."""
    refused: int = 0
    error: str | None = None
    """The first of a failure or a refusal."""
    variants: dict[str, int] = field(default_factory=dict)
    """Searches by ``experiment=variant``."""


async def drive(
    url: str,
    simulation: Simulation,
    shop: Shop,
    searches: int,
    concurrency: int,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Driven:
    """Send searches and what follows them.

    Args:
        url: Of the splitter.
        simulation: Who searches. The splitter assigns variants, scorers make the order, and the
            effect on clicks, orders and amounts is on for those who are not in the control.
        shop: What is searched in.
        searches: To send, the first of those that are planned.
        concurrency: Searches that are under way at a time.
        advance: Told searches done and searches in all.

    Raises:
        ValueError: No such number of searches is planned.
    """
    plan = searches_of(simulation, shop)
    if not 1 <= searches <= len(plan):
        raise ValueError(f"{searches} searches; want 1 to {len(plan)}, for more take more users")
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(
        base_url=url, cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout
    ) as session:
        live = _Live(session, simulation, shop, plan)
        numbers = iter(range(searches))

        async def work() -> None:
            for number in numbers:
                await live.search(number)
                advance(live.driven.searches, searches)

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
    return live.driven


class _Live:
    def __init__(
        self, session: aiohttp.ClientSession, simulation: Simulation, shop: Shop, plan: Searches
    ) -> None:
        self.driven = Driven()
        self._session = session
        self._simulation = simulation
        self._shop = shop
        self._plan = plan
        self._people = People.of(simulation)

    async def search(self, number: int) -> None:
        """Ask, react, and send what was done."""
        driven = self.driven
        try:
            about = await self._ask(number)
            if about is not None:
                await self._send(list(_events(about, self._react(number, about))))
        except (aiohttp.ClientError, TimeoutError) as error:
            driven.failed += 1
            driven.error = driven.error or f"{type(error).__name__}: {error}"
        driven.searches += 1

    async def _ask(self, number: int) -> _About | None:
        simulation, shop, driven = self._simulation, self._shop, self.driven
        shopper, query = int(self._plan.shopper[number]), int(self._plan.query[number])
        unit_id, text = simulation.unit_id(shopper), shop.queries[query].as_py()
        # as a search engine finds them: pools may have the best first
        pool = simulation.rng(6, query).permutation(np.flatnonzero(shop.grades[query] >= 0))
        items = shop.pools[query, pool]
        body = {"query": text, "documents": shop.titles.take(pa.array(items)).to_pylist()}
        headers = {"x-client-id": unit_id}
        async with self._session.post("/rerank", json=body, headers=headers) as answer:
            if answer.status != 200:
                driven.failed += 1
                driven.error = driven.error or f"{answer.status}: {await answer.text()}"
                return None
            order = [hit["index"] for hit in (await answer.json())["results"][:PAGE]]
            met = answer.headers.get("x-querylift-variant", "")
            query_id = answer.headers["x-query-id"]
            driven.fallbacks += "x-querylift-fallback" in answer.headers
            driven.unassigned += "x-querylift-unassigned" in answer.headers
        for name in filter(None, met.split(", ")):
            driven.variants[name] = driven.variants.get(name, 0) + 1
        variants = dict(name.split("=") for name in met.split(", ") if name)
        variant = variants.get(simulation.experiment_id, simulation.control)
        shown, is_treated = items[order], variant != simulation.control
        level = self._people.price_level[shopper]
        factor = simulation.effect.amount if is_treated else 1.0
        return _About(
            client_id=unit_id,
            query_id=query_id,
            user_query=text,
            item_ids=shop.item_ids.take(pa.array(shown)).to_pylist(),
            amounts=np.round(level * factor * shop.prices[shown], 2).tolist(),
            grades=shop.grades[query, pool[order]],
            currency=simulation.habits.currency,
            is_treated=is_treated,
        )

    def _react(self, number: int, about: _About) -> Deeds:
        simulation = self._simulation
        return react(
            about.grades[None],
            self._people.patience[self._plan.shopper[[number]]],
            np.array([about.is_treated]),
            simulation.habits,
            simulation.effect,
            simulation.rng(5, number),
        )

    async def _send(self, events: list[Event]) -> None:
        """Send events until they are answered for; the same ids count once."""
        driven, content = self.driven, msgspec.json.encode(events)
        headers = {"content-type": "application/json"}
        for _ in range(_TRIES):
            async with self._session.post("/v1/events", data=content, headers=headers) as answer:
                if answer.status == 503:
                    await asyncio.sleep(float(answer.headers.get("retry-after", 1)))
                    continue
                if answer.status not in (200, 422):
                    break
                told = await answer.json()
                driven.events += told["accepted"]
                driven.refused += len(told["refused"])
                if told["refused"]:
                    driven.error = driven.error or told["refused"][0]["error"]
                return
        driven.refused += len(events)
        driven.error = driven.error or f"events: {answer.status}"


@dataclass(frozen=True, eq=False)
class _About:
    """A page that was shown."""

    client_id: str
    query_id: str
    user_query: str
    item_ids: list[str]
    """As shown."""
    amounts: list[float]
    """That each item would cost."""
    grades: Ints
    currency: str
    is_treated: bool


def _events(about: _About, deeds: Deeds) -> Iterator[Event]:
    now = datetime.now(UTC)
    done = zip(deeds.action.tolist(), deeds.place.tolist(), deeds.wait_ms.tolist(), strict=True)
    shown = ((IMPRESSION, place, 0) for place in range(len(about.item_ids)))
    for action, place, wait_ms in (*shown, *done):
        at = now + timedelta(milliseconds=wait_ms / _FASTER)
        item_id, is_money = about.item_ids[place], action in (ORDER, PAY)
        commerce = Commerce(
            # of a page an item is ordered once
            order_id=f"order-{about.query_id}-{place}",
            amount=about.amounts[place],
            currency=about.currency,
            quantity=1,
        )
        yield Event(
            event_id=uuid7(at),
            action_name=ACTIONS[action],  # type: ignore[arg-type]
            timestamp=at,
            query_id=about.query_id,
            client_id=about.client_id,
            user_query=about.user_query,
            event_attributes=EventAttributes(
                position=_FIRST if is_money else Position(ordinal=place + 1),
                object=Item(object_id=item_id),
                commerce=commerce if is_money else None,
            ),
        )
