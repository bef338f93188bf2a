"""Clicks, and what shoppers do with items after them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.shop import Shop, results, until
from tests.browser.tab import Tab

PAGE_OF_ITEM = '<button data-ql-action="add_to_cart" data-ql-item-id="A1">Buy</button>'
MONEY = {"order_id": "o-1", "currency": "EUR"}


def item_of(event: dict[str, Any]) -> str:
    return event["event_attributes"]["object"]["object_id"]


@pytest.fixture
def list_url(shop: Shop) -> str:
    shop.page("item", PAGE_OF_ITEM, script=False)
    return shop.page("list", results("A1"))


def test_a_click_is_delivered_although_the_page_is_left(
    shop: Shop, tab: Tab, list_url: str
) -> None:
    tab.open(list_url)
    tab.page.click("#A1 a")
    tab.page.wait_for_url("**/item")  # a page without the snippet, and the clock has not moved
    until(lambda: shop.of("click"))
    (click,) = shop.of("click")
    assert click["query_id"] == "q-1"
    assert click["user_query"] == "velvet sofa"
    assert click["event_attributes"] == {
        "position": {"ordinal": 1},
        "object": {"object_id": "A1"},
    }


def test_middle_clicks_and_the_keyboard_click_too(shop: Shop, tab: Tab, list_url: str) -> None:
    tab.open(list_url)
    tab.page.click("#A1 a", button="right")
    assert tab.status["queued"] == 0
    tab.page.click("#A1 a", button="middle")
    assert tab.status["queued"] == 1
    tab.page.focus("#A1 a")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url("**/item")
    until(lambda: len({event["event_id"] for event in shop.of("click")}) == 2)


def test_a_click_counts_where_a_link_or_an_action_is(shop: Shop, tab: Tab) -> None:
    inside = (
        '<a id="link" href="#x"><b id="bold">A1</b></a><p id="text">velvet</p>'
        '<button id="like">Like</button><a id="zoom" href="#y" data-ql-action="">Zoom</a>'
        '<button id="ask" data-ql-action="contact_supplier">Ask</button>'
    )
    body = results("A1").replace('<a href="item">A1</a>', inside) + '<a id="help" href="#h">?</a>'
    tab.open(shop.page("list", body))
    for part in ("bold", "text", "like", "zoom", "ask", "help"):
        tab.page.click(f"#{part}")
    tab.send()
    done = {event["action_name"] for event in shop.events}
    assert done == {"impression", "click", "contact_supplier"}
    assert len(shop.of("click")) == 1


def test_a_page_that_stops_a_click_does_not_hide_it(shop: Shop, tab: Tab, list_url: str) -> None:
    tab.open(list_url)
    tab.run(
        "() => A1.addEventListener('click', (e) => { e.stopPropagation(); e.preventDefault() })"
    )
    tab.page.click("#A1 a")
    assert tab.status["queued"] == 1


def test_the_last_click_tells_which_query_led_to_a_basket(
    shop: Shop, tab: Tab, list_url: str
) -> None:
    tab.open(list_url)
    tab.page.click("#A1 a")
    tab.open(shop.page("item", PAGE_OF_ITEM))
    tab.page.click("button")
    tab.event("order", item_id="A1", amount=20, quantity=2, **MONEY)
    tab.event("order", item_id="B1", amount=5, **MONEY)
    tab.send()
    (cart,) = shop.of("add_to_cart")
    order, other = sorted(shop.of("order"), key=item_of)
    for event in (cart, order):
        assert event["query_id"] == "q-1"
        assert event["user_query"] == "velvet sofa"
        assert event["event_attributes"]["position"] == {"ordinal": 1}
    assert "query_id" not in other
    assert other["event_attributes"]["position"] == {"ordinal": 0}


def test_a_click_of_yesterday_explains_nothing(shop: Shop, tab: Tab, list_url: str) -> None:
    tab.open(list_url)
    tab.page.click("#A1 a", button="middle")
    kept = "() => JSON.parse(localStorage['querylift.clicked'])"
    (click,) = tab.run(kept)
    click["at"] -= 25 * 3_600_000
    tab.run("(clicks) => { localStorage['querylift.clicked'] = JSON.stringify(clicks) }", [click])
    tab.event("view", item_id="A1")
    tab.send()
    assert "query_id" not in shop.of("view")[0]


def test_orders_payments_and_refunds_have_their_money(shop: Shop, tab: Tab) -> None:
    tab.open(shop.page("thanks", "<p>Thank you</p>"))
    assert tab.event("order", item_id="A1", amount="19.90", quantity="2", **MONEY)
    assert tab.event("pay", amount=19.9, **MONEY)
    assert tab.event("refund", amount=-19.9, **MONEY)
    tab.send()
    (order,), (pay,), (refund,) = map(shop.of, ("order", "pay", "refund"))
    commerce = {"order_id": "o-1", "currency": "EUR", "amount": 19.9}
    assert order["event_attributes"]["commerce"] == commerce | {"quantity": 2}
    assert pay["event_attributes"]["commerce"] == commerce
    assert refund["event_attributes"]["commerce"] == commerce | {"amount": -19.9}


@pytest.mark.parametrize("action", ["impression", "click"])
def test_results_need_a_query_an_item_and_a_position(shop: Shop, tab: Tab, action: str) -> None:
    tab.open(shop.page("list", ""))
    assert tab.event(action, query_id="q-1", item_id="A1") is None
    assert tab.warnings == [f"querylift: {action} without position"]
    assert tab.event(action, query_id="q-1", item_id="A1", position=1)


def test_a_bad_field_makes_no_event_and_one_warning(shop: Shop, tab: Tab) -> None:
    tab.open(shop.page("list", ""))
    bad = {
        "amount": ["1,50", "NaN", "1e400"],
        "currency": ["euro"],
        "position": [0, -1, 1.5],
        "quantity": [0, "two"],
        "item_id": ["A" * 257, ""],
        "price": [1],
        "constructor": [1],
    }
    for name, values in bad.items():
        for value in values:
            assert tab.event("view", **{name: value}) is None
    assert tab.status["queued"] == 0
    first = [f"querylift: {name} '{str(values[0])[:50]}', want" for name, values in bad.items()]
    assert [text[: len(start)] for text, start in zip(tab.warnings, first, strict=True)] == first


def test_an_unknown_action_makes_no_event(shop: Shop, tab: Tab) -> None:
    tab.open(shop.page("list", '<button data-ql-action="like" data-ql-item-id="A1">+</button>'))
    tab.page.click("button")
    assert tab.event("exposure") is None  # whoever splits the traffic says so
    assert tab.status["queued"] == 0
    assert len(tab.warnings) == 1
    assert "action 'like', want one of impression,click," in tab.warnings[0]
