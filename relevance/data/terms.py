"""Classes of terms: what a word says of an item.

Source: ei-SRC, section 3.3, whose six classes keep their order; 0 is none of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

CLASSES = ("none", "material", "function", "usage", "specification", "style", "core")
"""A class's id is its position."""


@dataclass(frozen=True, slots=True)
class Term:
    """A stretch of a text that belongs to a class."""

    start: int
    """First character."""
    end: int
    """After the last character."""
    term_class: int
    """Position in ``CLASSES``, never 0."""
    source: Literal["gazetteer", "tagger"] = "gazetteer"
    """Who said so."""


def class_id(name: str) -> int:
    """Position of ``name`` in ``CLASSES``.

    Raises:
        ValueError: There is no such class.
    """
    if name not in CLASSES:
        raise ValueError(f"term class {name!r}: unknown; there are {', '.join(CLASSES)}")
    return CLASSES.index(name)


def token_classes(offsets: Sequence[tuple[int, int]], terms: Sequence[Term]) -> list[int]:
    """Class of each sub-token: that of the first term it shares a character with, else 0.

    Args:
        offsets: First and after-last character of each token; (0, 0) for special tokens and
            padding. In any order.
        terms: As ``Tagger.tag`` gives them: in order, none overlapping another.

    Returns:
        As many classes as there are tokens.

    >>> token_classes([(0, 0), (0, 4), (4, 8), (9, 12), (0, 0)], [Term(0, 8, 6)])
    [0, 6, 6, 0, 0]
    """
    ends = [term.end for term in terms]
    classes = []
    for start, end in offsets:
        first = bisect_right(ends, start)
        is_inside = start < end and first < len(terms) and terms[first].start < end
        classes.append(terms[first].term_class if is_inside else 0)
    return classes
