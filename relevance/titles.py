"""Titles as a model reads them: rows of different lengths in flat arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from relevance.metrics import IntArray

Columns = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Titles:
    """Prepared titles; what the columns are is their scorer's business."""

    columns: Columns
    """Name -> values of all titles, one title behind the other. [tokens, ...]"""
    starts: IntArray
    """Where each title starts, and where the last one ends. [titles + 1]"""
    is_cut: NDArray[np.bool_]
    """Whether the title was longer than the model reads. [titles]"""

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> IntArray:
        """Tokens of each title. [titles]"""
        return np.diff(self.starts)

    def take(self, rows: IntArray) -> Titles:
        """The titles at ``rows``, in that order; memory-mapped ones are read here."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        starts = offsets(lengths)
        # from the place in the result to the place in the source
        places = np.arange(starts[-1]) + np.repeat(self.starts[rows] - starts[:-1], lengths)
        columns = {name: column[places] for name, column in self.columns.items()}
        return Titles(columns, starts, self.is_cut[rows])

    @classmethod
    def of(
        cls,
        rows: Mapping[str, Sequence[Sequence[int]]],
        types: Mapping[str, type],
        is_cut: Sequence[bool],
    ) -> Titles:
        """From a list a title and column.

        Args:
            rows: Column -> values of each title; every column with the same lengths.
            types: Column -> NumPy type.
            is_cut: See the field.
        """
        first = next(iter(rows.values()))
        starts = offsets(np.array([len(row) for row in first], np.int64))
        columns: Columns = {
            name: np.fromiter(chain.from_iterable(values), types[name], starts[-1])
            for name, values in rows.items()
        }
        return cls(columns, starts, np.array(is_cut, bool))

    @classmethod
    def joined(cls, parts: Sequence[Titles]) -> Titles:
        """One part behind the other."""
        columns = {
            name: np.concatenate([part.columns[name] for part in parts])
            for name in parts[0].columns
        }
        starts = offsets(np.concatenate([part.lengths for part in parts]))
        return cls(columns, starts, np.concatenate([part.is_cut for part in parts]))


def offsets(lengths: IntArray) -> IntArray:
    """Where each of some rows starts, and where the last one ends. [rows + 1]

    >>> offsets(np.array([2, 3]))
    array([0, 2, 5])
    """
    return np.concatenate([[0], np.cumsum(lengths)])


def title_hashes(titles: Sequence[str]) -> NDArray[np.uint64]:
    """Hash of each title, of 128 bits as two halves. [titles, 2]"""
    digests = [
        # lone surrogates, which JSON can carry, have no UTF-8
        blake2b(title.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for title in titles
    ]
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
