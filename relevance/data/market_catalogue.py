"""Products of the generated shop: small integers in memory, text one chunk at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from relevance.data.market_lexicon import (
    MINIMUM_ORDERS,
    PROMOTIONS,
    SCALES,
    SYNONYMS,
    categories,
    plural,
)
from relevance.data.market_truth import KEYWORDS
from relevance.data.tables import TABLES

Ints = NDArray[np.integer]

CHUNK = 50_000
"""Products whose text is in memory at once; one row group."""

UNIT_FIELDS = ("size", "second", "order")
"""Value on the core's two scales, and the minimum order."""

_SKEW = 1.7
"""Values are drawn as n * uniform ** skew, so that the first ones of a list are common."""
_ABSENT = -1


@dataclass(frozen=True)
class Forms:
    """Where the ways to write each value stand among the phrases."""

    start: NDArray[np.int32]
    count: NDArray[np.int32]

    def pick(self, values: Ints, rng: np.random.Generator, usual: float) -> NDArray[np.int32]:
        """A phrase for each value: the first with chance ``usual``, else any other. [n]"""
        other = 1 + rng.random(len(values)) * (self.count[values] - 1)
        other = np.minimum(other.astype(np.int32), self.count[values] - 1)
        is_usual = rng.random(len(values)) < usual
        return self.start[values] + np.where(is_usual, np.int32(0), other)


class Vocabulary:
    """Every phrase of the shop, and the values they stand for.

    A value is a number within its category (keywords) or its core (units); ``base`` of the
    category or of the core's scale makes it unique.
    """

    def __init__(self) -> None:
        self._phrases: list[str] = []
        shelves = categories()
        cores = [core for category in shelves for core in category.cores]
        self.cores = cores
        self.category_names = self._forms([category.name] for category in shelves)
        self.category = np.array(
            [number for number, category in enumerate(shelves) for _ in category.cores], np.int32
        )
        index = {core.name: number for number, core in enumerate(cores)}
        self.index = index
        self.accessory_of = np.array(
            [index.get(core.accessory_of, _ABSENT) for core in cores], np.int32
        )
        self.first = np.searchsorted(self.category, np.arange(len(shelves))).astype(np.int32)
        self.n_siblings = np.bincount(self.category).astype(np.int32)
        names = [(core.name, *core.synonyms) for core in cores]
        self.core = self._forms(names)
        self.core_in_title = self._forms((*all_, *map(plural, all_)) for all_ in names)

        values = {
            "brand": [category.brands for category in shelves],
            "material": [category.materials for category in shelves],
            "function": [category.functions for category in shelves],
            "usage": [category.usages for category in shelves],
            "style": [category.styles for category in shelves],
        }
        self.base = {name: _bases(lists) for name, lists in values.items()}
        self.size = {
            name: np.array([len(v) for v in lists], np.int32) for name, lists in values.items()
        }
        self.keyword = {
            name: self._forms((value, *SYNONYMS.get(value, ())) for v in lists for value in v)
            for name, lists in values.items()
        }
        flat = {name: [value for v in lists for value in v] for name, lists in values.items()}
        self.usage_in_title = self._forms(
            [f"for {form}" for form in (value, *SYNONYMS.get(value, ()))] for value in flat["usage"]
        )
        self.look = self._forms([f"{value} look", f"{value} feel"] for value in flat["material"])

        scales = list(SCALES)
        self.scale = np.array([[scales.index(s) for s in core.scales] for core in cores], np.int32)
        self.scale_base = _bases([SCALES[name] for name in scales])
        self.scale_size = np.array([len(SCALES[name]) for name in scales], np.int32)
        steps = [forms for name in scales for forms in SCALES[name]]
        self.unit = self._forms(steps)
        self.replaces = self._forms(
            [f"replaces {step[0]}", f"better than {step[0]}"] for step in steps
        )
        self.order = self._forms(MINIMUM_ORDERS)
        self.promotion = self._forms(PROMOTIONS)
        self.specification = self._forms(
            [
                f"{first[0]}, {second[0]}, {order[0]}"
                for first in SCALES[core.scales[0]]
                for second in SCALES[core.scales[1]]
                for order in MINIMUM_ORDERS
            ]
            for core in cores
        )
        self.phrases = pa.array(self._phrases, pa.string())

    def _forms(self, values: Iterable[Sequence[str]]) -> Forms:
        starts, counts = [], []
        for texts in values:
            starts.append(len(self._phrases))
            counts.append(len(texts))
            self._phrases.extend(texts)
        return Forms(np.array(starts, np.int32), np.array(counts, np.int32))

    def text(self, phrases: Ints) -> pa.Array:
        """Texts of phrase numbers, null where absent. [n]"""
        return self.phrases.take(pa.array(phrases, mask=phrases == _ABSENT))

    def unit_values(self, core: Ints, column: int, value: Ints) -> Ints:
        """Numbers of scale values in ``unit``. [n]"""
        numbers: Ints = self.scale_base[self.scale[core, column]] + value
        return numbers


def _bases(lists: Sequence[Sequence[object]]) -> NDArray[np.int32]:
    return np.cumsum([0, *(len(values) for values in lists)])[:-1].astype(np.int32)


@cache
def vocabulary() -> Vocabulary:
    """The one vocabulary, made when first needed."""
    return Vocabulary()


@dataclass(frozen=True)
class Catalogue:
    """Attributes of every product as numbers. 12 bytes a product."""

    core: NDArray[np.int16]
    stuffed: NDArray[np.int16]
    """Core that the title names beside its own; the own one if none."""
    values: NDArray[np.int8]
    """Of ``KEYWORDS``, then of ``UNIT_FIELDS``. [products, 8]"""

    def __len__(self) -> int:
        return len(self.core)


def make_catalogue(products: int, seed: int) -> Catalogue:
    """Draw the attributes of every product."""
    words = vocabulary()
    n_cores = len(words.cores)
    weights = 1 / np.sqrt(np.arange(n_cores) + 4)
    weights = np.random.default_rng((seed, 0)).permutation(weights)
    weights[words.accessory_of != _ABSENT] *= 0.6
    ends = np.cumsum(weights / weights.sum())
    core = np.empty(products, np.int16)
    stuffed = np.empty(products, np.int16)
    values = np.empty((products, len(KEYWORDS) + len(UNIT_FIELDS)), np.int8)
    for rows in chunks(products, CHUNK):
        rng = np.random.default_rng((seed, 1, rows.start))
        n = rows.stop - rows.start
        cores = np.minimum(np.searchsorted(ends, rng.random(n)), n_cores - 1)
        core[rows] = cores
        category = words.category[cores]
        sibling = words.first[category] + _draw(words.n_siblings[category], rng, 1)
        stuffed[rows] = np.where(rng.random(n) < 0.6, sibling, cores)
        sizes = [words.size[name][category] for name in KEYWORDS]
        sizes += [words.scale_size[words.scale[cores, column]] for column in (0, 1)]
        sizes.append(np.full(n, len(MINIMUM_ORDERS), np.int32))
        for column, size in enumerate(sizes):
            values[rows, column] = _draw(size, rng, _SKEW)
    return Catalogue(core, stuffed, values)


def _draw(size: Ints, rng: np.random.Generator, skew: float) -> Ints:
    return (size * rng.random(len(size)) ** skew).astype(np.int32)


def chunks(total: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` that cover ``total`` rows."""
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def ids(prefix: str, numbers: Ints) -> pa.Array:
    """Ids such as ``market:p0000012``, in the numbers' order."""
    digits = pc.utf8_lpad(pa.array(numbers, pa.int64()).cast(pa.string()), 7, padding="0")
    return pc.binary_join_element_wise(f"market:{prefix}", digits, "")


_SLOTS = {
    "promotion": 0,
    "brand": 1,
    "style": 2,
    "material": 3,
    "function": 4,
    "core": 5,
    "usage": 6,
    "size": 7,
    "second": 8,
    "order": 9,
    "again": 10,
    "stuffed": 11,
    "look": 12,
    "replaces": 13,
    "sale": 14,
}
"""Parts of a title. The own core always stands before a stuffed one, as sellers do it."""

_ORDERS = np.array(
    [
        [_SLOTS[name] for name in order.split()]
        for order in (
            "promotion brand style material function core usage size second order again stuffed "
            "look replaces sale",
            "brand size material core function style usage second again stuffed look sale "
            "promotion replaces order",
            "sale promotion function style core material look size second usage order again "
            "stuffed brand replaces",
            "size second function material style core again usage brand replaces stuffed "
            "order look promotion sale",
            "core material function size style brand usage second order again look stuffed "
            "replaces promotion sale",
        )
    ]
)
"""Word orders of titles. [orders, slots]"""


def product_rows(catalogue: Catalogue, rows: slice, seed: int) -> pa.Table:
    """The products table for ``rows``."""
    words = vocabulary()
    core = catalogue.core[rows].astype(np.int32)
    category = words.category[core]
    values = catalogue.values[rows].astype(np.int32)
    keyword = {
        name: words.base[name][category] + values[:, column] for column, name in enumerate(KEYWORDS)
    }
    sizes, seconds, orders = (values[:, len(KEYWORDS) + column] for column in range(3))
    brand = words.text(words.keyword["brand"].start[keyword["brand"]])
    combination = sizes * words.scale_size[words.scale[core, 1]] + seconds
    combination = combination * len(MINIMUM_ORDERS) + orders
    attributes = {
        name: words.keyword[name].start[keyword[name]]
        for name in ("material", "function", "usage", "style")
    }
    attributes["specification"] = words.specification.start[core] + combination
    attributes["core"] = words.core.start[core]
    rng = np.random.default_rng((seed, 2, rows.start))
    return pa.table(
        [
            ids("p", np.arange(rows.start, rows.stop)),
            _titles(catalogue, rows, rng),
            _descriptions(attributes, brand),
            words.text(words.category_names.start[category]),
            brand,
            _map(attributes),
        ],
        schema=TABLES["products"],
    )


def _titles(catalogue: Catalogue, rows: slice, rng: np.random.Generator) -> pa.Array:
    words = vocabulary()
    core = catalogue.core[rows].astype(np.int32)
    stuffed = catalogue.stuffed[rows].astype(np.int32)
    category = words.category[core]
    values = catalogue.values[rows].astype(np.int32)
    n = len(core)
    slots = np.full((n, len(_SLOTS)), _ABSENT, np.int32)

    def put(slot: str, phrases: Ints, share: float) -> None:
        slots[:, _SLOTS[slot]] = np.where(rng.random(n) < share, phrases, _ABSENT)

    for column, (name, share) in enumerate(
        zip(KEYWORDS, (0.93, 0.97, 0.97, 0.97, 0.97), strict=True)
    ):
        number = words.base[name][category] + values[:, column]
        forms = words.usage_in_title if name == "usage" else words.keyword[name]
        put(name, forms.pick(number, rng, 0.55), share)
    first = words.unit_values(core, 0, values[:, 5])
    put("size", words.unit.pick(first, rng, 0.5), 0.99)
    put("second", words.unit.pick(words.unit_values(core, 1, values[:, 6]), rng, 0.5), 0.97)
    put("order", words.order.pick(values[:, 7], rng, 0.5), 0.8)
    put("core", words.core_in_title.pick(core, rng, 0.4), 1)
    put("again", words.core_in_title.pick(core, rng, 0.2), 0.2)
    names = words.core_in_title.pick(stuffed, rng, 0.5)
    put("stuffed", np.where(stuffed == core, _ABSENT, names), 1)
    other = words.base["material"][category] + _draw(words.size["material"][category], rng, 1)
    put("look", words.look.pick(other, rng, 0.5), 0.4)
    scale = words.scale[core, 0]
    rival: Ints = words.scale_base[scale] + _draw(words.scale_size[scale], rng, 1)
    # naming its own size would be no trap
    put(
        "replaces",
        np.where(rival == first, _ABSENT, words.replaces.pick(rival, rng, 0.5)),
        0.45,
    )
    for slot, share in (("promotion", 0.4), ("sale", 0.2)):
        deal = _draw(np.full(n, len(PROMOTIONS), np.int32), rng, 1)
        put(slot, words.promotion.pick(deal, rng, 0.5), share)

    order = _ORDERS[rng.integers(len(_ORDERS), size=n)]
    slots = np.take_along_axis(slots, order, axis=1)
    parts = [words.text(slots[:, column]) for column in range(len(_SLOTS))]
    titles = pc.binary_join_element_wise(*parts, " ", null_handling="skip")
    return pc.if_else(pa.array(rng.random(n) < 0.6), pc.utf8_title(titles), titles)


def _descriptions(attributes: dict[str, NDArray[np.int32]], brand: pa.Array) -> pa.Array:
    text = {name: vocabulary().text(phrases) for name, phrases in attributes.items()}
    words = ["Generated product:", text["style"], text["material"], text["core"], "by", brand]
    words += ["for", text["usage"], "-", text["function"], "-", text["specification"]]
    return pc.binary_join_element_wise(*words, " ")


def _map(attributes: dict[str, NDArray[np.int32]]) -> pa.MapArray:
    n = len(next(iter(attributes.values())))
    items = vocabulary().text(np.stack(list(attributes.values()), axis=1).ravel())
    keys = pa.array(list(attributes), pa.string()).take(
        pa.array(np.tile(np.arange(len(attributes)), n))
    )
    offsets = pa.array(np.arange(n + 1) * len(attributes), pa.int32())
    return pa.MapArray.from_arrays(offsets, keys, items)
