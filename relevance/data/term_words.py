"""What is known of terms before any catalogue is seen: names of attributes, units, common words.

Written for this project, in English. The catalogue's own words come first; see
``relevance.data.gazetteer``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

ATTRIBUTE_NAMES: Mapping[str, str] = {
    "none": r"yield|temperature|humidity|certificat|country|warranty|pallet|outer case|package "
    r"(?!size|quantity)|layer|compatib|status|code|model|processor (?!freq)|compliance|language|"
    r"brand|manufacturer|year",
    "core": r"^core$|(?:product|item) (?:type|kind|name)|sub.?category|^category|kind of",
    "material": r"material|fabric|composition|upholstery|^metal|^wood|ingredient",
    "style": r"style|colou?r|pattern|finish|theme|shape|design|^fit$|silhouette|flavou?r|scent",
    "usage": r"usage|^use$|used? (?:for|in)|purpose|suitable|recommended|occasion|room|season|"
    r"audience|gender|department|\bage\b|\bsports?\b|activity|indoor|skin type|hair type",
    "specification": r"specification|size|capacity|volume|weight|width|height|depth|length|"
    r"diameter|thickness|diagonal|voltage|wattage|power|current|memory|storage|resolution|"
    r"frequency|speed|quantity|pack|dimension|connector|interface|socket|standard|count|"
    r"form factor|cable type|amount|gauge|clock",
    "function": r"function|feature|technology|connectivity|special|benefit|protection|"
    r"\bcare\b",
}
"""Class -> regular expression for the names of its attributes; the first that is found counts.

``none`` names attributes whose values would only confuse: of the parcel, the maker, the model.
"""

_NUMBER = r"(?:\d+(?:[.,]\d+)*(?:\s?[/-]\s?\d+)?)"
_UNIT = (
    r"(?:k?v|volts?|[km]?w|watts?|m?ah|amps?|k?hz|mhz|ghz|[kmgt]bps|[kmgt]bits?|[kmgt]b|"
    r"ml|cl|l|lit(?:er|re)s?|(?:fl\.? ?)?oz|ounces?|gal(?:lons?)?|quarts?|qt|pints?|"
    r"[mk]?g|mcg|kilos?|grams?|lbs?|pounds?|gsm|denier|"
    r"mm|cm|m|km|met(?:er|re)s?|in|inch(?:es)?|ft|feet|foot|yards?|yds?|microns?|sq\.? ?(?:ft|m)|"
    r"mp|megapixels?|dpi|ppm|rpm|psi|btu|lumens?|lm|lux|k|p|db|va|kva|awg|gauge|ga|"
    r"pcs?(?:\(s\))?|pieces?|pk|packs?|count|ct|pairs?|sets?|rolls?|sheets?|pages?|tablets?|"
    r"capsules?|caplets?|ports?|cores?|cups?|seater|seats?|persons?|people|tiers?|ply|"
    r"years?|months?|hours?|hrs?|minutes?|min|days?|outlets?|drawers?|layers?|speeds?)"
)
_SIZES = r"(?:x{0,3}s|m|x{0,4}l|[2-6]xl|small|medium|large)"

UNITS = re.compile(
    "|".join(
        (
            r"(?:min(?:imum)? order|moq) ?\d+(?: ?pcs| ?pieces)?",
            r"\d+ (?:pcs|pieces) minimum",
            rf"(?:pack|set|box|case|lot|bundle) of {_NUMBER}",
            rf"(?:eu|us|uk) ?\d\d?(?:\.5)?|size[: ]+(?:{_SIZES}|\d+(?:\.5)?)|\d+ size",
            r"[2-6]xl|xxx?l|xxs|xl|(?:x-|extra )?(?:small|large) size|medium size|one size",
            # 10 x 20 cm, 10"x30"x4mm
            rf"{_NUMBER}\s?(?:[\"”″']{{1,2}}|{_UNIT})?(?:\s?[x×]\s?{_NUMBER}\s?"
            rf"(?:[\"”″']{{1,2}}|{_UNIT}\b)?){{1,3}}",
            # 3 in 1 is no length
            rf"(?!\d+[ -]?in[ -]?\d){_NUMBER}[ -]?{_UNIT}",
            rf"{_NUMBER}\s?(?:[\"”″]|'')",
            r"[48]k|(?:full |ultra )hd|cat ?[5-8][ae]?|usb ?[23]\.\d",
        )
    ).join((r"(?<![\w.])(?:", r")(?![\w])")),
    re.IGNORECASE,
)
"""Numbers with their unit, packs, sizes, minimum orders: specifications whoever sells."""

STOP = frozenset(
    "a an and are as at be by for from in into is it of on or our that the this to w with without "
    "your you new off sale free price best top more than original genuine all".split()
)
"""Words that belong to no class on their own, though a phrase may hold them."""


def _list(text: str) -> tuple[str, ...]:
    return tuple(" ".join(part.split()) for part in text.split(",") if part.strip())


COMMON: Mapping[str, tuple[str, ...]] = {
    "material": _list(
        "cotton, polyester, wool, fleece, linen, silk, satin, velvet, denim, leather, "
        "faux leather, pu leather, suede, canvas, nylon, spandex, lycra, mesh, lace, chiffon, "
        "microfiber, plush, felt, foam, memory foam, latex, rubber, silicone, plastic, vinyl, pvc, "
        "acrylic, resin, glass, tempered glass, crystal, ceramic, porcelain, clay, stone, marble, "
        "granite, concrete, wood, wooden, bamboo, oak, pine, walnut, rattan, wicker, paper, "
        "cardboard, corrugated plastic, metal, steel, stainless steel, carbon steel, cast iron, "
        "iron, aluminum, aluminium, brass, copper, bronze, titanium, zinc, sterling silver, "
        "carbon fiber, fiberglass, neoprene, lithium, alkaline, organic"
    ),
    "function": _list(
        "waterproof, water resistant, windproof, breathable, quick dry, moisture wicking, thermal, "
        "insulated, heated, non slip, anti slip, slip resistant, shockproof, scratch resistant, "
        "leak proof, heat resistant, fireproof, rust proof, stain resistant, wireless, cordless, "
        "wired, bluetooth, rechargeable, noise cancelling, noise canceling, fast charging, "
        "foldable, folding, collapsible, adjustable, portable, stackable, reusable, disposable, "
        "washable, refillable, removable, magnetic, automatic, electric, manual, solar, "
        "motion sensor, dimmable, backlit, remote control, programmable, self adhesive, "
        "self seal, heavy duty, lightweight, non stick, dishwasher safe, moisturizing, hydrating, "
        "long lasting, anti aging, stretch, push up, touch screen, touchscreen, hands free, "
        "multifunction, universal"
    ),
    "usage": _list(
        "men, men's, mens, women, women's, womens, ladies, girls, boys, kids, children, toddler, "
        "toddlers, baby, infant, adult, adults, youth, unisex, dogs, dog, cats, cat, pet, pets, "
        "home, office, business, school, classroom, kitchen, bathroom, bedroom, living room, "
        "outdoor, indoor, garden, patio, camping, hiking, travel, gym, fitness, workout, running, "
        "yoga, soccer, football, basketball, golf, tennis, swimming, fishing, hunting, cycling, "
        "wedding, party, birthday, christmas, halloween, gift, gifts, work, car, truck, "
        "motorcycle, boat, gaming, industrial, professional, beginners, skin, hair, face, nail, "
        "teeth, weight loss, sensitive skin, everyday, photography, crafts"
    ),
    "style": _list(
        "black, white, red, blue, green, yellow, orange, pink, purple, brown, grey, gray, beige, "
        "ivory, cream, navy, navy blue, light blue, dark blue, royal blue, turquoise, teal, gold, "
        "silver, rose gold, bronze, chrome, clear, transparent, multicolor, multicolour, rainbow, "
        "burgundy, khaki, cyan, magenta, charcoal, matte, glossy, metallic, glitter, floral, "
        "striped, plaid, camo, polka dot, printed, plain, solid, vintage, retro, modern, classic, "
        "rustic, bohemian, boho, elegant, luxury, cute, casual, formal, mini, slim fit, skinny, "
        "loose, oversized, high waist, high waisted, long sleeve, short sleeve, sleeveless, "
        "v neck, crew neck, low top, high top, round, square, rectangular, oval, large, small, "
        "slim, thin, thick, wide, fitted, maxi"
    ),
}
"""Class -> words that stand in where a catalogue has no attribute of that class.

Only those count that the catalogue's own titles hold."""
