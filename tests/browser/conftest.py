"""A real Chromium before a real server. Its clock stands still until a test moves it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.browser.shop import Shop, serving_shops
from tests.browser.tab import Tab

# all of a test's time lies in the past, since a collector refuses what is ahead of its clock
START = timedelta(hours=-2)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    # for a module and no longer: its event loop runs in this thread, where other tests want theirs
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no chromium or google-chrome is on the PATH")
    with sync_api.sync_playwright() as playwright:
        # containers seldom let it have its sandbox, and the pages are ours
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Any) -> Iterator[Any]:
    context = chromium.new_context()
    start = datetime.now(UTC) + START
    context.clock.install(time=start)
    context.clock.pause_at(start + timedelta(seconds=1))
    yield context
    context.close()


@pytest.fixture
def tab(context: Any) -> Tab:
    return Tab(context)


@pytest.fixture(scope="module")
def open_shop() -> Iterator[Callable[[], Shop]]:
    with serving_shops() as open_shop:
        yield open_shop


@pytest.fixture
def shop(open_shop: Callable[[], Shop]) -> Iterator[Shop]:
    shop = open_shop()
    yield shop
    assert not shop.bad, "the collector must let in what the browser sends"
