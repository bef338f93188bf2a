"""Splits by query: a query's variants never stand on two sides."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

SPLITS = ("train", "valid", "test")
"""From the least held out to the most."""

VALID_SHARE = 0.15
TEST_SHARE = 0.15

# Endings that a plural adds (s, es) or changes (y to ies, f to ves, man to men). Taking the letters
# out everywhere, not only at ends, keeps the key the same however the words are joined.
_PLURALS = str.maketrans("yv", "if", "aes")


def query_key(query: str) -> str:
    """Form shared by a query's plural, spacing, hyphen, case, accent and word-order variants.

    It is the multiset of the query's letters and digits without those that plurals add. So it
    merges too much at times (``dresser``, ``ereader``), which costs a few training queries where
    a test set is given, and never too little, which would be a leak. Plurals that change other
    letters (``foot``, ``feet``) and typos are not caught.

    >>> query_key("Blue Tooth speakers") == query_key("bluetooth  speaker")
    True
    >>> query_key("batteries") == query_key("battery")
    True
    >>> query_key("dress for women") == query_key("dresses for woman")
    True
    >>> query_key("12v lamp") == query_key("24v lamp")
    False
    """
    text = unicodedata.normalize("NFKD", query.casefold())
    # accents are marks of their own now, and no word characters
    letters = "".join(re.findall(r"[^\W_]", text))
    if not letters:
        return " ".join(text.split())
    return "".join(sorted(letters.translate(_PLURALS))) or "s"


def assign_split(query: str) -> str:
    """Split of ``query`` by a hash of its key, so that variants share it."""
    digest = hashlib.sha256(query_key(query).encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < TEST_SHARE:
        return "test"
    return "valid" if share < TEST_SHARE + VALID_SHARE else "train"


def most_held_out(queries: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The most held-out split of each key.

    Args:
        queries: (query, split) of each.
    """
    strongest: dict[str, str] = {}
    for query, split in queries:
        key = query_key(query)
        strongest[key] = max(split, strongest.get(key, split), key=SPLITS.index)
    return strongest
