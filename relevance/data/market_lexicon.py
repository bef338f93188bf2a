"""Words of the generated shop: what it sells, in which sizes, and what else people call it.

Written for this project; brands are made of syllables, so that they name nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Core:
    """One kind of thing: what ei-SRC calls the subject."""

    name: str
    """Core keyword, singular."""
    synonyms: tuple[str, ...]
    """Other names of the same thing, with other spacing too."""
    scales: tuple[str, str]
    """Two of ``SCALES`` in which it is measured."""
    accessory_of: str
    """The core that it goes with, or empty."""


@dataclass(frozen=True)
class Category:
    """A shelf: cores that share the values of their attributes."""

    name: str
    materials: tuple[str, ...]
    functions: tuple[str, ...]
    usages: tuple[str, ...]
    styles: tuple[str, ...]
    brands: tuple[str, ...]
    cores: tuple[Core, ...]


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _scale(values: str, *forms: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(form.format(value) for form in forms) for value in values.split())


SCALES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "voltage": _scale("5 12 24 110 220", "{}v", "{} v", "{} volt"),
    "power": _scale("5 10 20 60 100", "{}w", "{} w", "{} watt"),
    "battery": _scale("1000 2000 5000 10000 20000", "{} mah", "{}mah"),
    "volume": (
        ("250 ml", "250ml", "0.25 l"),
        ("350 ml", "350ml", "0.35 liter"),
        ("500 ml", "500ml", "0.5 l", "half liter"),
        ("750 ml", "750ml", "0.75 l"),
        ("1000 ml", "1000ml", "1 l", "1 liter"),
    ),
    "weight": (
        ("100 g", "100g", "0.1 kg"),
        ("250 g", "250g", "0.25 kg"),
        ("500 g", "500g", "0.5 kg", "half kilo"),
        ("1 kg", "1kg", "1000 g"),
        ("5 kg", "5kg", "5 kilo"),
    ),
    "load": _scale("50 80 120 200 500", "{} kg", "{}kg", "{} kilo"),
    "storage": _scale("32 64 128 256 512", "{} gb", "{}gb"),
    "length": _scale("1 2 3 5 10", "{} m", "{}m", "{} meter"),
    "width": _scale("20 40 60 80 120", "{} cm", "{}cm"),
    "inch": _scale("7 10 15 24 32", "{} inch", '{}"', "{} in"),
    "thickness": _scale("2 4 6 8 12", "{} mm", "{}mm"),
    "letter size": (
        ("size s", "small size"),
        ("size m", "medium size"),
        ("size l", "large size"),
        ("size xl", "xl"),
        ("size 2xl", "xxl", "2xl"),
    ),
    "shoe size": _scale("36 38 40 42 44", "size {}", "eu {}", "{} size"),
    "fabric weight": _scale("120 160 200 280 350", "{} gsm", "{}gsm"),
    "pack": _scale("2 6 10 20 50", "{} pack", "pack of {}", "{}pk"),
    "people": _scale("1 2 3 4 6", "{} seater", "{}-seater", "{} person"),
}
"""Scale -> its values -> ways to write each, the first as in the attributes."""

MINIMUM_ORDERS = _scale(
    "1 10 50 100 500 1000", "moq {} pcs", "moq {}", "min order {} pcs", "{} pcs minimum"
)
"""Minimum order quantities, written like ``SCALES``."""

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "waterproof": ("water proof", "water resistant"),
    "quick dry": ("fast drying", "quickdry"),
    "breathable": ("airy",),
    "thermal": ("warm", "insulated"),
    "non slip": ("anti slip", "nonslip"),
    "shockproof": ("shock proof", "drop proof"),
    "noise cancelling": ("noise reduction", "anc"),
    "fast charging": ("quick charge", "fast charge"),
    "rechargeable": ("usb charging",),
    "foldable": ("folding", "fold up"),
    "adjustable": ("height adjust",),
    "rust proof": ("rustproof", "anti rust"),
    "leak proof": ("leakproof", "spill proof"),
    "dimmable": ("dimming",),
    "wireless": ("cordless",),
    "heat resistant": ("heatproof", "high temperature"),
    "moisturizing": ("hydrating",),
    "stainless steel": ("ss304", "inox"),
    "aluminum": ("aluminium", "alloy"),
    "polyester": ("poly",),
    "faux leather": ("pu leather", "vegan leather"),
    "plastic": ("pp", "abs"),
    "wood": ("wooden", "timber"),
    "cardboard": ("corrugated paper",),
    "organic": ("bio", "natural"),
    "gym": ("fitness", "workout"),
    "kids": ("children", "child"),
    "office": ("workplace",),
    "car": ("auto", "vehicle"),
    "travel": ("trip",),
    "outdoor": ("outside",),
    "gift": ("present",),
    "vintage": ("retro",),
    "plain": ("solid color", "blank"),
    "luxury": ("premium",),
    "cute": ("kawaii",),
    "mini": ("tiny", "compact"),
}
"""Attribute value -> other ways to say it, in titles and in queries."""

PROMOTIONS: tuple[tuple[str, ...], ...] = (
    ("half price", "50% off"),
    ("hot sale", "best seller"),
    ("factory price", "wholesale"),
    ("free shipping", "fast delivery"),
    ("high quality", "top quality"),
    ("new arrival", "latest design"),
    ("cheap", "low price"),
    ("custom logo", "oem odm"),
)
"""Words of sale. They say nothing about the item and count in no grade."""

HOMONYMS: Mapping[str, tuple[str, ...]] = {
    "apple": ("dried apple", "apple charger"),
    "mouse": ("computer mouse", "cat mouse"),
    "tank": ("tank top", "fish tank"),
    "tie": ("neck tie", "cable tie"),
    "pot": ("cooking pot", "flower pot"),
    "bulb": ("light bulb", "tulip bulb"),
    "ring": ("silver ring", "ring light"),
    "glasses": ("drinking glass", "sunglasses"),
    "nail": ("nail polish", "iron nail"),
    "fan": ("ceiling fan", "hand fan"),
    "chip": ("potato chips", "poker chip"),
    "pump": ("water pump", "high heel"),
    "bow": ("hair bow", "archery bow"),
    "plug": ("spark plug", "wall plug"),
    "mat": ("yoga mat", "door mat"),
    "board": ("skateboard", "cutting board"),
    "boot": ("work boot", "car boot organizer"),
    "stand": ("laptop stand", "plant stand"),
    "case": ("pencil case", "phone case"),
    "brush": ("makeup brush", "paint brush"),
    "filter": ("oil filter", "water filter"),
    "jack": ("car jack", "audio jack"),
    "lock": ("padlock", "bike lock"),
    "bar": ("chocolate bar", "pull up bar"),
}
"""Query -> the cores of two categories that it may mean; either is right."""

_HEADS = "al bre cor dan el fer gal hov ix jor kel lum mor nov or pel quo ras sol tor".split()
_TAILS = "vik dano meri tex lia qua ron zen via nox".split()

_SHELVES = """
apparel
materials: cotton, polyester, wool, fleece, linen
functions: waterproof, breathable, quick dry, thermal, stretch
usages: gym, running, school, work, kids
styles: oversized, slim fit, vintage, plain, printed
hoodie; sweatshirt; hooded pullover | letter size, fabric weight
t-shirt; tee shirt; tshirt; tee | letter size, fabric weight
jacket; coat; outerwear | letter size, fabric weight
tank top; sleeveless shirt; singlet | letter size, pack
neck tie; necktie; cravat | length, pack
jeans; denim pants; denim trousers | letter size, fabric weight
drawstring for hoodie | length, pack

footwear
materials: leather, faux leather, mesh, canvas, rubber
functions: waterproof, breathable, non slip, thermal, shock absorbing
usages: running, hiking, work, party, kids
styles: vintage, plain, luxury, chunky, low top
sneaker; trainer; sport shoe | shoe size, pack
work boot; safety boot; safety shoe | shoe size, thickness
sandal; flip flop; slipper | shoe size, pack
high heel; stiletto; heeled shoe | shoe size, width
loafer; slip on shoe; moccasin | shoe size, pack
shoelace for sneaker | length, pack
insole for work boot | shoe size, thickness

audio
materials: plastic, aluminum, wood, silicone, fabric
functions: waterproof, noise cancelling, fast charging, wireless, foldable
usages: travel, gym, party, office, car
styles: mini, vintage, luxury, plain, gaming
bluetooth speaker; blue tooth speaker; bluetooth soundbox | power, battery
earphone; earbud; in ear headset | battery, length
headphone; headset; over ear headphones | battery, length
microphone; mic | power, length
audio jack; headphone socket; aux connector | thickness, pack
soundbar; sound bar; tv speaker | power, inch
ear pad for headphone | thickness, pack

phones
materials: silicone, plastic, faux leather, tempered glass, aluminum
functions: shockproof, waterproof, fast charging, wireless, magnetic
usages: travel, car, office, outdoor, gift
styles: mini, cute, luxury, clear, printed
smartphone; mobile phone; cell phone; cellphone | storage, battery
power bank; powerbank; portable charger | battery, power
apple charger; lightning charger | power, length
phone case; phone cover; mobile shell | inch, pack
smartwatch; smart watch; fitness watch | battery, thickness
watch strap for smartwatch | width, pack
screen protector for smartphone | inch, pack

computers
materials: plastic, aluminum, stainless steel, silicone, carbon fiber
functions: wireless, rechargeable, foldable, silent, backlit
usages: office, gaming, school, travel, home
styles: mini, plain, vintage, luxury, ergonomic
computer mouse; pc mouse; cursor mouse | battery, pack
keyboard; key board; typing board | inch, length
laptop; notebook computer; ultrabook | inch, storage
usb drive; flash drive; pendrive; memory stick | storage, pack
monitor; display screen; pc screen | inch, power
laptop stand; notebook riser; computer stand | inch, load
sleeve for laptop | inch, thickness

furniture
materials: wood, velvet, faux leather, metal, rattan
functions: foldable, adjustable, stackable, waterproof, with storage
usages: living room, office, outdoor, kids, hotel
styles: vintage, modern, luxury, mini, nordic
sofa; couch; settee | people, load
office chair; desk chair; swivel chair | load, width
bookshelf; book shelf; bookcase | width, load
bed frame; bedstead; bed base | width, load
dining table; dinner table; kitchen table | people, width
plant stand; flower rack; plant shelf | width, load
slipcover for sofa | people, fabric weight

kitchen
materials: stainless steel, glass, ceramic, plastic, cast iron
functions: leak proof, heat resistant, non stick, dishwasher safe, insulated
usages: camping, restaurant, home, kids, gift
styles: vintage, plain, luxury, mini, nordic
water bottle; drinking flask; waterbottle | volume, pack
cooking pot; saucepan; stockpot | volume, width
drinking glass; tumbler; cup | volume, pack
knife; kitchen blade; chef cutter | inch, pack
cutting board; chopping board; chopping block | width, thickness
lunch box; lunchbox; bento box | volume, pack
lid for water bottle | width, pack

lighting
materials: aluminum, plastic, glass, copper, fabric
functions: waterproof, dimmable, rechargeable, motion sensor, solar
usages: bedroom, garden, office, car, photo studio
styles: modern, vintage, mini, luxury, plain
light bulb; lamp bulb; led lamp | voltage, power
led strip; strip light; light tape | voltage, length
flashlight; flash light; torch | power, battery
ceiling fan; fan with light | voltage, inch
ring light; selfie light; fill lamp | inch, power
chandelier; pendant lamp; hanging light | voltage, width
driver for led strip | voltage, power

tools
materials: carbon steel, stainless steel, aluminum, nylon, plastic
functions: wireless, rust proof, rechargeable, heavy duty, non slip
usages: construction, home, car, garden, workshop
styles: mini, plain, professional, vintage, industrial
power drill; electric drill; drill driver | voltage, power
cable tie; zip tie; tie wrap | length, pack
padlock; pad lock; security lock | width, pack
paint brush; paintbrush; painting brush | width, pack
iron nail; steel nail; wire nail | thickness, weight
wall plug; wall anchor; rawl plug | thickness, pack
battery for power drill | voltage, battery

automotive
materials: rubber, stainless steel, aluminum, faux leather, plastic
functions: waterproof, heat resistant, adjustable, heavy duty, universal fit
usages: truck, suv, motorcycle, sedan, travel
styles: plain, sport, luxury, vintage, carbon look
car jack; lifting jack; hydraulic jack | load, width
spark plug; ignition plug; glow plug | thickness, pack
oil filter; engine filter; oil cleaner | thickness, pack
car boot organizer; trunk organizer; cargo box | width, volume
dash cam; dashcam; car camera | inch, storage
seat cover; car cushion; seat protector | people, pack
mount for dash cam | width, pack

sports
materials: rubber, nylon, carbon fiber, foam, stainless steel
functions: non slip, adjustable, foldable, waterproof, shock absorbing
usages: gym, home, kids, outdoor, competition
styles: professional, plain, mini, vintage, printed
yoga mat; exercise mat; pilates mat | thickness, width
dumbbell; hand weight; free weight | load, pack
pull up bar; chin up bar; doorway bar | load, width
skateboard; skate board; longboard | inch, load
archery bow; recurve bow; compound bow | length, weight
bike lock; bicycle lock; cycle lock | length, thickness
strap for yoga mat | length, pack

beauty
materials: organic, vegan, mineral, silicone, plastic
functions: waterproof, moisturizing, long lasting, anti aging, sensitive skin
usages: face, travel, salon, gift, kids
styles: matte, glossy, luxury, cute, mini
lipstick; lip color; lip rouge | weight, pack
nail polish; nail varnish; nail lacquer | volume, pack
face cream; facial lotion; moisturizer | volume, pack
shampoo; hair wash; hair cleanser | volume, pack
makeup brush; cosmetic brush; make up brush | width, pack
hair bow; hair ribbon; bow clip | width, pack
brush cleaner for makeup brush | volume, width

toys
materials: wood, plush, plastic, silicone, cardboard
functions: educational, remote control, rechargeable, washable, magnetic
usages: kids, party, gift, outdoor, classroom
styles: cute, mini, vintage, printed, plain
building blocks; brick set; construction toy | pack, thickness
teddy bear; stuffed bear; plush bear | width, weight
jigsaw puzzle; puzzle game; jig saw | pack, width
rc car; remote car; radio controlled car | battery, length
poker chip; casino chip; game token | weight, pack
hand fan; folding fan; handheld fan | width, pack
spare wheel for rc car | thickness, pack

pets
materials: plush, nylon, glass, stainless steel, cotton
functions: waterproof, washable, adjustable, chew proof, non slip
usages: puppy, kitten, large dog, travel, training
styles: cute, plain, luxury, printed, mini
dog leash; dog lead; walking lead | length, load
cat mouse; mouse toy; catnip mouse | width, pack
fish tank; aquarium; fishbowl | volume, width
pet bed; dog bed; cat cushion | width, load
pet bowl; dog dish; feeding bowl | volume, pack
water filter; aquarium filter; tank cleaner | power, volume
poop bag for dog leash | pack, thickness

food
materials: organic, whole grain, sugar free, gluten free, raw
functions: high protein, low fat, vitamin rich, instant, long shelf life
usages: breakfast, baking, snack, restaurant, gift
styles: spicy, sweet, salted, smoked, plain
dried apple; apple slices; apple crisp | weight, pack
potato chips; crisps; potato snack | weight, pack
chocolate bar; cocoa bar; candy bar | weight, pack
coffee beans; roasted coffee; espresso beans | weight, pack
green tea; tea leaves; matcha | weight, pack
pasta; spaghetti; macaroni | weight, pack
grinder for coffee beans | weight, power

garden
materials: plastic, ceramic, aluminum, rattan, wood
functions: waterproof, rust proof, self watering, solar, foldable
usages: balcony, outdoor, greenhouse, lawn, patio
styles: vintage, modern, mini, plain, printed
flower pot; planter; plant pot | volume, width
garden hose; hosepipe; water hose | length, thickness
water pump; pond pump; submersible pump | voltage, power
tulip bulb; flower bulb; spring bulb | pack, weight
lawn mower; lawnmower; grass cutter | power, width
door mat; doormat; entrance rug | width, thickness
nozzle for garden hose | thickness, pack

accessories
materials: stainless steel, leather, faux leather, canvas, copper
functions: waterproof, rust proof, adjustable, uv protection, lightweight
usages: wedding, travel, gift, party, kids
styles: vintage, luxury, cute, plain, mini
silver ring; finger ring; band ring | thickness, weight
sunglasses; sun glasses; shades | width, pack
backpack; back pack; rucksack; knapsack | volume, width
wallet; purse; billfold | width, pack
pencil case; pen pouch; pencil bag | width, pack
umbrella; parasol; rain shade | inch, weight
rain cover for backpack | volume, width
"""


@cache
def categories() -> tuple[Category, ...]:
    """Every category, parsed once."""
    shelves = _SHELVES.strip().split("\n\n")
    return tuple(_category(number, shelf) for number, shelf in enumerate(shelves))


def _category(number: int, shelf: str) -> Category:
    name, *lines = shelf.splitlines()
    values = [_list(line.partition(":")[2]) for line in lines[:4]]
    heads = [_HEADS[(number * 3 + step) % len(_HEADS)] for step in range(8)]
    brands = tuple(head + _TAILS[(number + step) % len(_TAILS)] for step, head in enumerate(heads))
    cores = _cores(lines[4:])
    return Category(name, values[0], values[1], values[2], values[3], brands, cores)


def _cores(lines: list[str]) -> tuple[Core, ...]:
    cores: dict[str, Core] = {}
    for line in lines:
        names, _, scales = line.partition(" | ")
        first, second = _list(scales)
        name, *synonyms = names.split("; ")
        part, _, subject = name.partition(" for ")
        if subject:
            name = f"{subject} {part}"
            others = cores[subject].synonyms[:2]
            synonyms = [f"{part} for {other}" for other in (subject, *others)]
        cores[name] = Core(name, tuple(synonyms), (first, second), subject)
    return tuple(cores.values())


def accessories() -> Mapping[str, str]:
    """Core of an accessory -> the core that it goes with."""
    return {
        core.name: core.accessory_of
        for category in categories()
        for core in category.cores
        if core.accessory_of
    }


def plural(phrase: str) -> str:
    """``phrase`` with its last word in the plural; a plural stays.

    >>> plural("lunch box"), plural("knife"), plural("battery"), plural("jeans")
    ('lunch boxes', 'knives', 'batteries', 'jeans')
    >>> plural("lid for water bottle")
    'lids for water bottle'
    """
    head, link, rest = phrase.partition(" for ")
    if link:
        return plural(head) + link + rest
    if phrase.endswith("ss") or phrase.endswith(("x", "ch", "sh")):
        return phrase + "es"
    if phrase.endswith("s"):
        return phrase
    if phrase.endswith("y") and phrase[-2] not in "aeiou":
        return phrase[:-1] + "ies"
    if phrase.endswith("fe"):
        return phrase[:-2] + "ves"
    if phrase.endswith("lf"):
        return phrase[:-1] + "ves"
    return phrase + "s"
