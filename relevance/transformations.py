"""Changes of a (query, title) pair that a model of relevance should see through, or notice.

Adding one takes a function and a row of ``TRANSFORMATIONS``.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from relevance.data.pairs import Pair

Change = tuple[Pair, Pair]
"""The pair before and after. Before is the judged pair, unless a change needs a fair start: an
added ``24v`` is compared with an added ``12v``, not with nothing added."""

Direction = Literal["stays above", "stays below", "falls"]
"""A relevant title stays above irrelevant ones; an irrelevant one stays below relevant ones; the
score of a relevant pair falls, as it is relevant no more."""

_WORD = re.compile(r"[^\W_]+")
_LETTERS = re.compile(r"[^\W\d_]+")
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS: Mapping[str, str] = {
    key: row[max(0, i - 1) : i] + row[i + 1 : i + 2]
    for row in _KEYBOARD
    for i, key in enumerate(row)
}
_MIN_TYPO_LETTERS = 4
"""A typo in a shorter word leaves too little of it for a reader to repair."""
_LAST_LATIN = "\u024f"
"""A missing kana or hanzi is another word, no typo."""

_MIN_PART_LETTERS = 3
"""``wi fi`` is lost by this, and so are ``in to`` and hundreds like it."""
_MIN_SEEN = 3
"""Sightings of a compound in both forms together: one of each is as likely a slip. Asking for two
of each loses nine in ten of ESCI's, and every one lost that a query uses is a true compound."""
_LINKS = frozenset("and for from the with your".split())
"""Words that join, so ``forwork`` is no compound of a kind of work."""

_STACKED = 3
"""Repetitions of a word, and foreign queries, that are stacked onto a title."""
_SALE = "50% off"
_OTHER_SALE = "half price"
_SALE_WORDS = re.compile(r"\b50\s?% off\b", re.IGNORECASE)

_UNITS: Mapping[str, Mapping[str, str]] = {
    "length": {
        "mm": "mm millimeter millimeters",
        "cm": "cm centimeter centimeters",
        "m": "m meter meters",
        "inch": 'inch inches "',
        "ft": "ft feet foot",
    },
    "volume": {"ml": "ml", "l": "l liter liters litre litres", "oz": "oz ounce ounces"},
    "weight": {"mg": "mg", "g": "g gram grams", "kg": "kg", "lb": "lb lbs pound pounds"},
    "power": {"v": "v volt volts", "w": "w watt watts", "mah": "mah"},
    "memory": {"mb": "mb", "gb": "gb", "tb": "tb"},
    "frequency": {"hz": "hz", "mhz": "mhz", "ghz": "ghz"},
    "count": {"pack": "pack pk packs", "pcs": "pcs pc piece pieces"},
}
"""Units by what they measure, and their spellings. ``in`` is left out: see ``2 in 1``."""

_UNIT_OF = {
    spelling: unit
    for units in _UNITS.values()
    for unit, spellings in units.items()
    for spelling in spellings.split()
}
_SIBLINGS = {
    unit: [other for other in units if other != unit]
    for measured, units in _UNITS.items()
    # `12 pcs` and `12 pack` are at times the same
    for unit in (units if measured != "count" else ())
}
_QUANTITY = re.compile(
    r"(?<![\w.,])((?:0|[1-9]\d*)(?:[.,]\d+)?)([\s-]?)("
    + "|".join(sorted(map(re.escape, _UNIT_OF), key=len, reverse=True))
    + r")(?!\w)",
    re.IGNORECASE,
)
_FOREIGN = re.compile(r"\b(?:replaces|than|fits|for|to|up to)\s+(?:size\s+)?$", re.IGNORECASE)
"""What stands before a quantity of another item: ``replaces 12v``, ``better than 5 m``."""


@dataclass(frozen=True)
class Quantity:
    """A number with its unit, somewhere in a text."""

    value: str
    gap: str
    """Between number and unit."""
    spelling: str
    start: int
    end: int

    @property
    def unit(self) -> str:
        """Name of the unit however it was spelled."""
        return _UNIT_OF[self.spelling.lower()]


def quantities(text: str) -> list[Quantity]:
    """Numbers with units, in order.

    >>> [(q.value, q.unit) for q in quantities("12V, 0,5 liters, 20,000 mAh, iPhone 11 Pro")]
    [('12', 'v'), ('0.5', 'l'), ('20000', 'mah')]
    """
    return [
        Quantity(_number(match[1]), match[2], match[3], match.start(), match.end())
        for match in _QUANTITY.finditer(text)
    ]


def _number(text: str) -> str:
    # three digits behind a comma are thousands, fewer a fraction
    is_thousands = re.fullmatch(r"[1-9]\d*,\d{3}", text)
    return text.replace(",", "" if is_thousands else ".")


@dataclass(frozen=True)
class Corpus:
    """What a dataset's own texts teach the transformations."""

    words: frozenset[str]
    """Every word, case folded: no typo may make one of them."""
    compounds: Mapping[str, tuple[str, str]]
    """Joined form to its two words, for words that occur in both forms."""
    modifiers: tuple[str, ...]
    """First words of compounds, in order."""
    values: Mapping[str, tuple[str, ...]]
    """Unit to the numbers that occur with it, in order."""
    queries: tuple[str, ...]
    """Different queries, in order."""

    @classmethod
    def of(cls, queries: Iterable[str], titles: Iterable[str]) -> Corpus:
        """Learn from texts; their order and repetition of queries do not matter.

        >>> titles = ["powerbank 12v", "power bank 24v", "powerbank", "my power bank 12 volt"]
        >>> corpus = Corpus.of(["power bank"], titles)
        >>> corpus.compounds, corpus.values
        ({'powerbank': ('power', 'bank')}, {'v': ('12', '24')})
        """
        queries = sorted(set(queries))
        texts = [*queries, *titles]
        seen = Counter(word for text in texts for word in _words(text))
        split: Counter[tuple[str, str]] = Counter()
        values: defaultdict[str, set[str]] = defaultdict(set)
        for text in texts:
            words = _words(text)
            # only pairs that may be compounds are counted, which bounds the memory
            split.update(
                (a, b) for a, b in itertools.pairwise(words) if a + b in seen and _are_parts(a, b)
            )
            for quantity in quantities(text):
                values[quantity.unit].add(quantity.value)
        # where a word comes apart in two ways, the more frequent one is last and stays
        ranked = sorted((n, (a, b)) for (a, b), n in split.items() if n + seen[a + b] >= _MIN_SEEN)
        compounds = {a + b: (a, b) for _, (a, b) in ranked}
        return cls(
            words=frozenset(seen),
            compounds=compounds,
            modifiers=tuple(sorted({a for a, _ in compounds.values()})),
            values={unit: tuple(sorted(values[unit], key=float)) for unit in sorted(values)},
            queries=tuple(queries),
        )


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _are_parts(a: str, b: str) -> bool:
    return all(
        len(part) >= _MIN_PART_LETTERS and part.isalpha() and part not in _LINKS for part in (a, b)
    )


# typos: one word of the query, of four Latin letters or more, never its first letter


def swapped_letters(pair: Pair, corpus: Corpus, rng: Random) -> Change | None:
    """Two neighbouring letters change places.

    >>> swapped_letters(Pair("usb hub", ""), Corpus.of([], []), Random(0)) is None
    True
    >>> swapped_letters(Pair("tent", ""), Corpus.of(["tetn"], []), Random(0))[1].query
    'tnet'
    """

    def edits(word: str) -> Iterator[str]:
        for i in range(1, len(word) - 1):
            yield word[:i] + word[i + 1] + word[i] + word[i + 2 :]

    return _typo(pair, corpus, rng, edits)


def dropped_letter(pair: Pair, corpus: Corpus, rng: Random) -> Change | None:
    """A letter is missing.

    >>> dropped_letter(Pair("usb tent", ""), Corpus.of(["ten tet"], []), Random(0))[1].query
    'usb tnt'
    """

    def edits(word: str) -> Iterator[str]:
        for i in range(1, len(word)):
            yield word[:i] + word[i + 1 :]

    return _typo(pair, corpus, rng, edits)


def doubled_letter(pair: Pair, corpus: Corpus, rng: Random) -> Change | None:
    """A letter is typed twice.

    >>> doubled_letter(Pair("tent", ""), Corpus.of(["teent tentt"], []), Random(0))[1].query
    'tennt'
    """

    def edits(word: str) -> Iterator[str]:
        for i in range(1, len(word)):
            yield word[:i] + word[i] + word[i:]

    return _typo(pair, corpus, rng, edits)


def neighbour_key(pair: Pair, corpus: Corpus, rng: Random) -> Change | None:
    """The key beside a letter's is hit instead.

    >>> neighbour_key(Pair("tent", ""), Corpus.of([], []), Random(0))[1].query
    'temt'
    """

    def edits(word: str) -> Iterator[str]:
        for i in range(1, len(word)):
            for key in _NEIGHBOURS.get(word[i].lower(), ""):
                yield word[:i] + key + word[i + 1 :]

    return _typo(pair, corpus, rng, edits)


def _typo(
    pair: Pair, corpus: Corpus, rng: Random, edits: Callable[[str], Iterator[str]]
) -> Change | None:
    found = []
    for match in _LETTERS.finditer(pair.query):
        word = match[0]
        if len(word) < _MIN_TYPO_LETTERS or max(word) > _LAST_LATIN:
            continue
        for edited in edits(word):
            if edited != word and edited.casefold() not in corpus.words:
                found.append(pair.query[: match.start()] + edited + pair.query[match.end() :])
    return (pair, Pair(rng.choice(found), pair.title)) if found else None


# compounds that the dataset knows in both forms, one of which the title has


def split_compound(pair: Pair, corpus: Corpus, rng: Random) -> Change | None:
    """A joined word of the query is split.

    >>> corpus = Corpus.of([], ["powerbank", "power bank"] * 2)
    >>> split_compound(Pair("mini powerbank", "Power Bank 12v"), corpus, Random(0))[1].query
    'mini power bank'
    """
    found = _compound(pair, corpus)
    if found is None or found.is_split:
        return None
    return pair, Pair(found.put(f"{found.modifier} {found.head}"), pair.title)


def joined_compound(pair: Pair, corpus: Corpus, rng: Random) -> Change | None:
    """Two words of the query are joined.

    >>> corpus = Corpus.of([], ["powerbank", "power bank"] * 2)
    >>> joined_compound(Pair("mini power bank", "Power Bank 12v"), corpus, Random(0))[1].query
    'mini powerbank'
    """
    found = _compound(pair, corpus)
    if found is None or not found.is_split:
        return None
    return pair, Pair(found.put(f"{found.modifier}{found.head}"), pair.title)


def changed_modifier(pair: Pair, corpus: Corpus, rng: Random) -> Change | None:
    """A split compound gets another first word: ``blue tooth`` becomes ``black tooth``.

    >>> corpus = Corpus.of([], ["bluetooth", "blue tooth", "blackboard", "black board"] * 2)
    >>> before, after = changed_modifier(Pair("bluetooth", "blue tooth"), corpus, Random(0))
    >>> before.query, after.query
    ('blue tooth', 'black tooth')
    """
    found = _compound(pair, corpus)
    if found is None:
        return None
    old, head = found.modifier, found.head
    present = {*_words(pair.query), *_words(pair.title)}
    others = [
        new
        for new in corpus.modifiers
        if not present.intersection((new, new + head))
        and not new.startswith(old)
        and not old.startswith(new)
    ]
    if not others:
        return None
    # split on both sides, so that nothing but the modifier changes
    before, after = found.put(f"{old} {head}"), found.put(f"{rng.choice(others)} {head}")
    return Pair(before, pair.title), Pair(after, pair.title)


@dataclass(frozen=True)
class _Compound:
    query: str
    start: int
    end: int
    modifier: str
    head: str
    is_split: bool

    def put(self, text: str) -> str:
        return self.query[: self.start] + text + self.query[self.end :]


def _compound(pair: Pair, corpus: Corpus) -> _Compound | None:
    """The query's first compound that the title has in either form."""
    title = f" {' '.join(_words(pair.title))} "
    matches = list(_WORD.finditer(pair.query))
    words = [match[0].casefold() for match in matches]
    for i, match in enumerate(matches):
        candidates = [(words[i], match.end(), False)]
        if i + 1 < len(words):
            candidates.append((words[i] + words[i + 1], matches[i + 1].end(), True))
        for joined, end, is_split in candidates:
            parts = corpus.compounds.get(joined)
            if parts is None or (is_split and parts[0] != words[i]):
                continue
            if f" {joined} " in title or f" {' '.join(parts)} " in title:
                return _Compound(pair.query, match.start(), end, *parts, is_split)
    return None


# quantities


def changed_quantity(pair: Pair, corpus: Corpus, rng: Random) -> Change | None:
    """A quantity that query and title share gets another number in the query.

    >>> corpus = Corpus.of([], ["lamp 24 volt"])
    >>> changed_quantity(Pair("12v lamp", "Lamp 12 V"), corpus, Random(0))[1].query
    '24v lamp'
    """
    shared = _shared(pair)
    others = _other_values(shared.unit, pair, corpus) if shared else []
    if shared is None or not others:
        return None
    text = f"{rng.choice(others)}{shared.gap}{shared.spelling}"
    return pair, Pair(pair.query[: shared.start] + text + pair.query[shared.end :], pair.title)


def changed_unit(pair: Pair, corpus: Corpus, rng: Random) -> Change | None:
    """A quantity that query and title share gets another unit in the query.

    >>> changed_unit(Pair("500 mb disk", "Disk 500MB"), Corpus.of([], []), Random(0))[1].query
    '500 tb disk'
    """
    shared = _shared(pair)
    if shared is None:
        return None
    in_title = {quantity.unit for quantity in quantities(pair.title)}
    others = [unit for unit in _SIBLINGS.get(shared.unit, []) if unit not in in_title]
    if not others:
        return None
    text = f"{shared.value}{shared.gap}{rng.choice(others)}"
    return pair, Pair(pair.query[: shared.start] + text + pair.query[shared.end :], pair.title)


def added_quantity(pair: Pair, corpus: Corpus, rng: Random) -> Change | None:
    """A quantity is asked for that is not the title's, compared with asking for the title's.

    >>> corpus = Corpus.of([], ["lamp 24 volt"])
    >>> before, after = added_quantity(Pair("lamp", "Lamp 12V"), corpus, Random(0))
    >>> before.query, after.query
    ('lamp 12v', 'lamp 24v')
    """
    asked = {quantity.unit for quantity in quantities(pair.query)}
    stated = quantities(pair.title)
    times = Counter(quantity.unit for quantity in stated)
    for quantity in stated:
        unit = quantity.unit
        # a unit said twice leaves open which is the item's own
        if unit in asked or times[unit] > 1 or _FOREIGN.search(pair.title[: quantity.start]):
            continue
        others = _other_values(unit, pair, corpus)
        if others:
            before, after = (
                Pair(f"{pair.query} {value}{unit}", pair.title)
                for value in (quantity.value, rng.choice(others))
            )
            return before, after
    return None


def _shared(pair: Pair) -> Quantity | None:
    """The query's first quantity that the title has, too."""
    in_title = {(float(quantity.value), quantity.unit) for quantity in quantities(pair.title)}
    for quantity in quantities(pair.query):
        if (float(quantity.value), quantity.unit) in in_title:
            return quantity
    return None


def _other_values(unit: str, pair: Pair, corpus: Corpus) -> list[str]:
    """The corpus's numbers with this unit that the pair does not state in any unit.

    Compared by their digits less zeros, so that ``500`` ml is no other than ``0.5`` l.
    """
    numbers = re.findall(r"\d+(?:[.,]\d+)?", f"{pair.query} {pair.title}")
    stated = {_digits(number) for number in numbers}
    return [value for value in corpus.values.get(unit, ()) if _digits(value) not in stated]


def _digits(number: str) -> str:
    return re.sub(r"\D", "", number).strip("0")


# word order, words of sale, stuffed titles


def shuffled_words(pair: Pair, corpus: Corpus, rng: Random) -> Change | None:
    """The query's words stand in another order; a number stays with its unit.

    >>> shuffled_words(Pair("desk 12 v lamp", ""), Corpus.of([], []), Random(3))[1].query
    '12 v lamp desk'
    >>> shuffled_words(Pair("lamp lamp", ""), Corpus.of([], []), Random(0)) is None
    True
    """
    # a tie that is no white space holds a quantity together
    tied = _QUANTITY.sub(lambda match: match[0].replace(" ", "\0"), pair.query)
    words = tied.split()
    if len({word.casefold() for word in words}) < 2:
        return None
    order = list(words)
    while [word.casefold() for word in order] == [word.casefold() for word in words]:
        rng.shuffle(order)
    return pair, Pair(" ".join(order).replace("\0", " "), pair.title)


def sale_in_query(pair: Pair, corpus: Corpus, rng: Random) -> Change | None:
    """Words of sale are added to the query.

    >>> sale_in_query(Pair("lamp", "Lamp"), Corpus.of([], []), Random(0))[1].query
    'lamp 50% off'
    """
    if _is_on_sale(pair.query):
        return None
    return pair, Pair(f"{pair.query} {_SALE}", pair.title)


def sale_in_title(pair: Pair, corpus: Corpus, rng: Random) -> Change | None:
    """Words of sale are added to the relevant title.

    >>> sale_in_title(Pair("lamp", "Desk Lamp"), Corpus.of([], []), Random(0))[1].title
    'Desk Lamp 50% off'
    """
    if _is_on_sale(pair.title):
        return None
    return pair, Pair(pair.query, f"{pair.title} {_SALE}")


def sale_reworded(pair: Pair, corpus: Corpus, rng: Random) -> Change | None:
    """``50% off`` in the query, added where it is not, becomes ``half price``.

    >>> [p.query for p in sale_reworded(Pair("lamp", "Lamp"), Corpus.of([], []), Random(0))]
    ['lamp 50% off', 'lamp half price']
    """
    if _OTHER_SALE in pair.query.casefold():
        return None
    before = pair.query if _SALE_WORDS.search(pair.query) else f"{pair.query} {_SALE}"
    after = _SALE_WORDS.sub(_OTHER_SALE, before)
    return Pair(before, pair.title), Pair(after, pair.title)


def _is_on_sale(text: str) -> bool:
    return bool(_SALE_WORDS.search(text)) or _OTHER_SALE in text.casefold()


def repeated_word(pair: Pair, corpus: Corpus, rng: Random) -> Change | None:
    """A word that the query shares with an irrelevant title is said three times more there.

    >>> repeated_word(Pair("usb hub", "Usb Fan"), Corpus.of([], []), Random(0))[1].title
    'Usb Fan usb usb usb'
    """
    in_title = set(_words(pair.title))
    for word in _words(pair.query):
        if word in in_title and len(word) >= _MIN_PART_LETTERS and word not in _LINKS:
            return pair, Pair(pair.query, " ".join([pair.title, *[word] * _STACKED]))
    return None


def stacked_query(pair: Pair, corpus: Corpus, rng: Random) -> Change | None:
    """The whole query is put behind an irrelevant title.

    >>> stacked_query(Pair("usb hub", "Usb Fan"), Corpus.of([], []), Random(0))[1].title
    'Usb Fan usb hub'
    """
    return pair, Pair(pair.query, f"{pair.title} {pair.query}")


def stacked_keywords(pair: Pair, corpus: Corpus, rng: Random) -> Change | None:
    """Three other queries, without a word of this one, are put behind the title.

    >>> corpus = Corpus.of(["lamp", "desk", "tent", "usb fan"], [])
    >>> stacked_keywords(Pair("usb hub", "Usb Hub"), corpus, Random(0))[1].title
    'Usb Hub lamp tent desk'
    """
    asked = set(_words(pair.query))
    foreign = [query for query in corpus.queries if not asked.intersection(_words(query))]
    if len(foreign) < _STACKED:
        return None
    return pair, Pair(pair.query, " ".join([pair.title, *rng.sample(foreign, _STACKED)]))


@dataclass(frozen=True)
class Transformation:
    """A row of ``TRANSFORMATIONS``."""

    name: str
    suite: str
    direction: Direction
    change: Callable[[Pair, Corpus, Random], Change | None]
    """None where the pair does not offer the change. It may draw only from the generator, which
    is seeded by seed, name and query: all pairs of a query see the same draws."""
    meaning: str
    """One line for people."""


TRANSFORMATIONS: Sequence[Transformation] = (
    Transformation(
        "repeated-word",
        "stuffing",
        "stays below",
        repeated_word,
        "a shared word said three times more in an irrelevant title",
    ),
    Transformation(
        "stacked-query",
        "stuffing",
        "stays below",
        stacked_query,
        "the whole query put behind an irrelevant title",
    ),
    Transformation(
        "stacked-keywords",
        "stuffing",
        "stays below",
        stacked_keywords,
        "three other queries put behind an irrelevant title",
    ),
    Transformation(
        "stuffed-relevant",
        "stuffing",
        "stays above",
        stacked_keywords,
        "three other queries put behind a relevant title",
    ),
    Transformation(
        "swapped-letters",
        "typos",
        "stays above",
        swapped_letters,
        "two neighbouring letters of the query swapped",
    ),
    Transformation(
        "dropped-letter", "typos", "stays above", dropped_letter, "a letter of the query missing"
    ),
    Transformation(
        "doubled-letter", "typos", "stays above", doubled_letter, "a letter of the query doubled"
    ),
    Transformation(
        "neighbour-key",
        "typos",
        "stays above",
        neighbour_key,
        "a letter of the query replaced by its neighbour on the keyboard",
    ),
    Transformation(
        "split-compound",
        "compounds",
        "stays above",
        split_compound,
        "bluetooth becomes blue tooth in the query",
    ),
    Transformation(
        "joined-compound",
        "compounds",
        "stays above",
        joined_compound,
        "blue tooth becomes bluetooth in the query",
    ),
    Transformation(
        "changed-modifier",
        "compounds",
        "falls",
        changed_modifier,
        "blue tooth becomes black tooth in the query",
    ),
    Transformation(
        "changed-quantity",
        "quantities",
        "falls",
        changed_quantity,
        "12v becomes 24v in the query, 12v in the title",
    ),
    Transformation(
        "changed-unit",
        "quantities",
        "falls",
        changed_unit,
        "500 ml becomes 500 l in the query, 500 ml in the title",
    ),
    Transformation(
        "added-quantity",
        "quantities",
        "falls",
        added_quantity,
        "24v added to the query instead of the title's 12v",
    ),
    Transformation(
        "shuffled-words",
        "word order",
        "stays above",
        shuffled_words,
        "the query's words in another order",
    ),
    Transformation(
        "sale-in-query", "sale", "stays above", sale_in_query, "50% off added to the query"
    ),
    Transformation(
        "sale-in-title", "sale", "stays above", sale_in_title, "50% off added to a relevant title"
    ),
    Transformation(
        "sale-reworded",
        "sale",
        "stays above",
        sale_reworded,
        "50% off becomes half price in the query",
    ),
)

SUITES: Sequence[str] = tuple(dict.fromkeys(row.suite for row in TRANSFORMATIONS))
