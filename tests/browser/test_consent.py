"""Nothing is stored or sent without consent, and withdrawing it forgets."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.shop import Shop, results, until
from tests.browser.tab import Tab

STORED = "() => [...Object.keys(localStorage), ...Object.keys(sessionStorage), document.cookie]"


def asking(shop: Shop, **settings: str) -> str:
    return shop.page("list", results("A1"), consent="asked", **settings)


def test_nothing_is_stored_or_sent_before_consent(shop: Shop, tab: Tab) -> None:
    tab.open(asking(shop))
    tab.wait_ms(60_000)
    tab.page.click("#A1")
    assert tab.event("view", item_id="A1") is None
    assert tab.run(STORED) == [""]
    assert not shop.bodies
    tab.consent(True)
    tab.wait_ms(1_000)
    tab.send()
    assert [event["action_name"] for event in shop.events] == ["impression"]


def test_withdrawn_consent_forgets_ids_and_queue(shop: Shop, tab: Tab) -> None:
    tab.open(shop.page("list", results("A1")))
    tab.run("() => { localStorage.basket = 'the shop' }")
    tab.wait_ms(1_000)
    tab.page.click("#A1 a", button="middle")
    assert tab.status["queued"] == 2
    tab.consent(False)
    assert tab.run(STORED) == ["basket", ""]
    tab.wait_ms(60_000)
    assert tab.event("view", item_id="A1") is None
    assert not shop.bodies


def test_consent_that_is_given_again_starts_with_other_ids(shop: Shop, tab: Tab) -> None:
    tab.open(shop.page("list", results("A1")))
    for _ in range(2):
        tab.wait_ms(1_000)
        tab.send()
        tab.consent(False)
        tab.consent(True)
    first, second = shop.of("impression")
    assert first["client_id"] != second["client_id"]
    assert first["session_id"] != second["session_id"]


def test_consent_withdrawn_in_one_tab_holds_in_all(shop: Shop, context: Any, tab: Tab) -> None:
    tab.open(shop.page("list", results("A1")))
    other = Tab(context).open(shop.page("other", results("B1")))
    tab.consent(False)
    until(lambda: not other.status["granted"])
    other.wait_ms(5_000)
    assert other.status == {
        "granted": False,
        "queued": 0,
        "accepted": 0,
        "refused": 0,
        "dropped": 0,
    }
    assert tab.run(STORED) == [""]


@pytest.mark.parametrize("signal", ["globalPrivacyControl: true", "doNotTrack: '1'"])
def test_privacy_signals_outweigh_consent_unless_a_setting_says_otherwise(
    shop: Shop, context: Any, tab: Tab, signal: str
) -> None:
    name, value = signal.split(": ")
    context.add_init_script(
        f"Object.defineProperty(Navigator.prototype, '{name}', {{ get: () => {value} }})"
    )
    tab.open(shop.page("list", results("A1")))
    tab.consent(True)
    tab.wait_ms(5_000)
    assert tab.run(STORED) == [""]
    tab.open(shop.page("list", results("A1"), privacy_signals="ignore"))
    tab.wait_ms(1_000)
    assert tab.status["queued"] == 1


def test_a_shopper_keeps_an_id_and_a_session_ends_after_half_an_hour(shop: Shop, tab: Tab) -> None:
    for idle_minutes in (0, 29, 31):
        tab.open(shop.page("list", ""))
        tab.wait_ms(idle_minutes * 60_000)
        tab.event("view", item_id="A1")
        tab.send()
    first, second, third = shop.events
    assert first["client_id"] == second["client_id"] == third["client_id"]
    assert first["session_id"] == second["session_id"] != third["session_id"]
    (cookie,) = tab.page.context.cookies()
    assert (cookie["name"], cookie["value"]) == ("ql_client", first["client_id"])
    assert cookie["sameSite"] == "Lax"


def test_an_id_that_the_shop_gave_is_kept(shop: Shop, context: Any, tab: Tab) -> None:
    context.add_cookies([{"name": "shopper", "value": "s-1", "url": shop.url}])
    for settings in ({"cookie": "shopper"}, {"client_id": "s-2"}):
        tab.open(shop.page("list", "", **settings))
        tab.event("view", item_id="A1")
        tab.send()
    assert [event["client_id"] for event in shop.events] == ["s-1", "s-2"]
    assert [cookie["name"] for cookie in context.cookies()] == ["shopper"]


def test_a_tag_without_an_endpoint_does_nothing_but_warn(shop: Shop, tab: Tab) -> None:
    tab.open(shop.page("list", results("A1"), endpoint=""))
    tab.consent(True)
    tab.wait_ms(5_000)
    assert tab.run(STORED) == [""]
    assert tab.warnings == ["querylift: the script has no data-endpoint: nothing is sent"]


def test_the_snippet_makes_one_global(shop: Shop, tab: Tab) -> None:
    names = "() => Object.keys(window)"
    tab.open(shop.page("plain", "", script=False))
    before = set(tab.run(names))
    tab.open(shop.page("list", "", head='<script src="ubi.js" defer></script>'))
    assert set(tab.run(names)) - before == {"querylift"}
