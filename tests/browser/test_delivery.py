"""Every event arrives, whatever happens to the network, the server or the page."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.browser.shop import Shop, results, until
from tests.browser.tab import Tab

DOWN = (503, {"retry-after": "1"})
MANY = "(n) => { for (let i = 0; i < n; i++) querylift.event('view', { item_id: 'i' + i }) }"


def ids_of(body: bytes) -> list[str]:
    return [event["event_id"] for event in json.loads(body)]


def ids(shop: Shop) -> list[str]:
    """Of all that was taken; an event that was taken twice is there twice."""
    return sorted(event["event_id"] for event in shop.events)


def views(tab: Tab, n_events: int = 3) -> list[str]:
    """Make some events; gives their ids."""
    return [tab.event("view", item_id=f"i{i}") or "" for i in range(n_events)]


def answered(tab: Tab) -> None:
    """Wait until no request is under way: whoever sends holds the lock."""
    until(lambda: tab.run("() => navigator.locks.query().then(({ held }) => !held.length)"))


@pytest.fixture
def empty(shop: Shop) -> str:
    return shop.page("empty", "")


def test_events_are_sent_together_after_two_seconds(shop: Shop, tab: Tab, empty: str) -> None:
    tab.open(empty)
    made = views(tab)
    tab.wait_ms(1_999)
    assert tab.status["queued"] == 3
    tab.wait_ms(1)
    until(lambda: not tab.status["queued"])
    assert [ids_of(body) for body in shop.bodies] == [made]
    assert tab.status["accepted"] == 3


def test_fifty_events_wait_for_nothing(shop: Shop, tab: Tab, empty: str) -> None:
    tab.open(empty)
    tab.run(MANY, 50)
    tab.wait_ms(1)
    until(lambda: len(shop.events) == 50)
    assert len(shop.bodies) == 1


@pytest.mark.parametrize("status", [503, 500, 429])
def test_a_server_that_recovers_gets_the_same_events(
    shop: Shop, tab: Tab, empty: str, status: int
) -> None:
    tab.open(empty)
    made = views(tab)
    shop.refuse_with = (status, {})
    tab.wait_ms(2_000)
    until(lambda: len(shop.bodies) == 1)
    for pause_ms in (2_000, 4_000, 8_000):
        answered(tab)
        tab.wait_ms(pause_ms // 2 - 1)
        n_before = len(shop.bodies)
        tab.wait_ms(pause_ms // 2 + 1)
        until(lambda: len(shop.bodies) > n_before)  # noqa: B023
    answered(tab)
    assert not shop.events
    assert len(shop.bodies) == 4
    shop.refuse_with = None
    tab.wait_ms(16_000)
    until(lambda: not tab.status["queued"])
    assert ids(shop) == made
    assert all(ids_of(body) == made for body in shop.bodies)


def test_a_server_is_left_alone_as_long_as_it_asks(shop: Shop, tab: Tab, empty: str) -> None:
    tab.open(empty)
    shop.refuse_with = (503, {"retry-after": "60"})
    tab.event("view", item_id="A1")
    tab.wait_ms(2_000)
    until(lambda: len(shop.bodies) == 1)
    answered(tab)
    shop.refuse_with = None
    tab.event("view", item_id="A2")
    tab.wait_ms(59_999)
    assert tab.status["queued"] == 2
    tab.wait_ms(1)
    until(lambda: not tab.status["queued"])
    assert len(shop.bodies) == 2


def test_a_batch_that_is_wrong_is_given_up(shop: Shop, tab: Tab, empty: str) -> None:
    tab.open(empty)
    shop.refuse_with = (400, {})
    tab.event("view", item_id="A1")
    tab.send()
    shop.refuse_with = None
    tab.event("view", item_id="A2")
    tab.send()
    assert len(shop.events) == 1
    assert tab.status["refused"] == 1
    assert "refused 1 of 1 events, 400: not now" in tab.warnings[-1]


def test_an_event_that_is_refused_spoils_no_other(shop: Shop, tab: Tab, empty: str) -> None:
    tab.open(empty)
    tab.event("view", item_id="A1")
    tab.event("pay", amount=1)
    tab.send()
    assert [event["action_name"] for event in shop.events] == ["view"]
    assert tab.status["refused"] == 1
    assert "order_id: none; pay wants one" in tab.warnings[0]
    shop.bad.clear()


def test_events_wait_until_a_shopper_is_online(
    shop: Shop, context: Any, tab: Tab, empty: str
) -> None:
    tab.open(empty)
    context.set_offline(True)
    made = views(tab)
    tab.wait_ms(60_000)
    assert tab.status["queued"] == 3
    assert not shop.bodies
    context.set_offline(False)
    until(lambda: tab.run("() => navigator.onLine"))
    tab.wait_ms(10)
    until(lambda: not tab.status["queued"])
    assert ids(shop) == made


def test_the_next_page_sends_what_an_earlier_one_could_not(
    shop: Shop, tab: Tab, empty: str
) -> None:
    tab.open(empty)
    shop.refuse_with = DOWN
    made = views(tab)
    tab.page.reload()
    until(lambda: shop.bodies)
    shop.refuse_with = None
    assert tab.status["queued"] == 3
    tab.send()
    assert ids(shop) == made


def test_a_page_that_is_left_sends_its_newest_events_first(
    shop: Shop, tab: Tab, empty: str
) -> None:
    tab.open(empty)
    tab.run(MANY, 150)
    made = tab.event("view", item_id="newest")
    tab.page.goto("about:blank")
    until(lambda: made in ids(shop))


def test_a_tab_that_is_hidden_sends_at_once(shop: Shop, tab: Tab, empty: str) -> None:
    tab.open(empty)
    tab.event("view", item_id="A1")
    tab.hide()
    until(lambda: not tab.status["queued"])
    assert len(shop.events) == 1


def test_a_page_that_is_closed_sends_what_it_has(shop: Shop, tab: Tab, empty: str) -> None:
    tab.open(empty)
    made = tab.event("view", item_id="A1")
    tab.page.close()
    until(lambda: ids(shop) == [made])


def test_a_browser_without_keepalive_sends_a_beacon_and_then_again(
    shop: Shop, context: Any, tab: Tab, empty: str
) -> None:
    context.add_init_script("delete Request.prototype.keepalive")
    tab.open(empty)
    made = tab.event("view", item_id="A1")
    tab.page.goto("about:blank")
    until(lambda: ids(shop) == [made])
    # the answer was not heard: the same event comes again, and counts once by its id
    tab.open(empty)
    tab.send()
    assert ids(shop) == [made, made]


def test_two_tabs_lose_nothing_and_send_nothing_twice(
    shop: Shop, context: Any, tab: Tab, empty: str
) -> None:
    tabs = [tab.open(empty), Tab(context).open(empty)]
    made = views(tab, 40) + views(tabs[1], 40)
    for each in tabs:
        each.wait_ms(4_000)
    until(lambda: not any(each.status["queued"] for each in tabs))
    assert ids(shop) == sorted(made)


def test_a_long_queue_drops_its_oldest_events_and_counts_them(
    shop: Shop, tab: Tab, empty: str
) -> None:
    tab.open(empty)
    shop.refuse_with = DOWN
    tab.run(MANY, 500)
    tab.run(MANY, 510)
    assert tab.status["queued"] == 1_000
    assert tab.status["dropped"] == 10
    assert len(tab.warnings) == 1
    shop.refuse_with = None
    tab.wait_ms(60_000)
    until(lambda: not tab.status["queued"])
    assert len(set(ids(shop))) == len(shop.events) == 1_000
    assert max(len(ids_of(body)) for body in shop.bodies) == 50


def test_a_request_stays_below_64_kib(shop: Shop, tab: Tab, empty: str) -> None:
    tab.open(empty)
    made = [tab.event("view", user_query="ü" * 4_000) for _ in range(20)]
    tab.send()
    assert ids(shop) == made
    assert len(shop.bodies) == 3
    assert max(map(len, shop.bodies)) < 64 * 1024


def test_a_full_storage_drops_and_counts(shop: Shop, tab: Tab, empty: str) -> None:
    tab.open(empty)
    fill = """() => {
      for (let n = 2 ** 22; n >= 1; n /= 2) {
        try { localStorage["x".repeat(n % 7 + 1) + n] = "x".repeat(n) } catch (full) {}
      }
    }"""
    tab.run(fill)
    assert tab.event("view", item_id="A1") is None
    assert tab.status["dropped"] == 1
    assert "the queue is full" in tab.warnings[0]


def test_without_storage_events_live_as_long_as_the_page(
    shop: Shop, context: Any, tab: Tab
) -> None:
    for area in ("localStorage", "sessionStorage"):
        context.add_init_script(
            f"Object.defineProperty(window, '{area}', {{ get() {{ throw new DOMException() }} }})"
        )
    tab.open(shop.page("list", results("A1")))
    tab.wait_ms(1_000)
    tab.send()
    assert len(shop.of("impression")) == 1


def test_a_collector_of_another_origin_answers_with_three_headers(shop: Shop, tab: Tab) -> None:
    elsewhere = shop.url.replace("127.0.0.1", "localhost") + "/v1/events"
    tab.open(shop.page("list", "", endpoint=elsewhere))
    made = tab.event("view", item_id="A1")
    shop.preflight_s = 0.3  # the events themselves are sent when the page is gone
    tab.page.goto("about:blank")
    until(lambda: ids(shop) == [made])


def test_by_a_clock_that_nobody_moves_an_impression_arrives(shop: Shop, chromium: Any) -> None:
    with chromium.new_context() as context:
        Tab(context).open(shop.page("list", results("A1")))
        until(lambda: shop.of("impression"))
