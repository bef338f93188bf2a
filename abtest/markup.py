"""HTML and SVG in which every text is escaped, unless it was made here."""

from __future__ import annotations

from html import escape


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def markup(*content: str) -> Markup:
    """Pieces of HTML, and texts to be escaped, as one.

    >>> markup("<", Markup("<br>"))
    '&lt;<br>'
    """
    return Markup("".join(it if isinstance(it, Markup) else escape(it) for it in content))


def tag(name: str, *content: str, **attributes: str | float | None) -> Markup:
    """An element, its content and its attributes; those that are None are left out.

    An underscore in an attribute's name is a hyphen, and one at its end is left out.

    >>> tag("td", "R&D", class_="text", data_name="team")
    '<td class="text" data-name="team">R&amp;D</td>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{given}>{markup(*content)}</{name}>")
