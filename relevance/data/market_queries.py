"""Queries of the generated shop, what each one means, and the items that come up for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relevance.data.market_catalogue import (
    UNIT_FIELDS,
    Catalogue,
    Forms,
    Ints,
    ids,
    vocabulary,
)
from relevance.data.market_lexicon import HOMONYMS, PROMOTIONS, plural
from relevance.data.market_truth import KEYWORDS, Intent

POOL = 48
"""Items per query from which pages and judgments are drawn."""

_ABSENT = -1
_WINDOW = 4_096
"""Items of a core among which a query's pool is sought."""
_MOST = {3: 12, 2: 14, 1: 12}
"""Items of the meant core in a pool, by grade."""
_LURES = 6
"""Accessories in a pool; and items whose title is stuffed with the meant core."""
_NEAR = 4
"""Items of the meant category in a pool."""
_TRIES = 40
"""Draws per wanted query before giving up on finding another text."""

_P_HOMONYM = 0.03
"""Chance that a query is one ambiguous word."""
_P_KEYWORDS = (0.25, 0.50, 0.25)
"""Chance that a query asks 0, 1 or 2 keywords."""
_P_UNIT = 0.55
_P_WHICH_UNIT = (0.65, 0.25, 0.10)
"""Chance that a query asks for a unit, and for which of ``UNIT_FIELDS``."""
_P_USUAL = 0.5
"""Chance of the usual word; else any way to say it, the usual one included."""
_P_PLURAL = 0.35
_P_SHUFFLED = 0.25
_P_JOINED = 0.12
_P_TYPO = 0.1
_P_PROMOTION = 0.05


@dataclass(frozen=True)
class Queries:
    """Texts, and what they mean as numbers."""

    texts: list[str]
    cores: NDArray[np.int16]
    """Meant cores; -1 where there is no second. [queries, 2]"""
    wanted: NDArray[np.int8]
    """Values asked for, in the columns of ``Catalogue.values``; -1 if none. [queries, 8]"""

    def __len__(self) -> int:
        return len(self.texts)

    def intent(self, row: int) -> Intent:
        """What query ``row`` means, in words."""
        words = vocabulary()
        cores = [int(core) for core in self.cores[row] if core != _ABSENT]
        category = words.category[cores[0]]
        asked = self.wanted[row]
        keywords = {
            name: _phrase(words.keyword[name], words.base[name][category] + asked[column])
            for column, name in enumerate(KEYWORDS)
            if asked[column] != _ABSENT
        }
        units = [
            _phrase(*_unit_value(cores[0], unit, int(value)))
            for unit, value in enumerate(asked[len(KEYWORDS) :])
            if value != _ABSENT
        ]
        return Intent(
            tuple(words.cores[c].name for c in cores), **keywords, specification=(*units,)
        )

    def intent_rows(self) -> pa.Table:
        """The truth behind every query, one row each."""
        intents = [self.intent(row) for row in range(len(self))]
        columns = {
            "query_id": ids("q", np.arange(len(self))),
            "cores": pa.array([intent.cores for intent in intents], pa.list_(pa.string())),
        }
        for name in KEYWORDS:
            columns[name] = pa.array([getattr(intent, name) for intent in intents], pa.string())
        columns["specification"] = pa.array(
            [intent.specification for intent in intents], pa.list_(pa.string())
        )
        return pa.table(columns)


def make_queries(catalogue: Catalogue, queries: int, seed: int) -> Queries:
    """Draw queries, each after a product that answers it in full.

    Raises:
        ValueError: The products do not give rise to that many different queries.
    """
    rng = np.random.default_rng((seed, 3))
    texts: dict[str, None] = {}
    cores, wanted = [], []
    homonyms = list(HOMONYMS.items())
    index = vocabulary().index
    for _ in range(_TRIES * queries):
        if len(texts) == queries:
            break
        asked = np.full(len(KEYWORDS) + len(UNIT_FIELDS), _ABSENT, np.int8)
        if rng.random() < _P_HOMONYM:
            name, meanings = homonyms[rng.integers(len(homonyms))]
            meant = [index[meaning] for meaning in meanings]
            text = _roughen([name], rng)
        else:
            row = int(rng.integers(len(catalogue)))
            core = int(catalogue.core[row])
            meant = [core, _ABSENT]
            columns = _ask(rng)
            asked[columns] = catalogue.values[row, columns]
            text = _say(core, asked, rng)
        if text in texts:
            continue
        texts[text] = None
        cores.append(meant)
        wanted.append(asked)
    if len(texts) < queries:
        raise ValueError(
            f"queries is {queries}, but {len(catalogue)} products gave only {len(texts)} different "
            "ones; want fewer queries or more products"
        )
    return Queries(list(texts), np.array(cores, np.int16), np.array(wanted, np.int8))


def _ask(rng: np.random.Generator) -> list[int]:
    """Columns of the values that a query names."""
    count = int(rng.choice(len(_P_KEYWORDS), p=_P_KEYWORDS))
    columns = [int(c) for c in rng.choice(len(KEYWORDS), count, replace=False)]
    if rng.random() < _P_UNIT:
        columns.append(len(KEYWORDS) + int(rng.choice(len(UNIT_FIELDS), p=_P_WHICH_UNIT)))
    return columns


def _say(core: int, asked: NDArray[np.int8], rng: np.random.Generator) -> str:
    """A query for the values asked for: keywords, core, units and use, at times shuffled."""
    words = vocabulary()
    category = words.category[core]
    noun = _form(words.core, core, rng)
    if rng.random() < _P_PLURAL:
        noun = plural(noun)
    parts = [noun]
    for column, name in enumerate(KEYWORDS):
        if asked[column] == _ABSENT:
            continue
        said = _form(words.keyword[name], words.base[name][category] + asked[column], rng)
        if name == "usage":
            parts.append(f"for {said}" if rng.random() < 0.5 else said)
        else:
            parts.insert(0, said)
    for unit, value in enumerate(asked[len(KEYWORDS) :]):
        if value != _ABSENT:
            place = 0 if rng.random() < 0.4 else len(parts)
            parts.insert(place, _form(*_unit_value(core, unit, int(value)), rng))
    if rng.random() < _P_SHUFFLED:
        parts = [parts[i] for i in rng.permutation(len(parts))]
    return _roughen(parts, rng)


def _unit_value(core: int, unit: int, value: int) -> tuple[Forms, int]:
    """The forms and the number of a value on the core's scales, or of a minimum order."""
    words = vocabulary()
    if UNIT_FIELDS[unit] == "order":
        return words.order, value
    return words.unit, int(words.scale_base[words.scale[core, unit]]) + value


def _phrase(forms: Forms, value: int) -> str:
    return str(vocabulary().phrases[int(forms.start[value])])


def _form(forms: Forms, value: int, rng: np.random.Generator) -> str:
    start = forms.start[value]
    if rng.random() >= _P_USUAL:
        start += rng.integers(forms.count[value])
    return str(vocabulary().phrases[int(start)])


def _roughen(parts: list[str], rng: np.random.Generator) -> str:
    """Words of sale, a compound run together, a slip of the finger."""
    if rng.random() < _P_PROMOTION:
        forms = PROMOTIONS[rng.integers(len(PROMOTIONS))]
        parts = [forms[rng.integers(len(forms))], *parts]
    joints = [i for i, part in enumerate(parts) if " " in part]
    if joints and rng.random() < _P_JOINED:
        at = joints[rng.integers(len(joints))]
        parts[at] = parts[at].replace(" ", "", 1)
    tokens = " ".join(parts).split()
    longer = [i for i, token in enumerate(tokens) if len(token) > 4 and token.isalpha()]
    if longer and rng.random() < _P_TYPO:
        at = longer[rng.integers(len(longer))]
        tokens[at] = _slip(tokens[at], rng)
    return " ".join(tokens)


def _slip(word: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(1, len(word) - 1))
    kind = rng.integers(3)
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at] + word[at:]
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


@dataclass(frozen=True)
class Pools:
    """Items that come up for each query. [queries, POOL] each"""

    items: NDArray[np.int32]
    grades: NDArray[np.int8]
    matches: NDArray[np.float32]
    """What a lexical engine sees: words of the query in the title, stuffing included."""

    @staticmethod
    def join(parts: list[Pools]) -> Pools:
        """The pools of all queries of ``parts``."""
        return Pools(
            np.concatenate([part.items for part in parts]),
            np.concatenate([part.grades for part in parts]),
            np.concatenate([part.matches for part in parts]),
        )


class Shelves:
    """Where the items of each core stand, and those stuffed with its name."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._own = _Groups(catalogue.core)
        self._stuffed = _Groups(catalogue.stuffed)
        of = vocabulary().accessory_of
        self._accessories = [np.flatnonzero(of == core) for core in range(len(of))]

    def pools(self, queries: Queries, rows: slice, seed: int) -> Pools:
        """Pools of queries ``rows``: hard items first, random ones to fill up."""
        rng = np.random.default_rng((seed, 4, rows.start))
        numbers = range(len(queries))[rows]
        items = np.stack([self._pool(queries, row, rng) for row in numbers])
        cores, wanted = queries.cores[rows], queries.wanted[rows]
        return Pools(
            items,
            self._grades(cores, wanted, items),
            self._matches(cores, wanted, items, rng),
        )

    def _pool(self, queries: Queries, row: int, rng: np.random.Generator) -> NDArray[np.int32]:
        cores = [int(core) for core in queries.cores[row] if core != _ABSENT]
        own = np.concatenate([self._own.window(core, rng) for core in cores])
        grades = self._grades(
            queries.cores[row : row + 1], queries.wanted[row : row + 1], own[None]
        )
        found = [_some(own[grades[0] == grade], most, rng) for grade, most in _MOST.items()]
        parts = [
            self._own.window(part, rng)
            for core in cores
            for part in self._accessories[core].tolist()
        ]
        stuffed = [self._stuffed.window(core, rng) for core in cores]
        for lures in (parts, stuffed):
            if lures:
                lure = np.concatenate(lures)
                found.append(_some(lure[~np.isin(self._catalogue.core[lure], cores)], _LURES, rng))
        chosen = dict.fromkeys(np.concatenate(found).tolist())
        words = vocabulary()
        first, size = words.first[words.category[cores]], words.n_siblings[words.category[cores]]
        near = [int(core) for core in first + rng.integers(size)]
        siblings = np.concatenate([self._own.window(core, rng, 64) for core in near])
        for item in rng.permutation(siblings)[:_NEAR].tolist():
            chosen.setdefault(item)
        while len(chosen) < POOL:
            chosen.setdefault(int(rng.integers(len(self._catalogue))))
        return np.array(list(chosen)[:POOL], np.int32)

    def _grades(self, cores: Ints, wanted: Ints, items: Ints) -> NDArray[np.int8]:
        """``market_truth.grade`` on numbers. [queries, items]"""
        core = self._catalogue.core[items]
        accessory = vocabulary().accessory_of[core]
        meant = _is_any(core, cores)
        near = _is_any(accessory, cores) & (accessory != _ABSENT)
        agrees = (wanted[:, None] == _ABSENT) | (wanted[:, None] == self._catalogue.values[items])
        keywords = agrees[..., : len(KEYWORDS)].all(axis=2)
        units = agrees[..., len(KEYWORDS) :].all(axis=2)
        grades = np.where(meant, 1 + keywords * (1 + units), near)
        return np.asarray(grades, np.int8)

    def _matches(
        self, cores: Ints, wanted: Ints, items: Ints, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        core = self._catalogue.core[items]
        accessory = vocabulary().accessory_of[core]
        named = _is_any(core, cores) | _is_any(self._catalogue.stuffed[items], cores)
        named |= _is_any(accessory, cores) & (accessory != _ABSENT)
        asked = wanted[:, None] != _ABSENT
        same = asked & (wanted[:, None] == self._catalogue.values[items])
        # half of the words agree: synonyms, spellings and typos hide the rest
        seen = rng.random(same.shape, np.float32) < 0.5
        luck = rng.normal(0, 0.5, named.shape)
        return np.asarray(named + 0.6 * (same & seen).sum(axis=2) + luck, np.float32)


def _is_any(core: Ints, cores: Ints) -> NDArray[np.bool_]:
    return np.asarray((core[..., None] == cores[:, None]).any(axis=2))


def _some(items: NDArray[np.int32], most: int, rng: np.random.Generator) -> NDArray[np.int32]:
    return items if len(items) <= most else rng.choice(items, most, replace=False)


class _Groups:
    """Items by core, without a list for each."""

    def __init__(self, core: NDArray[np.int16]) -> None:
        self._items = np.argsort(core, kind="stable").astype(np.int32)
        counts = np.bincount(core, minlength=len(vocabulary().cores))
        self._ends = np.concatenate([[0], np.cumsum(counts)])

    def window(self, core: int, rng: np.random.Generator, most: int = _WINDOW) -> NDArray[np.int32]:
        start, stop = int(self._ends[core]), int(self._ends[core + 1])
        if stop - start > most:
            start = int(rng.integers(start, stop - most))
            stop = start + most
        return self._items[start:stop]
