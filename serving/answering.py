"""A loaded checkpoint that answers: caches first, then the batches that requests share."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from relevance.item_table import ItemTable
from relevance.scorer import Scorer, Scores, open_scorer
from relevance.titles import Titles, title_hashes
from serving.answers import Answer, ItemTableMissing
from serving.batching import Batcher, Read, Scored
from serving.cache_file import prefill
from serving.caches import Keys, ScoreCache, item_keys, normalised, query_key
from serving.limits import Batching

_WARM_UP = ("a", "a red lamp for the garden " * 12)


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
        asked = [titles[row] for row in wanted.tolist()]
        scored = await self._score(query, keys, known, wanted, self._reading(asked))
        return self._answer(scored, int(self._scorer.is_query_cut(query)))

    async def pairs(self, queries: Sequence[str], titles: Sequence[str]) -> Answer:
        """See ``serving.answers.Answering.pairs``."""
        rows_of: dict[str, list[int]] = defaultdict(list)
        for row, query in enumerate(queries):
            rows_of[query].append(row)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self.texts(query, [titles[row] for row in rows]))
                    for query, rows in rows_of.items()
                ]
        except ExceptionGroup as errors:
            # the others were cancelled for the first
            raise errors.exceptions[0] from None
        answers = [task.result() for task in tasks]
        scores = np.empty(len(queries), np.float32)
        for rows, answer in zip(rows_of.values(), answers, strict=True):
            scores[rows] = answer.scores
        tokens = sum(answer.tokens for answer in answers)
        return self._answer(Scored(scores, tokens, 0), sum(answer.truncated for answer in answers))

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
        asked, titles = rows[places[wanted]], self._items.titles

        def read(start: int, end: int) -> Titles:
            return titles.take(asked[start:end])

        scored = await self._score(query, keys, known, wanted, read)
        scores = np.full(len(item_ids), np.nan, np.float32)
        scores[places] = scored.scores
        unknown = tuple(int(place) for place in np.flatnonzero(rows < 0))
        cut = int(self._scorer.is_query_cut(query))
        return self._answer(replace(scored, scores=scores), cut, unknown)

    def cut(self, query: str, texts: Sequence[str]) -> int:
        """See ``serving.answers.Answering.cut``."""
        query_cut = self._scorer.is_query_cut(normalised(query))
        return int(query_cut) + int(self._scorer.is_cut(texts).sum())

    def explain(self, text: str) -> list[tuple[str, str]]:
        """See ``serving.answers.Answering.explain``."""
        return self._scorer.explain(text)

    async def warm(self) -> None:
        """Score until the model has its memory and its shapes."""
        query, title = _WARM_UP
        for count in (1, 16, 256):
            titles = [title[: 10 + 5 * row] for row in range(count)]
            await self._batcher.score(query, count, self._reading(titles))

    async def close(self) -> None:
        """Answer what waits, then let go of the model's thread and the cache."""
        await self._batcher.close()
        if self._cache is not None:
            await self._cache.close()

    def _reading(self, titles: Sequence[str]) -> Read:
        return lambda start, end: self._scorer.prepare(titles[start:end])

    async def _known(self, query: str, keys: Keys | None, count: int) -> Scores:
        """Remembered scores, not a number where there is none. [count]"""
        if self._cache is None or keys is None:
            return np.full(count, np.nan, np.float32)
        return await self._cache.get(query_key(self._scorer.bits, query), keys)

    async def _score(
        self, query: str, keys: Keys | None, known: Scores, wanted: np.ndarray, read: Read
    ) -> Scored:
        """``known`` with the scores of the ``wanted`` rows, which are remembered."""
        scored = await self._batcher.score(query, len(wanted), read)
        scores = known.copy()
        scores[wanted] = scored.scores
        if len(wanted) and self._cache is not None and keys is not None:
            await self._cache.put(query_key(self._scorer.bits, query), keys[wanted], scored.scores)
        return replace(scored, scores=scores)

    def _answer(self, scored: Scored, more_cut: int, unknown: tuple[int, ...] = ()) -> Answer:
        chances = self._scorer.probabilities(scored.scores)
        cut = scored.truncated + more_cut
        return Answer(scored.scores, chances, scored.tokens, cut, unknown)


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
