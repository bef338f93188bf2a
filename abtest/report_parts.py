"""Parts that a page is put together from: tables, lights, plots with their words."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from importlib.resources import files

from abtest.markup import Markup, markup, tag
from abtest.plots import arm_class
from abtest.report_words import Word

_BREAK = Markup("<br>")


def document(title: str, *content: Markup) -> str:
    """A page that stands for itself: nothing is loaded, nothing runs, nothing is sent."""
    style = files("abtest").joinpath("static/report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = "".join(
        [
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            '<meta name="referrer" content="no-referrer">',
            '<link rel="icon" href="data:,">',
            tag("title", title),
            tag("style", Markup(style)),
        ]
    )
    body = tag("main", *(markup(part, "\n") for part in content if part))
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def section(name: str, *content: Markup, title: str, about: str) -> Markup:
    """A part of the page with its heading and a sentence in plain words."""
    heading = tag("h2", title, id=name)
    return tag("section", heading, tag("p", about, class_="faint"), *content, aria_labelledby=name)


def light(word: Word) -> Markup:
    """A judgment: its shape and its words say what its colour says."""
    return tag("span", word.text, class_=f"light {word.tone}")


def below(text: str, note: str) -> Markup:
    """A cell's text, with something smaller below it."""
    return markup(text, tag("small", note)) if note else markup(text)


def row(header: Sequence[str], cells: Sequence[str], kind: str | None = None) -> Markup:
    """A row of a table, which is a card on a phone: each cell knows its column's name."""
    first, *others = cells
    named = zip(header[1:], others, strict=True)
    return tag(
        "tr",
        tag("th", first, scope="row"),
        *(tag("td", cell, data_name=name) for name, cell in named),
        class_=kind,
    )


def table(
    caption: str, header: Sequence[str], *bodies: Iterable[Markup], kind: str | None = None
) -> Markup:
    """A table of one or several groups of rows."""
    names = (tag("th", name, scope="col") for name in header)
    return tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *names)),
        *(tag("tbody", *rows) for rows in bodies),
        class_=kind,
    )


def group(title: str, columns: int) -> Markup:
    """A row that says what the rows below it have in common."""
    return tag("tr", tag("th", title, colspan=columns, scope="rowgroup"), class_="family")


def bar(share: float) -> Markup:
    """A share as a length, beside the number that says it."""
    drawn = tag("rect", width=round(100 * share, 2), height=2)
    box = {"viewBox": "0 0 100 2", "preserveAspectRatio": "none", "aria_hidden": "true"}
    return tag("svg", drawn, class_="bar", **box)


def figure(title: str, note: str, plot: Markup, *more: Markup) -> Markup:
    """A plot with its words."""
    return tag("figure", tag("figcaption", below(title, note)), *more, plot)


def figures(plots: Iterable[Markup]) -> Markup:
    """Plots side by side, as many as there is room for."""
    return tag("div", *plots, class_="figures")


def key(variants: Iterable[str]) -> Markup:
    """Which colour is which variant."""
    square = (
        tag(
            "svg",
            tag("rect", class_=arm_class(place), width=10, height=10),
            viewBox="0 0 10 10",
            aria_hidden="true",
        )
        for place in range(6)
    )
    pairs = zip(square, variants, strict=False)
    return tag("ul", *(tag("li", colour, name) for colour, name in pairs), class_="key")


def details(summary: str, *content: Markup) -> Markup:
    """What a reader opens who wants to know; printed pages have it open."""
    return tag("details", tag("summary", summary), *content)


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Names and what they are."""
    return tag("dl", *(markup(tag("dt", name), tag("dd", text)) for name, text in pairs))


def lines(texts: Iterable[str]) -> Markup:
    """Texts below one another."""
    found = list(texts)
    return markup(*(markup(text, _BREAK) for text in found[:-1]), *found[-1:])
