"""Scores of pairs that were scored before, kept by query.

A request has one query and up to thousands of items, so a cache is asked once a request: the
query's key finds a group, and one search in its sorted keys finds the scores of all items. Keys are
hashes of 128 bits, so that neither chance nor a merchant who writes titles for it finds two pairs
of one key; they are equal on every machine, so that caches may be shared and filled beforehand.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving.metrics import CACHE_REQUESTS

REDIS_URL = "QUERYLIFT_REDIS_URL"
"""Environment variable; with a URL in it scores are kept in Redis. The URL may hold a password, so
it is no option of a command, which other processes could read."""

Keys = NDArray[np.uint64]
"""Hashes of 128 bits, as two halves. [n, 2]"""
Scores = NDArray[np.float32]
"""Raw scores; not a number where nothing is known. [n]"""

_BYTES = 16


class ScoreCache(Protocol):
    """Remembers raw scores by ``query_key`` and ``item_keys``, bit for bit."""

    async def get(self, query: bytes, items: Keys) -> Scores:
        """What is known of each pair of ``query``, NaN where nothing is. [pairs]"""

    async def put(self, query: bytes, items: Keys, scores: Scores) -> None:
        """Remember pairs of ``query``; of a pair that is known already, the first score stays.

        Nothing is remembered of a pair whose score is NaN.
        """

    async def fill(self, query: bytes, items: Keys, scores: Scores) -> bool:
        """Remember pairs of ``query`` before the first request, unless something of it is known.

        Returns:
            Whether there is room for more. What comes first is the last to be forgotten, and
            nothing is forgotten for what comes later.
        """

    async def close(self) -> None:
        """Let go of what it holds; nothing is asked of it afterwards."""


def open_cache(max_bytes: int) -> ScoreCache | None:
    """Redis if ``QUERYLIFT_REDIS_URL`` names one, else memory of this process; none for 0 bytes.

    Args:
        max_bytes: Of the memory; Redis has its own bound.

    Raises:
        ValueError: ``max_bytes`` is negative, or the URL cannot be read.
    """
    if url := os.environ.get(REDIS_URL):
        from serving.redis_cache import RedisCache

        return RedisCache(url)
    return MemoryCache(max_bytes) if max_bytes else None


def normalised(query: str) -> str:
    """``query`` without white space at its ends, and one space for any within.

    Give the model what this returns, with caches or without, and take the key of the same text:
    then a hit cannot differ from a miss. A key of a text that the model does not read may: to a
    WordPiece tokenizer spaces are alike, but to a term tagger ``10  kg`` is no measure. Case,
    accents and Unicode's forms stay, because there are encoders that tell them apart.

    >>> normalised(" red   shoes ")
    'red shoes'
    """
    return " ".join(query.split())


def query_key(version: str, query: str) -> bytes:
    """Key of a query's scores.

    Args:
        version: Names all that a score's bits depend on but its two texts, checkpoint and
            precision: ``relevance.scorer.Scorer.bits``.
        query: The text that the model reads.
    """
    head = version.encode()
    # with its length, so that no letter can move from the version to the query
    text = len(head).to_bytes(4, "little") + head + query.encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=_BYTES, person=b"query").digest()


def item_keys(titles: Keys, item_ids: Sequence[str] | None = None) -> Keys:
    """Key of each item within a query.

    Those of a catalogue do not change with the query: make them once and take rows of them.

    Args:
        titles: What ``relevance.titles.title_hashes`` returns. [items, 2]
        item_ids: None for titles that belong to no item of a catalogue.

    Returns:
        Keys. [items, 2]
    """
    if item_ids is None:
        return titles
    data = np.ascontiguousarray(titles, "<u8").tobytes()
    starts = range(0, len(data), _BYTES)
    digests = [
        blake2b(
            data[start : start + _BYTES] + item_id.encode("utf-8", "surrogatepass"),
            digest_size=_BYTES,
            person=b"item",  # or a title could be spelt like another one's hash and item id
        ).digest()
        for start, item_id in zip(starts, item_ids, strict=True)
    ]
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)


@dataclass(frozen=True, slots=True)
class Group:
    """Scores of one query. Never changed, so that it is read without a lock."""

    firsts: NDArray[np.uint64]
    """First halves of the keys, sorted, each once."""
    seconds: NDArray[np.uint64]
    """Second halves of the same keys."""
    scores: Scores

    def find(self, items: Keys) -> Scores:
        """Scores of ``items``, NaN where unknown. [items]"""
        if not len(self.firsts):
            return np.full(len(items), np.nan, np.float32)
        wanted = np.ascontiguousarray(items[:, 0])
        at = self._places(wanted)
        is_hit = (self.firsts[at] == wanted) & (self.seconds[at] == items[:, 1])
        return np.where(is_hit, self.scores[at], np.float32(np.nan))

    def add(self, items: Keys, scores: Scores) -> Group:
        """A group that knows these pairs too.

        A key whose first half is another's is left out, which costs a miss: of groups of a
        million items, one in 37 million has such a pair.
        """
        rows = np.flatnonzero(~np.isnan(scores))
        firsts, index = np.unique(items[rows, 0], return_index=True)
        rows = rows[index]
        if len(self.firsts):
            is_new = self.firsts[self._places(firsts)] != firsts
            firsts, rows = firsts[is_new], rows[is_new]
            if not len(rows):
                return self
        at = np.searchsorted(self.firsts, firsts)
        return Group(
            np.insert(self.firsts, at, firsts),
            np.insert(self.seconds, at, items[rows, 1]),
            np.insert(self.scores, at, scores[rows]),
        )

    def _places(self, firsts: NDArray[np.uint64]) -> NDArray[np.intp]:
        return np.minimum(np.searchsorted(self.firsts, firsts), len(self.firsts) - 1)

    @property
    def nbytes(self) -> int:
        """Memory it takes with its place in a cache."""
        return _GROUP_BYTES + self.firsts.nbytes + self.seconds.nbytes + self.scores.nbytes


_GROUP_BYTES = 768
"""Objects of a group: three arrays' headers, the key, the entry of the map. A test measures it."""

EMPTY = Group(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.float32))
"""A query of which nothing is known."""


class MemoryCache:
    """Scores in this process; what was asked for longest ago is forgotten first, by query.

    Any number of threads and tasks may use it.
    """

    def __init__(self, max_bytes: int) -> None:
        """Make an empty cache.

        Args:
            max_bytes: Bound on keys, scores and what Python needs to hold them; 0 keeps nothing.

        Raises:
            ValueError: ``max_bytes`` is negative.
        """
        if max_bytes < 0:
            raise ValueError(f"max_bytes {max_bytes}: want 0 or more")
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._groups: OrderedDict[bytes, Group] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Queries of which something is known."""
        return len(self._groups)

    async def get(self, query: bytes, items: Keys) -> Scores:
        """See ``ScoreCache.get``."""
        with self._lock:
            group = self._groups.get(query, EMPTY)
            if group is not EMPTY:
                self._groups.move_to_end(query)
        scores = group.find(items)
        count(scores)
        return scores

    async def put(self, query: bytes, items: Keys, scores: Scores) -> None:
        """See ``ScoreCache.put``.

        A query whose pairs outgrow the whole bound begins afresh with the new ones.
        """
        with self._lock:
            group = self._groups.pop(query, EMPTY)
            self.nbytes -= group.nbytes if group is not EMPTY else 0
            grown = group.add(items, scores)
            if grown.nbytes > self.max_bytes:
                grown = EMPTY.add(items, scores)
            if not len(grown.firsts) or grown.nbytes > self.max_bytes:
                return
            self._groups[query] = grown
            self.nbytes += grown.nbytes
            while self.nbytes > self.max_bytes:
                self.nbytes -= self._groups.popitem(last=False)[1].nbytes

    async def fill(self, query: bytes, items: Keys, scores: Scores) -> bool:
        """See ``ScoreCache.fill``."""
        group = EMPTY.add(items, scores)
        with self._lock:
            if query in self._groups or not len(group.firsts):
                return True
            if self.nbytes + group.nbytes > self.max_bytes:
                return False
            self._groups[query] = group
            self._groups.move_to_end(query, last=False)
            self.nbytes += group.nbytes
        return True

    async def close(self) -> None:
        """See ``ScoreCache.close``."""
        with self._lock:
            self._groups.clear()
            self.nbytes = 0


def count(scores: Scores) -> None:
    """Tell Prometheus how many pairs were known and how many were not."""
    misses = int(np.count_nonzero(np.isnan(scores)))
    CACHE_REQUESTS.labels("scores", "hit").inc(len(scores) - misses)
    CACHE_REQUESTS.labels("scores", "miss").inc(misses)
