"""The network behind the tagger: it judges a word by its letters and by its neighbours.

It learns from the gazetteer alone, which knows only part of the terms. So a word that the
gazetteer does not match is no proof of class 0, and three things keep it from becoming one:

- Words are hidden at random, whole phrases at once, and judged by their neighbours alone; there
  an unmatched word counts as class 0 with little weight.
- A visible matched word teaches which letters its class has.
- A visible unmatched word learns what its neighbours say of it while it is hidden, on average
  over all places where it stands.

The letters of a word the network never learnt about say nothing: their vectors are still zero.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from relevance.data.gazetteer import SPECIFICATION, Match, Words
from relevance.data.term_words import STOP
from relevance.data.terms import CLASSES

TAGS = 2 * len(CLASSES) - 1
"""0 is outside; 2c - 1 begins a term of class c, 2c continues it."""
_NONE = TAGS
"""Seen at a word of no class: a brand, a small word, a number without unit."""
_EDGE = TAGS + 1
"""Seen beyond the ends of a text."""

_REACH = 5
"""Words to each side that the network sees."""
_UNMATCHED_WEIGHT = 0.15
"""Of an unmatched word as an example of class 0. At half of the terms unmatched, as on the
generated shop, a class stays the likelier answer where terms stand."""
_HIDDEN = 0.3
"""Share of phrases hidden in each of two views of a text; none is hidden in both."""
_ALONE = 0.5
"""Share of visible words judged by their letters alone, which would else learn little beside the
neighbours; in queries there are few of those."""
_JOINED = 0.4
"""Chance that an unmatched word is hidden together with the unmatched one before it."""
_DIGITS = re.compile(r"\d")
_REMEMBERED = 2**16
"""Different words whose pieces are kept; some 30 MB of vectors."""


@dataclass(frozen=True)
class NetworkConfig:
    """Shape, stored beside the weights."""

    buckets: int = 2**14
    """Hashed words and pieces of words."""
    width: int = 32
    hidden: int = 64


@dataclass(frozen=True)
class Example:
    """A text as the network sees it."""

    words: Sequence[str]
    tags: NDArray[np.int64]
    """What the gazetteer says: a tag, or ``_NONE``. [words]"""
    spans: NDArray[np.int64] | None = None
    """Number of the phrase that the word is hidden with, to train on. [words]"""


def example(words: Words, matches: Sequence[Match]) -> Example:
    """Words with the gazetteer's tags."""
    return Example(words.texts, np.array(given_tags(words, matches), np.int64))


def given_tags(words: Words, matches: Sequence[Match]) -> list[int]:
    """What the gazetteer says of each word: a tag, or ``_NONE``."""
    tags = [0 if _may_be_term(word) else _NONE for word in words.texts]
    for first, last, _, _, term_class in matches:
        for at in range(first, last + 1):
            tags[at] = 2 * term_class if term_class else _NONE
        if term_class:
            tags[first] -= 1
    return tags


@lru_cache(_REMEMBERED)
def _may_be_term(word: str) -> bool:
    """Not a small word, and no number either: what no pattern took is a model's or a series'."""
    return len(word) > 1 and word not in STOP and not _DIGITS.search(word)


def phrases(tags: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Number of each word's phrase: the gazetteer's, and runs of unmatched words. [words]

    The runs have one to three words or so, as terms have.
    """
    continues = (tags > 0) & (tags < TAGS) & (tags % 2 == 0)
    continues[1:] |= (tags[1:] == 0) & (tags[:-1] == 0) & (rng.random(len(tags) - 1) < _JOINED)
    return np.cumsum(~continues)


def collate(examples: Sequence[Example]) -> dict[str, torch.Tensor]:
    """Pad to the longest text; every different word is described once.

    Returns:
        pieces [pieces] and offsets [different words] of an ``EmbeddingBag``; words, tags and
        spans [texts, longest]; beyond a text, tags are ``_EDGE``.
    """
    numbers: dict[str, int] = {}
    longest = max(1, *(len(one.words) for one in examples))
    shape = (len(examples), longest)
    words, spans = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    tags = np.full(shape, _EDGE, np.int64)
    for row, one in enumerate(examples):
        size = len(one.words)
        words[row, :size] = [numbers.setdefault(word, len(numbers)) for word in one.words]
        tags[row, :size] = one.tags
        if one.spans is not None:
            spans[row, :size] = one.spans
    bags = [_pieces(word) for word in numbers] or [[0]]
    offsets = np.cumsum([0, *(len(bag) for bag in bags[:-1])])
    return {
        "pieces": torch.tensor([piece for bag in bags for piece in bag]),
        "offsets": torch.from_numpy(offsets),
        "words": torch.from_numpy(words),
        "tags": torch.from_numpy(tags),
        "spans": torch.from_numpy(spans),
    }


@lru_cache(_REMEMBERED)
def _pieces(word: str) -> list[int]:
    """Hashes of a word and its runs of three and four letters, all digits alike."""
    shape = f"<{_DIGITS.sub('0', word)}>"
    grams = [shape[i : i + size] for size in (3, 4) for i in range(len(shape) - size + 1)]
    return [zlib.crc32(gram.encode()) for gram in (f"={shape}", *grams)]


class TaggerNetwork(nn.Module):
    """Neighbours through one convolution without its centre, letters beside it."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        bag = partial(nn.EmbeddingBag, config.buckets, config.width, mode="mean")
        self.letters = bag()
        self.neighbours = bag()
        self.known = nn.Embedding(_EDGE + 1, config.width)
        self.around = nn.Conv1d(config.width, config.hidden, 2 * _REACH + 1, bias=False)
        self.mix = nn.Linear(config.hidden, config.hidden)
        self.own = nn.Linear(config.width, config.hidden, bias=False)
        self.tags = nn.Linear(config.hidden, TAGS)
        nn.init.zeros_(self.letters.weight)
        nn.init.normal_(self.neighbours.weight, std=0.1)
        nn.init.normal_(self.known.weight, std=0.3)

    def forward(
        self,
        batch: Mapping[str, torch.Tensor],
        hidden: torch.Tensor | None = None,
        alone: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits of the tags. [texts, longest, TAGS]

        Args:
            batch: As ``collate`` made it.
            hidden: Words whose letters, and whose tag, nobody sees. [texts, longest]
            alone: Words that are judged without their neighbours. [texts, longest]
        """
        pieces = batch["pieces"] % self.config.buckets
        # functional.embedding, as the gradient of indexing is slow
        words, offsets = batch["words"], batch["offsets"]
        letters = functional.embedding(words, self.letters(pieces, offsets))
        near = functional.embedding(words, self.neighbours(pieces, offsets))
        # both [texts, longest, width]
        tags = batch["tags"]
        is_seen = tags != _EDGE
        if hidden is not None:
            is_seen = is_seen & ~hidden
            tags = tags.masked_fill(hidden & (tags != _EDGE), 0)
        near = near * is_seen[..., None] + self.known(tags)
        edge = self.known.weight[_EDGE].expand(len(near), _REACH, -1)
        near = torch.cat([edge, near, edge], dim=1).transpose(1, 2)
        # a word is no neighbour of its own
        hole = torch.ones(2 * _REACH + 1, device=near.device)
        hole[_REACH] = 0
        around = functional.conv1d(near, self.around.weight * hole).transpose(1, 2)
        if alone is not None:
            around = around * ~alone[..., None]
        own = self.own(letters * is_seen[..., None])
        states = torch.relu(self.mix(torch.relu(around)) + own)  # [texts, longest, hidden]
        logits: torch.Tensor = self.tags(states)
        return logits

    def loss(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Two views of each text, in each of which other phrases are hidden; see the module. []"""
        tags = batch["tags"]
        luck = torch.rand(tags.shape, device=tags.device).gather(1, batch["spans"] % tags.shape[1])
        hidden = (luck < _HIDDEN, luck > 1 - _HIDDEN)
        alone = torch.rand(tags.shape, device=tags.device) < _ALONE
        logits = [self(batch, view, alone & ~view) for view in hidden]
        is_matched = (tags > 0) & (tags <= _NONE)
        is_unmatched = tags == 0
        target = torch.where(tags < TAGS, tags, 0)
        total = torch.zeros((), device=tags.device)
        for view, other in ((0, 1), (1, 0)):
            told = functional.cross_entropy(
                logits[view].flatten(0, 1), target.flatten(), reduction="none"
            ).view(tags.shape)
            weights = is_matched + _UNMATCHED_WEIGHT * (is_unmatched & hidden[view])
            total = total + (told * weights).sum() / weights.sum().clamp(min=1)
            # what neighbours said of a word while it was hidden, learnt by its letters
            said = logits[other].detach().softmax(dim=2)
            learnt = -(said * logits[view].log_softmax(dim=2)).sum(dim=2)
            is_taught = is_unmatched & hidden[other]
            total = total + (learnt * is_taught).sum() / is_taught.sum().clamp(min=1)
        return total / 2


class Reader:
    """A trained network in NumPy, asked about unmatched words alone.

    What it says is what the network says, to rounding, at a fraction of the cost: most words of a
    title are matched, and the vectors of a word are gathered once and remembered.
    """

    def __init__(self, network: TaggerNetwork) -> None:
        weights = {name: np.asarray(t) for name, t in network.state_dict().items()}
        # both halves are read of the same pieces
        self._pieces = np.hstack([weights["neighbours.weight"], weights["letters.weight"]])
        self._known = weights["known.weight"]
        around = np.delete(weights["around.weight"], _REACH, axis=2)  # [hidden, width, neighbours]
        self._around = around.transpose(2, 1, 0).reshape(-1, network.config.hidden)
        self._mix, self._mix_bias = weights["mix.weight"].T, weights["mix.bias"]
        self._own = weights["own.weight"].T
        self._tags, self._tags_bias = weights["tags.weight"].T, weights["tags.bias"]
        self._vectors = lru_cache(_REMEMBERED)(self._describe)

    def _describe(self, word: str) -> NDArray[np.float32]:
        """What neighbours and the word itself read of its letters. [2 * width]"""
        if not word:  # beyond an end
            return np.zeros(self._pieces.shape[1], np.float32)
        bag = np.array(_pieces(word)) % len(self._pieces)
        vectors: NDArray[np.float32] = self._pieces[bag].mean(axis=0)
        return vectors

    def tag(
        self, texts: Sequence[tuple[Words, Sequence[int]]], confidence: float
    ) -> list[list[int]]:
        """Tags for the words of each text that ``given_tags`` has none for; the others get 0."""
        # the texts one behind the other, the edges between them those of both
        numbers: defaultdict[str, int] = defaultdict()
        numbers.default_factory = numbers.__len__
        edge = [numbers[""]] * _REACH
        places, given = list(edge), [_EDGE] * _REACH
        for words, tags in texts:
            places += [numbers[word] for word in words.texts]
            places += edge
            given += tags
            given += given[:_REACH]
        vectors = np.stack([self._vectors(word) for word in numbers])
        near, letters = np.hsplit(vectors, 2)
        word_at, tag_at = np.array(places), np.array(given)
        seen = near.take(word_at, axis=0) + self._known.take(tag_at, axis=0)  # [all words, width]
        asked = np.flatnonzero(tag_at == 0)
        reach = np.delete(np.arange(-_REACH, _REACH + 1), _REACH)
        around = seen.take(asked[:, None] + reach, axis=0).reshape(-1, len(self._around))
        mixed = np.maximum(around @ self._around, 0) @ self._mix + self._mix_bias
        own = letters.take(word_at[asked], axis=0) @ self._own
        logits = np.maximum(mixed + own, 0) @ self._tags + self._tags_bias  # [asked, TAGS]
        said = np.zeros_like(tag_at)
        runs_on = np.diff(asked, prepend=-1) == 1
        said[asked] = decode(torch.from_numpy(logits), runs_on, confidence)
        found = said.tolist()
        ends = accumulate((len(words) + _REACH for words, _ in texts), initial=_REACH)
        return [found[end : end + len(words)] for end, (words, _) in zip(ends, texts, strict=False)]


def decode(
    logits: torch.Tensor, runs_on: NDArray[np.bool_], confidence: float
) -> NDArray[np.int64]:
    """Tags for words that have none yet; none continues a term that is not there.

    The class is chosen first, as beginning and continuation of a term share its probability.
    Specifications are left to the patterns: they miss few, and what else stands where units
    stand is words of sale.

    Args:
        logits: Of words without a tag, in their order. [words, TAGS]
        runs_on: Whether nothing stands between a word and the one before it here. [words]
        confidence: Least probability of a class.

    Returns:
        Tags. [words]
    """
    probability = logits.softmax(dim=1).numpy()
    begins, continues = probability[:, 1::2], probability[:, 2::2]
    of_class = begins + continues  # [words, classes - 1]
    of_class[:, SPECIFICATION - 1] = 0
    best = of_class.argmax(axis=1)
    rows = np.arange(len(best))
    classes = np.where(of_class[rows, best] >= confidence, best + 1, 0)
    follows = (continues > begins)[rows, best] & runs_on
    follows[1:] &= classes[1:] == classes[:-1]
    follows[:1] = False
    return np.where(classes == 0, 0, 2 * classes - 1 + follows)
