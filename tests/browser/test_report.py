"""The report as a reader has it: on a phone and at a desk, light and dark, and on paper."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from abtest import report_words as words
from abtest.report import report
from abtest.report_index import index_page, reports
from abtest.result import Result
from tests.abtest.results import result

LONG = "a_metric_whose_name_somebody_typed_without_ever_thinking_of_a_phone"
# of every text: its contrast with what is painted behind it, as WCAG 2 has it
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (color) => {
    const [r, g, b] = rgb(color).map((part) => part / 255)
      .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return rgb(color)[3] === 255 || !element.parentElement ? color : behind(element.parentElement);
  };
  document.querySelectorAll("details").forEach((it) => { it.open = true; });
  const found = {};
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((it) => it.nodeType === 3 && it.data.trim());
    if (!own || element.closest("circle")) continue;
    const style = getComputedStyle(element);
    const color = element.closest("svg") ? style.fill : style.color;
    const [a, b] = [light(color), light(behind(element))].sort((x, y) => y - x);
    found[`${element.tagName}.${element.getAttribute("class")} ${color}`] = (a + .05) / (b + .05);
  }
  return found;
}"""
PAINT = """(tone) => {
  document.querySelector(".verdict").className = `verdict ${tone}`;
  document.querySelector(".verdict .light").className = `light ${tone}`;
}"""
# what a screen reader wants; each thing that it would not get is told
FAULTS = """() => {
  const faults = [];
  const want = (is, fault) => { if (!is) faults.push(fault); };
  want(document.documentElement.lang, "no language");
  want(document.title, "no title");
  want(document.querySelectorAll("h1").length === 1, "not one h1");
  want(document.querySelectorAll("main").length === 1, "not one main");
  let level = 0;
  for (const it of document.querySelectorAll("h1,h2,h3")) {
    want(+it.tagName[1] <= level + 1, "a level left out at " + it.textContent);
    level = +it.tagName[1];
  }
  for (const it of document.querySelectorAll("svg")) {
    const isNamed = it.getAttribute("role") === "img" && it.getAttribute("aria-label");
    want(isNamed || it.getAttribute("aria-hidden") === "true", "an image without words");
  }
  for (const it of document.querySelectorAll("table")) {
    want(it.caption?.textContent, "a table without a caption");
    it.querySelectorAll("th").forEach((th) => want(th.scope, "a th without a scope"));
    it.querySelectorAll("tbody tr").forEach((tr) => want(tr.querySelector("th"), "a bare row"));
  }
  document.querySelectorAll("a,summary").forEach((it) =>
    want(it.textContent.trim() && it.tabIndex >= 0, "a control out of reach"));
  return faults;
}"""


@pytest.fixture
def open_page(chromium: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a result's page; whatever the browser asks for or complains of is a failure."""
    asked: list[str] = []
    complaints: list[str] = []
    contexts = []

    path = tmp_path / "report.html"

    def open_page(html: str, **options: Any) -> Any:
        path.write_text(html)
        contexts.append(chromium.new_context(**options))
        page = contexts[-1].new_page()
        page.on("request", lambda it: asked.append(it.url))
        page.on("console", lambda it: complaints.append(it.text))
        page.on("pageerror", lambda it: complaints.append(str(it)))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints
    assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}


def html_of(found: Result) -> str:
    return next(iter(report(found).values()))


def test_the_verdict_is_seen_without_scrolling(open_page: Callable[..., Any]) -> None:
    page = open_page(html_of(result()), viewport={"width": 390, "height": 844})
    box = page.locator(".verdict").bounding_box()
    assert box["y"] + box["height"] < 844
    assert "Ship treatment" in page.locator(".verdict").inner_text()


@pytest.mark.parametrize("name", ["ctr", LONG])
def test_nothing_scrolls_sideways(open_page: Callable[..., Any], name: str) -> None:
    text = msgspec.json.encode(result(("control", "arm-a", "arm-b"))).decode()
    for old in ("ctr", "arm-b", "shop-web"):
        text = text.replace(f'"{old}"', f'"{name}"')
    page = open_page(html_of(msgspec.json.decode(text, type=Result)))
    page.evaluate("() => document.querySelectorAll('details').forEach((it) => { it.open = true })")
    for width in (320, 390, 740, 900, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(open_page: Callable[..., Any], scheme: str) -> None:
    page = open_page(html_of(result()), color_scheme=scheme)
    for tone in {tone for tone, _, _ in words.DECISIONS.values()}:
        page.evaluate(PAINT, tone)
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 10
        assert {name: it for name, it in contrasts.items() if it < 4.5} == {}


def test_who_does_not_see_it_is_told(open_page: Callable[..., Any]) -> None:
    page = open_page(html_of(result()))
    assert page.evaluate(FAULTS) == []


def test_the_keyboard_opens_what_is_closed(open_page: Callable[..., Any]) -> None:
    page = open_page(html_of(result()))
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.tagName") == "SUMMARY"
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1


def test_paper_has_pages_with_everything_open(open_page: Callable[..., Any]) -> None:
    page = open_page(html_of(result()), color_scheme="dark")
    paper = page.pdf(format="A4")
    assert len(re.findall(rb"/Type\s*/Page\b", paper)) >= 2
    page.emulate_media(media="print")
    heights = page.evaluate(
        "() => [...document.querySelectorAll('details > :last-child')].map((it) => it.clientHeight)"
    )
    assert min(heights) > 50
    # black on white, whatever the screen had
    assert page.evaluate("() => getComputedStyle(document.body).color") == "rgb(29, 31, 36)"


def test_the_index_is_as_good_a_page(open_page: Callable[..., Any], tmp_path: Path) -> None:
    directory = tmp_path / "reports"
    directory.mkdir()
    for name, text in report(result()).items():
        (directory / name).write_text(text)
    html = index_page(reports(directory))
    page = open_page(html, viewport={"width": 320, "height": 800})
    assert page.evaluate(FAULTS) == []
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 320
    assert min(page.evaluate(CONTRASTS).values()) >= 4.5
