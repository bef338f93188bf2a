"""The gazetteer: phrases whose class the catalogue itself tells.

A phrase is a value of an attribute that stands in titles too. Where no attribute tells a class,
common words of ``term_words`` stand in for it, and for cores the words that sellers and shoppers
put last: what a thing is comes at the end of a noun phrase.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from relevance.data.term_words import ATTRIBUTE_NAMES, COMMON, STOP, UNITS
from relevance.data.terms import CLASSES, class_id

_WORD = re.compile(r"\d+(?:[.,]\d+)+[^\W_]*|[^\W_]+(?:['’][^\W_]+)*")
_SPLIT = re.compile(r"[,;|\n/]| - ")
_LEAF = re.compile(r"\s*[>|/»\n]\s*")
_FOLDED_UNITS = re.compile(UNITS.pattern)
"""For texts without capitals, at half the time."""
_NAMES = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in ATTRIBUTE_NAMES.items()}

_Node = dict[str, Any]
_MAX_WORDS = 4
"""A longer value is a sentence."""
_MIN_SHARE = 0.1
"""Of the titles with the phrase whose item states the class, those whose item states the phrase;
below it, the phrase mostly means something else. Sellers name what an item is not, and at 0.25
the generated shop lost its sofas."""
_MIN_BRAND_SHARE = 0.5
"""The same of brands, many of which are plain words too."""
_FEW = 20
"""A class of which attributes tell fewer phrases gets the common words too."""
_MIN_COVER = 0.5
"""Below this share of titles with a core, the words that stand last are added as cores."""
_MIN_LAST = 0.5
"""Of the places with a word, those where a noun phrase ends, for the word to be a core."""

NONE = class_id("none")
CORE = class_id("core")
SPECIFICATION = class_id("specification")


class Word(NamedTuple):
    """A word of a text, and where it stands."""

    text: str
    """Case-folded."""
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Words:
    """Words of a text; of thousands of titles, lists are made faster than objects."""

    texts: list[str]
    """Case-folded."""
    starts: list[int]
    ends: list[int]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, at: int) -> Word:
        return Word(self.texts[at], self.starts[at], self.ends[at])

    def __iter__(self) -> Iterator[Word]:
        return map(Word, self.texts, self.starts, self.ends)


class Match(NamedTuple):
    """Words ``first`` to ``last``, both included, of a class; of brands it is 0."""

    first: int
    last: int
    start: int
    """First character."""
    end: int
    """After the last character: of a unit such as ``15"``, beyond its last word."""
    term_class: int


@dataclass(frozen=True)
class Product:
    """What a product says of itself."""

    title: str
    category: str | None
    brand: str | None
    attributes: Sequence[tuple[str, str]]


def split_words(text: str) -> Words:
    """Words of ``text``: letters and digits, with apostrophes and decimal points inside.

    >>> split_words("Non-Stick pan, 3.5mm").texts
    ['non', 'stick', 'pan', '3.5mm']
    """
    found = list(_WORD.finditer(text))
    return Words(
        [m[0].casefold() for m in found], [m.start() for m in found], [m.end() for m in found]
    )


def _units(text: str) -> dict[int, int]:
    """First character of each unit, and the one after its last."""
    # of other scripts, folding may change the length, and regular expressions fold otherwise
    if text.isascii():
        return dict([unit.span() for unit in _FOLDED_UNITS.finditer(text.lower())])
    return dict([unit.span() for unit in UNITS.finditer(text)])


def attribute_class(name: str) -> str | None:
    """Class of the attribute ``name``, ``none`` if it misleads, None if nothing is known of it.

    >>> attribute_class("Product colour"), attribute_class("package width")
    ('style', 'none')
    """
    return next((known for known, pattern in _NAMES.items() if pattern.search(name)), None)


class Gazetteer:
    """Phrases by their words, and the units that every shop has."""

    def __init__(self, phrases: Mapping[str, int]) -> None:
        self.phrases = dict(phrases)
        """Words joined by spaces -> class; 0 for brands."""
        by_words: dict[tuple[str, ...], int] = {}
        for phrase, term_class in self.phrases.items():
            by_words[tuple(phrase.split())] = term_class
        for phrase, term_class in self.phrases.items():
            if term_class == CORE:
                *head, last = phrase.split()
                for form in _numbers(last):
                    by_words.setdefault((*head, form), CORE)
        self.words = frozenset(word for phrase in self.phrases for word in phrase.split())
        """Every word that stands in a phrase."""
        self._first: _Node = {}
        """Of a tree of words: word -> what may follow it; "" -> class of the phrase up to here."""
        for words, term_class in by_words.items():
            node = self._first
            for word in words:
                node = node.setdefault(word, {})
            node[""] = term_class

    def match(self, text: str, words: Words) -> list[Match]:
        """Longest matches from left to right, none overlapping another."""
        units = _units(text)
        matches = []
        free = 0
        for at, (first, start) in enumerate(zip(words.texts, words.starts, strict=True)):
            if at < free or (first not in self._first and start not in units):
                continue
            count, term_class = self._phrase(words.texts, at)
            end = units.get(start, 0)
            measured = bisect_left(words.starts, end, at) - at
            if measured > count or (measured == count and end > words.ends[at]):
                count, term_class = measured, SPECIFICATION
            elif count:
                end = words.ends[at + count - 1]
            if count:
                matches.append(Match(at, at + count - 1, start, end, term_class))
                free = at + count
        return matches

    def _phrase(self, texts: Sequence[str], at: int) -> tuple[int, int]:
        """How many words the longest phrase from ``at`` on has, and its class."""
        count, term_class = 0, NONE
        node = self._first
        for place in range(at, len(texts)):
            if texts[place] not in node:
                break
            node = node[texts[place]]
            if "" in node:
                count, term_class = place + 1 - at, node[""]
        return count, term_class

    def write(self, path: Path) -> None:
        """Write one line a phrase: class, tab, phrase."""
        ranked = sorted((c, phrase) for phrase, c in self.phrases.items())
        lines = [f"{CLASSES[c]}\t{phrase}\n" for c, phrase in ranked]
        path.write_text("".join(lines), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Gazetteer:
        """Read what ``write`` wrote.

        Raises:
            FileNotFoundError: No such file.
            ValueError: A line has no tab or names an unknown class.
        """
        phrases = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: no UTF-8 text: {error}") from error
        for number, line in enumerate(lines, 1):
            name, tab, phrase = line.partition("\t")
            words = " ".join(split_words(phrase).texts)
            if not tab or not words:
                raise ValueError(f"{path}: line {number} is {line!r}, want class, tab, phrase")
            try:
                phrases[words] = class_id(name)
            except ValueError as error:
                raise ValueError(f"{path}: line {number}: {error}") from error
        return cls(phrases)


def learn_gazetteer(
    products: Sequence[Product], queries: Sequence[str], min_count: int
) -> Gazetteer:
    """Gather phrases of ``products``.

    Args:
        products: Titles with what their items say of themselves.
        queries: What shoppers ask; only cores of catalogues that do not name them use it.
        min_count: A phrase in fewer titles is left out.
    """
    titles = [split_words(product.title).texts for product in products]
    stated = [_stated(product) for product in products]
    common = {name: _normal(words) for name, words in COMMON.items()}
    wanted = {phrase: phrase for words in common.values() for phrase in words}
    for said in stated:
        for phrase, term_class in said.items():
            wanted[phrase] = phrase
            if term_class == CORE:
                *head, last = phrase.split()
                wanted.update((" ".join((*head, form)), phrase) for form in _numbers(last))
    found = [_held(title, wanted) for title in titles]
    phrases = _supported(stated, found, min_count)

    told = Counter(phrases.values())
    seen = Counter(phrase for held in found for phrase in held)
    for name, words in common.items():
        if told[class_id(name)] < _FEW:
            for phrase in words:
                if seen[phrase] >= min_count:
                    phrases.setdefault(phrase, class_id(name))

    gazetteer = Gazetteer(phrases)
    covered = sum(
        any(match.term_class == CORE for match in gazetteer.match(p.title, split_words(p.title)))
        for p in products
    )
    if covered < _MIN_COVER * len(products):
        texts = [*(product.title for product in products), *queries]
        for phrase in _last_words(gazetteer, texts, min_count):
            phrases.setdefault(phrase, CORE)
        gazetteer = Gazetteer(phrases)
    return gazetteer


def _stated(product: Product) -> dict[str, int]:
    """Phrases that the product says of itself, with their classes."""
    stated: dict[str, int] = {}
    for name, value in product.attributes:
        known = attribute_class(name)
        if known is not None and known != "none":
            stated.update(dict.fromkeys(_normal(_SPLIT.split(value)), class_id(known)))
    if CORE not in stated.values() and product.category:
        stated.update(dict.fromkeys(_normal([_LEAF.split(product.category.strip())[-1]]), CORE))
    if product.brand:
        stated.update(dict.fromkeys(_normal([product.brand]), NONE))
    return {
        phrase: term_class
        for phrase, term_class in stated.items()
        if term_class != CORE or not phrase[0].isdigit()
    }


def _normal(phrases: Iterable[str]) -> list[str]:
    """Phrases as they are matched, without those that could mean anything."""
    split = [split_words(phrase).texts for phrase in phrases]
    return [
        " ".join(words)
        for words in split
        if 0 < len(words) <= _MAX_WORDS
        and any(len(word) > 1 and not word[0].isdigit() for word in words)
        and not all(word in STOP or word in ("yes", "no", "other", "n") for word in words)
    ]


def _held(words: Sequence[str], wanted: Mapping[str, str]) -> set[str]:
    """What the words hold of ``wanted``, a form -> its phrase."""
    grams = (
        " ".join(words[first : first + size])
        for size in range(1, _MAX_WORDS + 1)
        for first in range(len(words) - size + 1)
    )
    return {wanted[gram] for gram in grams if gram in wanted}


def _supported(
    stated: Sequence[Mapping[str, int]], found: Sequence[set[str]], min_count: int
) -> dict[str, int]:
    """Phrases that titles hold often enough where the item states them."""
    support: dict[str, Counter[int]] = defaultdict(Counter)
    for said, held in zip(stated, found, strict=True):
        for phrase in held & said.keys():
            support[phrase][said[phrase]] += 1
    asked: dict[str, Counter[int]] = defaultdict(Counter)
    for said, held in zip(stated, found, strict=True):
        classes = set(said.values())
        for phrase in held & support.keys():
            asked[phrase].update(classes)
    phrases = {}
    for phrase, counts in support.items():
        term_class, count = max(counts.items(), key=lambda item: (item[1], item[0]))
        share = _MIN_SHARE if term_class else _MIN_BRAND_SHARE
        if count >= min_count and count >= share * asked[phrase][term_class]:
            phrases[phrase] = term_class
    return phrases


_BREAK = re.compile(
    r"[,;:()|\[\]–—•+]| - |\s&\s|\b(?:and|by|for|from|in|of|on|or|to|with|w|compatible|fits)\b",
    re.IGNORECASE,
)


def _last_words(gazetteer: Gazetteer, texts: Iterable[str], min_count: int) -> list[str]:
    """Words and pairs of words that mostly end the first noun phrase of ``texts``.

    A word must stand behind ``min_count`` different ones: what a brand calls its series stands
    behind the brand alone.
    """
    last: Counter[str] = Counter()
    anywhere: Counter[str] = Counter()
    before: dict[str, set[str]] = defaultdict(set)
    for text in texts:
        for chunk in _chunks(gazetteer, _BREAK.split(text)[0]):
            pairs = [" ".join(pair) for pair in pairwise(chunk)]
            anywhere.update((*chunk, *pairs))
            last.update((chunk[-1], *pairs[-1:]))
            before[chunk[-1]].update(chunk[-2:-1])
    common = {phrase for words in COMMON.values() for phrase in words}
    mostly = {
        phrase
        for phrase, count in last.items()
        if count >= min_count and count >= _MIN_LAST * anywhere[phrase] and phrase not in common
    }
    heads = {word for word in mostly if len(before[word]) >= min_count}
    return sorted(heads | {pair for pair in mostly if pair.split()[-1] in heads})


def _chunks(gazetteer: Gazetteer, text: str) -> list[list[str]]:
    """Stretches of plain words between brands and terms of other classes.

    So ``red sofa`` and ``sofa red`` both end in the sofa.
    """
    words = split_words(text)
    taken = {
        at
        for match in gazetteer.match(text, words)
        if match.term_class != CORE
        for at in range(match.first, match.last + 1)
    }
    chunks: list[list[str]] = [[]]
    for at, word in enumerate(words):
        if at in taken or word.text in STOP or len(word.text) < 2 or not word.text.isalpha():
            chunks.append([])
        else:
            chunks[-1].append(word.text)
    return [chunk for chunk in chunks if chunk]


def _numbers(word: str) -> list[str]:
    """The plural of a singular and the singular of a plural, as far as spelling tells."""
    if not word.isalpha() or len(word) < 3:
        return []
    forms = []
    if word.endswith("ies"):
        forms.append(f"{word[:-3]}y")
    elif re.search(r"(?:s|x|z|ch|sh)es$", word):
        forms += [word[:-2], word[:-1]]
    elif word.endswith("s") and not word.endswith("ss"):
        forms.append(word[:-1])
    elif re.search(r"(?:s|x|z|ch|sh)$", word):
        forms.append(f"{word}es")
    elif re.search(r"[^aeiou]y$", word):
        forms.append(f"{word[:-1]}ies")
    elif word.endswith("fe"):
        forms += [f"{word[:-2]}ves", f"{word}s"]
    else:
        forms.append(f"{word}s")
    return forms
