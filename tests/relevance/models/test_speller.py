"""A text is spelt word by word as its tokenizer spells the whole of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from relevance.data.wordpiece import extend, learn
from relevance.models import speller
from relevance.models.speller import Speller, Spelling

TEXTS = [
    "Red lamp for the garden 12V",
    "blue-tooth speaker 100% cotton  two   spaces",
    "Ärmel größe café naïve",
    "a\u0301 e\u0301e",
    "tabs\tand\nlines\x00\x1f and\u200b marks\u00ad",
    "漢字 lamp漢字 [SEP] [MASK]lamp [UNK] ##lamp",
    " leading and trailing ",
    "x" * 150 + " lamp",
    "lamplamp lamp. (lamp) lamp's",
    "😀 lamp😀",
    "",
    "   ",
]


def learned() -> PreTrainedTokenizerBase:
    return learn(lambda: [*TEXTS, "speaker lamp garden cotton"] * 3, 200)


def extended() -> PreTrainedTokenizerBase:
    base = learned()
    return extend(base, ["speaker", "tooth", "naive", "100"])


def byte_pairs() -> PreTrainedTokenizerBase:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TEXTS * 3, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend)  # type: ignore[no-untyped-call,no-any-return]


def two_words_as_one() -> PreTrainedTokenizerBase:
    tokenizer = learned()
    tokenizer.add_tokens([AddedToken("red lamp")])
    return tokenizer


def case_folded_without_cleaning() -> PreTrainedTokenizerBase:
    tokenizer = learned()
    tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(clean_text=False)
    return tokenizer


TOKENIZERS = {
    make.__name__: make()
    for make in (learned, extended, byte_pairs, two_words_as_one, case_folded_without_cleaning)
}


def whole(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    return encoding.ids, encoding.offsets


def groups(words: Spelling) -> list[bool]:
    """Whether each piece but the first belongs to another word than the one before."""
    return [a != b for a, b in zip(words.words, words.words[1:], strict=False)]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_spelt_as_a_whole(name: str, text: str) -> None:
    _check(name, text)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_any_text_is_spelt_as_a_whole(name: str) -> None:
    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.one_of(st.text(), st.sampled_from(TEXTS)), max_size=4).map(" ".join))
    def check(text: str) -> None:
        _check(name, text)

    check()


def _check(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    found = Speller(tokenizer)
    ids, offsets = whole(tokenizer, text)
    for _ in range(2):  # broken, then remembered
        assert found.ids([text]) == [ids]
        (spelling,) = found.spellings([text])
        assert list(spelling.ids) == ids
        assert _inked(text, spelling.offsets) == _inked(text, offsets)
        encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        as_whole = Spelling(ids, offsets, [word or 0 for word in encoding.word_ids])
        assert groups(spelling) == groups(as_whole)


def _inked(text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Offsets without the spaces around: an added word's mark stands on the space before it."""
    return [
        (end - len(text[start:end].lstrip(" ")), start + len(text[start:end].rstrip(" ")))
        for start, end in offsets
    ]


def test_words_are_broken_once() -> None:
    tokenizer = learned()
    found = Speller(tokenizer)
    found.ids(["red lamp", "lamp red"])
    assert set(found._known) == {"red", "lamp"}


def test_only_some_short_words_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speller, "_WORDS", 10)
    tokenizer = learned()
    found = Speller(tokenizer)
    for number in range(100):
        text = f"lamp{number} {'y' * 65} red"
        assert found.ids([text]) == [whole(tokenizer, text)[0]]
        assert len(found._known) <= 10
        assert all(len(word) <= 64 for word in found._known)
