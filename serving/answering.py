"""A loaded checkpoint that answers: caches first, then the batches that requests share."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relevance.item_table import ItemTable
from relevance.scorer import Job, Scorer, Scores, open_scorer
from relevance.titles import Titles, title_hashes
from serving.answers import Answer, ItemTableMissing
from serving.batching import Batcher
from serving.cache_file import prefill
from serving.caches import Keys, ScoreCache, item_keys, normalised, query_key
from serving.limits import Batching

_WARM_UP = ("a", "a red lamp for the garden " * 12)


@dataclass(frozen=True)
class _Scored:
    """One query's titles."""

    scores: Scores
    tokens: int


class ModelAnswering:
    """See ``serving.answers.Answering``."""

    def __init__(
        self,
        scorer: Scorer,
        *,
        model: str,
        source: str,
        items: ItemTable | None,
        cache: ScoreCache | None,
        batching: Batching,
    ) -> None:
        self.model = model
        self.source = source
        self.version = scorer.version
        self._scorer = scorer
        self._items = items
        self._cache = cache
        self._batcher = Batcher(scorer, batching)
        self._item_keys: Keys | None = None
        if items is not None and cache is not None:
            self._item_keys = item_keys(np.asarray(items.title_hashes), items.ids)

    @property
    def bits(self) -> str:
        """See ``relevance.scorer.Scorer.bits``."""
        return self._scorer.bits

    async def texts(self, query: str, titles: Sequence[str]) -> Answer:
        """See ``serving.answers.Answering.texts``."""
        query = normalised(query)
        keys = title_hashes(titles) if self._cache is not None else None
        known = await self._known(query, keys, len(titles))
        wanted = np.flatnonzero(np.isnan(known))
        with self._batcher.preparing(len(wanted)):
            prepared = await self._prepare([titles[row] for row in wanted.tolist()])
        scored = await self._score(query, prepared, keys, known, wanted)
        truncated = int(prepared.is_cut.sum()) + self._scorer.is_query_cut(query)
        return self._answer(scored.scores, scored.tokens, truncated)

    async def pairs(self, queries: Sequence[str], titles: Sequence[str]) -> Answer:
        """See ``serving.answers.Answering.pairs``."""
        rows_of: dict[str, list[int]] = defaultdict(list)
        for row, query in enumerate(queries):
            rows_of[query].append(row)
        answers = await asyncio.gather(
            *(self.texts(query, [titles[row] for row in rows]) for query, rows in rows_of.items())
        )
        scores = np.empty(len(queries), np.float32)
        for rows, answer in zip(rows_of.values(), answers, strict=True):
            scores[rows] = answer.scores
        return self._answer(
            scores,
            sum(answer.tokens for answer in answers),
            sum(answer.truncated for answer in answers),
        )

    async def items(self, query: str, item_ids: Sequence[str]) -> Answer:
        """See ``serving.answers.Answering.items``."""
        if self._items is None:
            raise ItemTableMissing(
                "item_ids: this scorer has no item table; start it with --items, or send titles"
            )
        query = normalised(query)
        rows = self._items.find(item_ids)
        places = np.flatnonzero(rows >= 0)
        keys = self._item_keys[rows[places]] if self._item_keys is not None else None
        known = await self._known(query, keys, len(places))
        wanted = np.flatnonzero(np.isnan(known))
        prepared = self._items.titles.take(rows[places[wanted]])
        scored = await self._score(query, prepared, keys, known, wanted)
        scores = np.full(len(item_ids), np.nan, np.float32)
        scores[places] = scored.scores
        truncated = int(prepared.is_cut.sum()) + self._scorer.is_query_cut(query)
        unknown = tuple(int(place) for place in np.flatnonzero(rows < 0))
        return self._answer(scores, scored.tokens, truncated, unknown)

    def explain(self, text: str) -> list[tuple[str, str]]:
        """See ``serving.answers.Answering.explain``."""
        return self._scorer.explain(text)

    async def warm(self) -> None:
        """Score until the model has its memory and its shapes."""
        query, title = _WARM_UP
        for count in (1, 16, 256):
            prepared = await self._prepare([title[: 10 + 5 * row] for row in range(count)])
            await self._batcher.score(Job(query, prepared))

    async def close(self) -> None:
        """Answer what waits, then let go of the model's thread and the cache."""
        await self._batcher.close()
        if self._cache is not None:
            await self._cache.close()

    async def _prepare(self, titles: Sequence[str]) -> Titles:
        return await asyncio.to_thread(self._scorer.prepare, titles)

    async def _known(self, query: str, keys: Keys | None, count: int) -> Scores:
        """Remembered scores, not a number where there is none. [count]"""
        if self._cache is None or keys is None:
            return np.full(count, np.nan, np.float32)
        return await self._cache.get(query_key(self._scorer.bits, query), keys)

    async def _score(
        self, query: str, prepared: Titles, keys: Keys | None, known: Scores, wanted: np.ndarray
    ) -> _Scored:
        """``known`` with the scores of the ``wanted`` rows, which are remembered."""
        if not len(wanted):
            return _Scored(known, 0)
        job = Job(query, prepared)
        scores = known.copy()
        scores[wanted] = await self._batcher.score(job)
        if self._cache is not None and keys is not None:
            await self._cache.put(query_key(self._scorer.bits, query), keys[wanted], scores[wanted])
        return _Scored(scores, int(self._scorer.lengths(job).sum()))

    def _answer(
        self, scores: Scores, tokens: int, truncated: int, unknown: tuple[int, ...] = ()
    ) -> Answer:
        return Answer(scores, self._scorer.probabilities(scores), tokens, truncated, unknown)


async def open_answering(
    checkpoint: Path,
    *,
    model: str,
    source: str,
    items: Path | None = None,
    precision: str = "auto",
    threads: int | None = None,
    cache: ScoreCache | None = None,
    scores: Path | None = None,
    batching: Batching | None = None,
) -> ModelAnswering:
    """Load a checkpoint and warm it.

    Args:
        checkpoint: Directory.
        model: Name to answer under.
        source: Where the checkpoint was had from.
        items: Item table, made for this checkpoint.
        precision: See ``relevance.scorer.open_scorer``.
        threads: Of the model.
        cache: Remembers scores; none unless given.
        scores: File that the cache is filled from, made for this checkpoint and precision.
        batching: How requests wait and share.

    Raises:
        FileNotFoundError: No checkpoint, item table or file of scores there.
        ValueError: They cannot be read, or do not belong together.
    """

    def load() -> ModelAnswering:
        scorer = open_scorer(checkpoint, precision=precision, threads=threads)
        return ModelAnswering(
            scorer,
            model=model,
            source=source,
            items=ItemTable(items, scorer) if items else None,
            cache=cache,
            batching=batching or Batching(),
        )

    # probes are answered meanwhile
    answering = await asyncio.to_thread(load)
    if cache is not None and scores is not None:
        await prefill(cache, scores, answering.bits, has_item_ids=items is not None)
    await answering.warm()
    return answering
