"""What a scorer answers, and why it may not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Answer:
    """Scores of pairs, in the order asked."""

    scores: NDArray[np.float32]
    """Raw; not a number where the item is unknown. [pairs]"""
    probabilities: NDArray[np.float32]
    """Calibrated, or the logistic function of the score where the checkpoint has no calibration;
    not a number where the item is unknown. [pairs]"""
    tokens: int
    """Read by the model; a pair whose score was remembered has none."""
    truncated: int
    """Texts that were cut to the model's caps."""
    unknown: tuple[int, ...] = ()
    """Places of item ids that the item table lacks."""


class Overloaded(Exception):
    """The queue is full."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"too many requests wait; try again in {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class TooLate(Exception):
    """The deadline passed before the model was free."""


class NotReady(Exception):
    """The model is being loaded, or the server is going down."""


class ItemTableMissing(Exception):
    """Item ids were given to a scorer that knows titles alone."""


class Answering(Protocol):
    """A loaded checkpoint, as the API sees it."""

    @property
    def model(self) -> str:
        """Its name."""

    @property
    def version(self) -> str:
        """Hash of the checkpoint, 16 digits, the same for its whole life."""

    @property
    def source(self) -> str:
        """Where it was loaded from: a path or ``models:/NAME@ALIAS``."""

    async def texts(self, query: str, titles: Sequence[str]) -> Answer:
        """Score titles for one query."""

    async def pairs(self, queries: Sequence[str], titles: Sequence[str]) -> Answer:
        """Score titles, each for its own query."""

    async def items(self, query: str, item_ids: Sequence[str]) -> Answer:
        """Score catalogue items for one query.

        Raises:
            ItemTableMissing: The scorer was started without an item table.
        """

    def cut(self, query: str, texts: Sequence[str]) -> int:
        """How many of a query and its texts are longer than the model reads."""

    def explain(self, text: str) -> list[tuple[str, str]]:
        """Words of a text, each with its term class, or an empty one."""
