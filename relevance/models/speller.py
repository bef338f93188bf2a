"""Texts in pieces, put together from words that were broken before.

BERT breaks a text at its spaces before it looks at anything else, and catalogues repeat their
words, so each word is broken once and remembered. Other tokenizers see the space before a word,
and read whole texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from relevance.data.wordpiece import is_bert

_WORDS = 100_000
"""Words remembered, some 400 bytes each."""
_LONGEST = 64
"""Characters of a word that is remembered, so that nobody's texts fill the memory."""


class Spelling(NamedTuple):
    """A text in pieces."""

    ids: Sequence[int]
    offsets: Sequence[tuple[int, int]]
    """First and after-last character of each piece."""
    words: Sequence[int]
    """Number of the word that each piece belongs to."""


class Speller:
    """A tokenizer without its special tokens. Several threads may ask at once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.values()
        self._has_words = is_bert(tokenizer) and not any(" " in str(token) for token in added)
        self._known: dict[str, Spelling] = {}

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        if not self._has_words:
            return [list(spelling.ids) for spelling in self._whole(texts)]
        rows, known = self._words(texts)
        ids = {word: spelling.ids for word, spelling in known.items()}
        return [list(chain.from_iterable([ids[word] for word in row])) for row in rows]

    def spellings(self, texts: Sequence[str]) -> list[Spelling]:
        """Pieces of each text, and where they stand."""
        if not self._has_words:
            return self._whole(texts)
        rows, known = self._words(texts)
        return [_joined([(len(word), known[word]) for word in row]) for row in rows]

    def _words(self, texts: Sequence[str]) -> tuple[list[list[str]], dict[str, Spelling]]:
        """Words of each text, and how each of them is spelt."""
        rows = [text.split(" ") for text in texts]
        # of its own, for another thread may forget what this one has found
        known = {word: self._known.get(word) for word in set(chain.from_iterable(rows))}
        missing = [word for word, spelling in known.items() if spelling is None]
        new = dict(zip(missing, self._whole(missing), strict=True))
        if len(self._known) + len(new) > _WORDS:
            self._known = {}
        self._known.update({w: spelling for w, spelling in new.items() if len(w) <= _LONGEST})
        return rows, {word: spelling or new[word] for word, spelling in known.items()}

    def _whole(self, texts: Sequence[str]) -> list[Spelling]:
        # tuples, which the garbage collector need not look into
        return [
            Spelling(
                tuple(encoding.ids),
                tuple(encoding.offsets),
                tuple(word or 0 for word in encoding.word_ids),
            )
            for encoding in _encodings(self._tokenizer, texts)
        ]


def _joined(words: Sequence[tuple[int, Spelling]]) -> Spelling:
    """Words, each with its characters, one space apart."""
    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    numbers: list[int] = []
    place = count = 0
    for length, (word_ids, word_offsets, word_numbers) in words:
        ids += word_ids
        offsets += [(start + place, end + place) for start, end in word_offsets]
        numbers += [number + count for number in word_numbers]
        place += length + 1
        count = numbers[-1] + 1 if numbers else 0
    return Spelling(ids, offsets, numbers)


def _encodings(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Encoding]:
    """Encodings by the tokenizer's own library.

    A truncation set on it would be every thread's, so what was set is switched off for good.
    """
    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    found: list[Encoding] = backend.encode_batch(list(texts), add_special_tokens=False)
    return found
