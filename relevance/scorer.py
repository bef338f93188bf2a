"""A checkpoint that scores queries against thousands of titles.

What costs time is done once: a query is read once and remembered, titles are prepared apart from
queries (and kept, see ``relevance.item_table``), rows have no padding between query and title, go
to the model sorted by length, as many as a budget of tokens holds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from relevance.calibration import Calibration
from relevance.data.gazetteer import split_words
from relevance.data.tagger import Tagger
from relevance.data.terms import CLASSES
from relevance.engine import ROWS, WIDTH, Engine, Rows, cpu_engine, gpu_engine, has_bf16
from relevance.files import sha256
from relevance.manifest import MANIFEST
from relevance.metrics import IntArray
from relevance.models import load
from relevance.models.base import CrossEncoder, DualEncoder, Model
from relevance.titles import Titles

BUDGET = 4_096
"""Tokens of one call of the model, padding included."""
_LEAST = 1_024
"""Tokens of a batch that are worth a thread of their own."""
_CALL = 128
"""Tokens that a call of the model costs beside its own, in time."""
_QUERIES = 100_000
"""Queries remembered, some hundred bytes each."""

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Job:
    """A query and the titles to score for it."""

    query: str
    titles: Titles


class Scorer(ABC):
    """See the module's docstring."""

    def __init__(self, model: Model, version: str, precision: str) -> None:
        self._speller = model.speller
        self._caps = int(model.config.max_query_tokens), int(model.config.max_title_tokens)
        self.family = model.family
        self.version = version
        """Hash of the checkpoint: 16 digits."""
        self.precision = precision
        self.calibration = model.calibration

    @abstractmethod
    def prepare(self, titles: Sequence[str]) -> Titles:
        """Read titles, apart from any query."""

    @abstractmethod
    def lengths(self, job: Job) -> IntArray:
        """Tokens that the model reads for each pair. [titles]"""

    def is_query_cut(self, query: str) -> bool:
        """Whether the query is longer than the model reads."""
        (ids,) = self._speller.ids([query])
        return len(ids) > self._caps[0]

    def is_cut(self, titles: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each title is longer than the model reads. [titles]"""
        return np.array([len(ids) > self._caps[1] for ids in self._speller.ids(titles)], bool)

    def explain(self, text: str) -> list[tuple[str, str]]:
        """Words of a text, each with its term class, or an empty one where it has none."""
        return [(word, "") for word in text.split()]

    @abstractmethod
    def score_jobs(self, jobs: Sequence[Job]) -> list[Scores]:
        """Raw scores of each job's titles, in their order; the jobs share the model's calls."""

    def score(self, query: str, titles: Titles) -> Scores:
        """Raw scores. [titles]"""
        return self.score_jobs([Job(query, titles)])[0]

    @property
    def bits(self) -> str:
        """Names all that a score's bits depend on but its texts: checkpoint and precision."""
        return f"{self.version}-{self.precision}"

    def probabilities(self, scores: Scores) -> Scores:
        """Chances of being relevant; of an uncalibrated model the logistic function. [titles]"""
        calibration = self.calibration or Calibration()
        return calibration.probability(scores.astype(np.float64)).astype(np.float32)


def open_scorer(checkpoint: Path, *, precision: str = "auto", threads: int | None = None) -> Scorer:
    """Load a checkpoint to score with.

    Args:
        checkpoint: Of any family.
        precision: ``fp32``, ``bf16``, ``int8`` or ``auto``: bf16 where the machine has it.
        threads: Of the CPU; torch's own number unless given.

    Raises:
        FileNotFoundError: No checkpoint there.
        ValueError: It cannot be read, or not in this precision.
    """
    model = load(checkpoint)
    version = sha256(checkpoint / MANIFEST)[:16]
    is_gpu = torch.cuda.is_available()
    if precision == "auto":
        precision = "bf16" if is_gpu or has_bf16() else "fp32"
    if isinstance(model, CrossEncoder):
        if is_gpu:
            return CrossScorer(model, version, precision, gpu_engine(model, precision))
        count = threads or torch.get_num_threads()
        engine = cpu_engine(model, precision, count)
        return CrossScorer(model, version, precision, engine, at_once=count)
    if isinstance(model, DualEncoder):
        return DualScorer(model.to("cuda" if is_gpu else "cpu"), version, "fp32")
    raise ValueError(f"{checkpoint}: family {model.family!r} cannot be served")


@dataclass(frozen=True, slots=True)
class _Query:
    """A query as the start of its rows."""

    ids: NDArray[np.int32]
    classes: NDArray[np.int32]


class CrossScorer(Scorer):
    """Rows ``[CLS] query [SEP] title [SEP]``."""

    def __init__(
        self,
        model: CrossEncoder,
        version: str,
        precision: str,
        engine: Engine,
        budget: int = BUDGET,
        at_once: int = 1,
    ) -> None:
        super().__init__(model, version, precision)
        self._at_once = at_once
        self._model = model
        self._engine = engine
        self._budget = budget
        self._query = lru_cache(_QUERIES)(self._read_query)

    def _read_query(self, query: str) -> _Query:
        model, cap = self._model, self._model.config.max_query_tokens
        (tokens,) = model.read([query], cap)
        ids = [int(model.tokenizer.cls_token_id), *tokens.ids, *model.middle]
        classes = [0, *tokens.classes, *[0] * len(model.middle)]
        return _Query(np.array(ids, np.int32), np.array(classes, np.int32))

    def prepare(self, titles: Sequence[str]) -> Titles:
        """See ``Scorer.prepare``. Columns: ids, and the class of each."""
        cap, end = self._model.config.max_title_tokens, int(self._model.tokenizer.sep_token_id)
        read = self._model.read(titles, cap + 1)
        return Titles.of(
            {
                "ids": [[*tokens.ids[:cap], end] for tokens in read],
                "classes": [[*tokens.classes[:cap], 0] for tokens in read],
            },
            {"ids": np.int32, "classes": np.int8},
            [len(tokens.ids) > cap for tokens in read],
        )

    def explain(self, text: str) -> list[tuple[str, str]]:
        """See ``Scorer.explain``."""
        tagger: Tagger | None = getattr(self._model, "tagger", None)
        if tagger is None:
            return super().explain(text)
        (terms,) = tagger.tag([text])
        found = []
        for word in split_words(text):
            inside = (term for term in terms if term.start < word.end and word.start < term.end)
            term = next(inside, None)
            name = CLASSES[term.term_class] if term else ""
            found.append((text[word.start : word.end], name))
        return found

    def lengths(self, job: Job) -> IntArray:
        """See ``Scorer.lengths``."""
        return job.titles.lengths + len(self._query(job.query).ids)

    def score_jobs(self, jobs: Sequence[Job]) -> list[Scores]:
        """See ``Scorer.score_jobs``."""
        queries = [self._query(job.query) for job in jobs]
        titles = Titles.joined([job.titles for job in jobs]) if len(jobs) > 1 else jobs[0].titles
        counts = [len(job.titles) for job in jobs]
        query_of = np.repeat(np.arange(len(jobs)), counts)
        heads = np.array([len(query.ids) for query in queries])[query_of]
        lengths = heads + titles.lengths
        scores = np.empty(len(titles), np.float32)
        batches = _batches(lengths, self._budget_of(int(lengths.sum())))
        found = self._engine(self._rows(queries, titles, query_of, heads, rows) for rows in batches)
        for rows, some in zip(batches, found, strict=True):
            scores[rows] = some
        return np.split(scores, np.cumsum(counts)[:-1])

    def _budget_of(self, tokens: int) -> int:
        """Tokens of a batch, so that each of the engine's batches at once has as many."""
        batches = self._at_once * -(-tokens // (self._at_once * self._budget))
        # and an eighth for padding
        return min(self._budget, max(_LEAST, 9 * tokens // (8 * max(1, batches))))

    def _rows(
        self,
        queries: Sequence[_Query],
        titles: Titles,
        query_of: IntArray,
        heads: IntArray,
        rows: IntArray,
    ) -> Rows:
        """What the model reads for the pairs at ``rows``. Each [rows, seq]"""
        model = self._model
        head, tail = heads[rows, None], titles.lengths[rows, None]
        places = np.arange(int((head + tail).max()))[None, :]
        is_title = (places >= head) & (places < head + tail)
        # which token of its title stands here
        sources = (titles.starts[rows, None] + places - head)[is_title]
        shape = is_title.shape
        input_ids = np.full(shape, model.tokenizer.pad_token_id, np.int32)
        term_ids = np.zeros(shape, np.int32)
        for number in np.unique(query_of[rows]):
            query, mine = queries[number], query_of[rows] == number
            input_ids[mine, : len(query.ids)] = query.ids
            term_ids[mine, : len(query.ids)] = query.classes
        input_ids[is_title] = titles.columns["ids"][sources]
        term_ids[is_title] = titles.columns["classes"][sources]
        positions = np.broadcast_to(places, shape)
        if model.title_start is not None:
            positions = np.where(is_title, places - head + model.title_start, places)
        found = {
            "input_ids": input_ids,
            "term_ids": term_ids,
            "attention_mask": places < head + tail,
            "token_type_ids": is_title,
            # padding stands nowhere
            "position_ids": np.where(places < head + tail, positions, 0),
        }
        return {name: found[name].astype(np.int32, copy=False) for name in model.inputs}


class DualScorer(Scorer):
    """Vectors of titles, compared with the query's."""

    def __init__(self, model: DualEncoder, version: str, precision: str) -> None:
        super().__init__(model, version, precision)
        self._model = model
        self._vector = lru_cache(_QUERIES)(self._encode_query)

    def _encode_query(self, query: str) -> torch.Tensor:
        with torch.inference_mode():
            return self._model.encode_queries([query]).float().cpu()

    def prepare(self, titles: Sequence[str]) -> Titles:
        """See ``Scorer.prepare``. Column: a vector a title."""
        order = np.argsort([len(title) for title in titles], kind="stable")
        parts = np.array_split(order, max(1, len(order) // 128))
        vectors = np.empty((len(titles), self._model.network.config.hidden_size), np.float32)
        with torch.inference_mode():
            for rows in parts:
                encoded = self._model.encode_items([titles[row] for row in rows])
                vectors[rows] = encoded.float().cpu().numpy()
        starts = np.arange(len(titles) + 1)
        return Titles({"vector": vectors}, starts, self.is_cut(titles))

    def lengths(self, job: Job) -> IntArray:
        """One each: a comparison costs next to nothing."""
        return np.ones(len(job.titles), np.int64)

    def score_jobs(self, jobs: Sequence[Job]) -> list[Scores]:
        """See ``Scorer.score_jobs``."""
        found = []
        with torch.inference_mode():
            for job in jobs:
                titles = torch.from_numpy(np.asarray(job.titles.columns["vector"], np.float32))
                compared = self._model.compare(self._vector(job.query), titles)
                found.append(np.asarray(compared.float().cpu()))
        return found


def _batches(lengths: IntArray, budget: int) -> list[IntArray]:
    """Rows by length, in batches whose padding and calls together cost least.

    The rows are taken in whole blocks of the engine's; ``budget`` is for the tokens of a batch,
    padding included, of more than one block.

    Returns:
        Places in ``lengths``, shortest first.
    """
    order = np.argsort(lengths, kind="stable")
    ends = np.append(np.arange(ROWS, len(order), ROWS), len(order)) if len(order) else order
    # the last row of a block is the widest
    widths = (-(-lengths[order[ends - 1]] // WIDTH) * WIDTH).tolist()
    costs, firsts = [0], [0]
    for last, width in enumerate(widths):
        block = ROWS * width
        most = max(1, budget // block)
        # of all batches that end here: of one block, of two, and so on
        found = [
            (costs[first] + (last + 1 - first) * block, first)
            for first in range(last, max(-1, last - most), -1)
        ]
        cost, first = min(found)
        costs.append(cost + _CALL)
        firsts.append(first)
    batches = []
    end = len(widths)
    while end:
        start = firsts[end]
        batches.append(order[start * ROWS : end * ROWS])
        end = start
    return batches[::-1]
