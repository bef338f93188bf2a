"""What is relevant in the generated shop: grades that follow from attributes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relevance.data.market_lexicon import accessories

KEYWORDS = ("brand", "material", "function", "usage", "style")
"""What a query may ask of an item besides its core keyword and its units."""

_ACCESSORIES = accessories()


@dataclass(frozen=True)
class Intent:
    """What a shopper wants, whatever the query says."""

    cores: tuple[str, ...]
    """Core keywords, any of which is meant; two for an ambiguous query."""
    brand: str | None = None
    material: str | None = None
    function: str | None = None
    usage: str | None = None
    style: str | None = None
    specification: tuple[str, ...] = ()
    """Units, sizes and minimum order asked for."""


@dataclass(frozen=True)
class Product:
    """The structured side of an item."""

    core: str
    brand: str
    material: str
    function: str
    usage: str
    style: str
    specification: tuple[str, ...]

    @classmethod
    def of(cls, brand: str, attributes: Mapping[str, str]) -> Product:
        """Read a row of the products table."""
        return cls(
            core=attributes["core"],
            brand=brand,
            material=attributes["material"],
            function=attributes["function"],
            usage=attributes["usage"],
            style=attributes["style"],
            specification=tuple(attributes["specification"].split(", ")),
        )


def grade(intent: Intent, product: Product) -> int:
    """Relevance of ``product``: 3 subject, core keywords and units all agree.

    2 if only units differ (size, voltage, minimum order); 1 if the subject agrees and a keyword
    differs, or for an accessory of the subject; else 0.

    Source:
        ei-SRC's three criteria of a relevant pair. The steps between are ours.

    >>> kettle = Product("pot", "al", "steel", "", "", "", ("12v", "500 ml"))
    >>> grade(Intent(("pot",), specification=("12v",)), kettle)
    3
    >>> grade(Intent(("pot",), specification=("24v",)), kettle)
    2
    >>> grade(Intent(("pot",), material="glass"), kettle)
    1
    >>> grade(Intent(("sofa",)), kettle)
    0
    """
    if product.core not in intent.cores:
        return int(_ACCESSORIES.get(product.core) in intent.cores)
    asked = {name: getattr(intent, name) for name in KEYWORDS}
    if any(want is not None and want != getattr(product, name) for name, want in asked.items()):
        return 1
    return 3 if set(intent.specification) <= set(product.specification) else 2
