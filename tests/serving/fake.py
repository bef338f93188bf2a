"""A scorer without a model: a title's score is the share of the query's words that it has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from serving.answers import Answer, ItemTableMissing

CAP = 12
"""Words of a title that are read."""
TITLES = {
    "A1": "Couch Velvet Foldable Vintage 2 Seater For Office",
    "A2": "Velvet Cushion Cover",
    "A3": "Leather Office Chair",
    "A4": "Garden Hose 20 m",
}


@dataclass
class FakeAnswering:
    model: str = "shop-relevance"
    version: str = "0123456789abcdef"
    source: str = "runs/fake"
    titles: dict[str, str] | None = field(default_factory=lambda: dict(TITLES))
    error: Exception | None = None
    """Raised instead of an answer."""
    delay_s: float = 0.0
    cancelled: int = 0
    asked: int = 0

    async def texts(self, query: str, titles: Sequence[str]) -> Answer:
        return await self.pairs([query] * len(titles), titles)

    async def pairs(self, queries: Sequence[str], titles: Sequence[str]) -> Answer:
        self.asked += 1
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        scores = [overlap(query, title) for query, title in zip(queries, titles, strict=True)]
        return answer(
            np.array(scores, np.float32),
            tokens=sum(len(text.split()) for text in (*queries, *titles)),
            truncated=sum(len(title.split()) > CAP for title in titles),
        )

    async def items(self, query: str, item_ids: Sequence[str]) -> Answer:
        if self.titles is None:
            raise ItemTableMissing
        unknown = tuple(i for i, item_id in enumerate(item_ids) if item_id not in self.titles)
        known = await self.texts(query, [self.titles.get(item_id, "") for item_id in item_ids])
        scores = known.scores.copy()
        scores[list(unknown)] = np.nan
        return answer(scores, tokens=known.tokens, truncated=known.truncated, unknown=unknown)

    def cut(self, query: str, texts: Sequence[str]) -> int:
        return sum(len(text.split()) > CAP for text in (query, *texts))

    def explain(self, text: str) -> list[tuple[str, str]]:
        classes = {"velvet": "material", "office": "usage", "sofa": "core", "couch": "core",
                   "foldable": "function", "vintage": "style", "green": "style",
                   "leather": "material", "chair": "core", "cushion": "core", "cover": "core",
                   "seater": "specification"}  # fmt: skip
        return [(word, classes.get(word.lower().strip(","), "")) for word in text.split()]


def overlap(query: str, title: str) -> float:
    """From -2 for no word of the query to 2 for all of them."""
    words = set(query.lower().split())
    return 4 * len(words & set(title.lower().split())) / max(1, len(words)) - 2


def answer(
    scores: np.ndarray, tokens: int, truncated: int, unknown: tuple[int, ...] = ()
) -> Answer:
    """Probabilities that are no plain sigmoid, so that the two cannot be mixed up."""
    probabilities = (1 / (1 + np.exp(-(scores / 2 + 0.25)))).astype(np.float32)
    return Answer(scores, probabilities, tokens, truncated, unknown)
