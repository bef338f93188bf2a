"""An item is seen once half of it has been in view for a second."""

from __future__ import annotations

from uuid import UUID

from abtest.records import is_uuid7
from tests.browser.shop import Shop, results
from tests.browser.tab import Tab

FAR = '<div class="far" id="far"></div>'


def seen(shop: Shop) -> list[str]:
    return [event["event_attributes"]["object"]["object_id"] for event in shop.of("impression")]


def test_an_item_in_view_for_a_second_is_an_impression(shop: Shop, tab: Tab) -> None:
    tab.open(shop.page("list", results()))
    tab.wait_ms(999)
    assert tab.status["queued"] == 0
    tab.wait_ms(1)
    assert tab.status["queued"] == 2
    tab.send()
    assert sorted(seen(shop)) == ["A1", "A2"]


def test_an_event_is_as_ubi_has_it(shop: Shop, tab: Tab) -> None:
    tab.open(shop.page("list", results("A1"), user_id="u-1"))
    tab.wait_ms(1_000)
    tab.send()
    (event,) = shop.events
    assert is_uuid7(UUID(event.pop("event_id")))
    assert event.pop("timestamp").endswith("Z")
    assert len(event.pop("session_id")) == len(event.pop("client_id")) == 36
    assert event == {
        "action_name": "impression",
        "application": "shop",
        "query_id": "q-1",
        "user_id": "u-1",
        "user_query": "velvet sofa",
        "event_attributes": {"position": {"ordinal": 1}, "object": {"object_id": "A1"}},
    }


def test_an_item_out_of_view_is_an_impression_once_it_is_scrolled_to(shop: Shop, tab: Tab) -> None:
    tab.open(shop.page("list", results("A1") + FAR + results("B1")))
    tab.wait_ms(5_000)
    tab.send()
    assert seen(shop) == ["A1"]
    tab.scroll_to("B1")
    tab.wait_ms(1_000)
    tab.send()
    assert seen(shop) == ["A1", "B1"]


def test_less_than_half_of_an_item_is_no_impression(shop: Shop, tab: Tab) -> None:
    tab.open(shop.page("list", results("A1") + FAR))
    tab.run("() => scrollTo(0, 110)")  # of 200 pixels and a margin of 16
    tab.look()
    tab.wait_ms(1_000)
    assert tab.status["queued"] == 1
    tab.send()
    tab.page.reload()
    tab.run("() => { sessionStorage.clear(); scrollTo(0, 130); }")
    tab.look()
    tab.wait_ms(1_000)
    assert tab.status["queued"] == 0


def test_the_second_starts_anew_when_an_item_leaves_the_view(shop: Shop, tab: Tab) -> None:
    tab.open(shop.page("list", results("A1") + FAR))
    tab.wait_ms(900)
    tab.scroll_to("far")
    tab.wait_ms(5_000)
    tab.scroll_to("A1")
    tab.wait_ms(900)
    assert tab.status["queued"] == 0
    tab.wait_ms(100)
    assert tab.status["queued"] == 1


def test_an_item_of_a_query_is_one_impression(shop: Shop, tab: Tab) -> None:
    url = shop.page("list", results("A1") + FAR)
    tab.open(url)
    for place in ("A1", "far", "A1"):
        tab.scroll_to(place)
        tab.wait_ms(1_500)
    tab.send()
    tab.page.reload()
    tab.look()
    tab.wait_ms(1_500)
    tab.send()
    assert seen(shop) == ["A1"]
    tab.open(shop.page("again", results("A1", query_id="q-2")))
    tab.wait_ms(1_500)
    tab.send()
    assert seen(shop) == ["A1", "A1"]


def test_items_that_come_later_count(shop: Shop, tab: Tab) -> None:
    tab.open(shop.page("list", results("A1") + '<div id="more"></div>'))
    tab.wait_ms(1_000)
    tab.run("(html) => { more.innerHTML = html; }", results("B1", query_id="q-2"))
    tab.look()
    tab.wait_ms(1_000)
    tab.send()
    assert seen(shop) == ["A1", "B1"]


def test_an_element_that_gets_another_item_or_query_counts_again(shop: Shop, tab: Tab) -> None:
    tab.open(shop.page("list", results("A1")))
    tab.wait_ms(1_000)
    tab.run("() => A1.setAttribute('data-ql-item-id', 'B1')")
    tab.look()
    tab.wait_ms(1_000)
    tab.run("() => document.querySelector('ol').setAttribute('data-ql-query-id', 'q-2')")
    tab.look()
    tab.wait_ms(1_000)
    tab.send()
    found = [(event["query_id"], item) for event, item in zip(shop.events, seen(shop), strict=True)]
    assert found == [("q-1", "A1"), ("q-1", "B1"), ("q-2", "B1")]


def test_a_hidden_tab_shows_nothing(shop: Shop, tab: Tab) -> None:
    tab.open(shop.page("list", results("A1")))
    tab.wait_ms(900)
    tab.hide()
    tab.wait_ms(5_000)
    assert tab.status["queued"] == 0
    tab.hide(False)
    tab.wait_ms(999)
    assert tab.status["queued"] == 0
    tab.wait_ms(1)
    assert tab.status["queued"] == 1


def test_bad_attributes_are_ignored_with_one_warning(shop: Shop, tab: Tab) -> None:
    bad = "".join(f'<li data-ql-item-id="B{i}" data-ql-position="first">B</li>' for i in range(3))
    lacking = '<li data-ql-item-id="C1">C</li>'
    tab.open(shop.page("list", results("A1").replace("</ol>", bad + "</ol>") + lacking))
    tab.page.set_viewport_size({"width": 800, "height": 2_000})
    tab.look()
    tab.wait_ms(1_000)
    tab.send()
    assert seen(shop) == ["A1"]
    assert len(tab.warnings) == 2
    assert "position 'first'" in tab.warnings[0]
    assert "impression without query_id,position" in tab.warnings[1]
