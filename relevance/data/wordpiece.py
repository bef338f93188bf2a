"""BERT tokenizers: learnt from texts, and extended by words that stay whole.

An appended word must cost one token where it stands alone and change nothing anywhere else.
Put into WordPiece's vocabulary it would do neither: BERT breaks ``100%`` at the sign before
WordPiece sees it, and the start of a longer word would be taken by an appended one although the
rest then needs more pieces. So the words are added tokens, found before BERT breaks the text, and
the normalizer marks with a newline, which BERT has already replaced by then, where each of BERT's
words begins and ends. An added token, normalized the same way, carries those marks and thus fits
whole words only. BERT drops the marks as white space. The result is an ordinary fast tokenizer.

For every text: no more tokens than before, the same decoded text up to white space, and the
same tokens outside the added words.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from relevance.data.words import MAX_WORD_CHARS, PUNCTUATION

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "\n"
_IN_WORD = f"[^ {PUNCTUATION}]"
_EDGE = f"(?<={_IN_WORD})(?!{_IN_WORD})|(?<!{_IN_WORD})(?={_IN_WORD})"

_BERT = ["WordPiece", "BertNormalizer", "BertPreTokenizer", "clean_text"]

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def learn(texts: Callable[[], Iterable[str]], size: int) -> PreTrainedTokenizerBase:
    """Learn an uncased BERT tokenizer of at most ``size`` pieces; the same for the same texts.

    Args:
        texts: Gives the texts afresh at each call; they are read twice.
        size: Word pieces, special tokens included.

    Raises:
        ValueError: The texts hold no character.
    """
    normalizer = normalizers.BertNormalizer(lowercase=True)
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    seen: Counter[str] = Counter()
    for text in texts():
        seen.update(normalizer.normalize_str(text))
    del seen[" "]
    if not seen:
        raise ValueError("no text to learn a vocabulary from: queries and titles are empty")
    # two fifths of the vocabulary at most for characters, each alone and inside a word
    ranked = sorted(seen, key=lambda character: (-seen[character], character))
    alphabet = sorted(ranked[: max(1, size // 5)])
    # The trainer numbers the characters in the order of a hash map, and ties by those numbers:
    # handed over as special tokens they are numbered by us.
    pieces = [*SPECIAL.values(), *alphabet, *(f"##{character}" for character in alphabet)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=pieces,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer, learner.pre_tokenizer = normalizer, pre_tokenizer
    learner.train_from_iterator(texts(), trainer)
    vocabulary = learner.get_vocab()
    backend = Tokenizer(
        models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD_CHARS)
    )
    backend.normalizer, backend.pre_tokenizer = normalizer, pre_tokenizer
    backend.decoder = decoders.WordPiece(prefix="##")
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    backend.add_special_tokens(list(SPECIAL.values()))
    return _fast(backend, SPECIAL, 512)


def of_encoder(name: str, *, is_extended: bool = True) -> PreTrainedTokenizerBase:
    """The tokenizer of the encoder ``name``: BERT's, ready to extend, or another as it is.

    Args:
        name: As ``relevance.encoders.encoder_path`` takes it.
        is_extended: Whether words are to be added, which takes BERT's.

    Raises:
        ValueError: There is none, it cannot be read, it is not BERT's and to be extended, or it
            has no token to begin, end or fill a text with.
    """
    from transformers import AutoTokenizer

    from relevance.encoders import check_tokenizer, encoder_path

    path = encoder_path(name)
    if isinstance(path, Path):
        check_tokenizer(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    except Exception as error:  # tokenizers raises no narrower type for a file it cannot read
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"encoder {name!r}: its tokenizer cannot be read: {reason[0]}; want a fast tokenizer"
        ) from error
    backend.no_padding()
    backend.no_truncation()
    if not is_bert(tokenizer):
        if is_extended:
            raise ValueError(
                f"encoder {name!r}: its tokenizer is {', '.join(map(str, _kind(tokenizer)))}; "
                f"want BERT's, that is {', '.join(_BERT)}, to add words to; "
                "set vocabulary.new_words=0 to take it as it is"
            )
        return _as_it_is(name, tokenizer)
    special = {key: str(token) for key, token in tokenizer.special_tokens_map.items()}
    return _fast(backend, special, tokenizer.model_max_length)


def is_bert(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether ``tokenizer`` is BERT's WordPiece, which alone can be extended."""
    return _kind(tokenizer) == _BERT


def fold(base: PreTrainedTokenizerBase, counts: Iterable[tuple[str, int]]) -> Counter[str]:
    """Counts of words as ``base`` sees them once it has normalized the text.

    A word that BERT's rarer rules break (ideographs, rare marks) is counted by its parts; a
    compound that they break is left out. So is a word with a symbol, such as ``intel®``: as one
    token it would no longer share ``intel`` with the queries.
    """
    backend = _backend(base)
    folded: Counter[str] = Counter()
    for word, count in counts:
        if word.isascii() and word.isprintable() and word == word.lower():
            folded[word] += count
            continue
        text = backend.normalizer.normalize_str(word).replace(_MARK, "")
        if _is_plain(word):
            parts = [part for part, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
        else:
            parts = text.split(" ") if " " not in text.strip() else []
        for part in parts:
            # a letter that keeps changing when folded again can never be found
            is_stable = backend.normalizer.normalize_str(part).replace(_MARK, "") == part
            if part and is_stable and not any(unicodedata.category(c)[0] == "S" for c in part):
                folded[part] += count
    return folded


def split_words(base: PreTrainedTokenizerBase, words: Sequence[str]) -> dict[str, list[str]]:
    """Those of ``words`` that ``base`` knows and splits, with their pieces, in the same order.

    Left out too: what holds an unknown character, and a word that has an id already.
    """
    backend = _backend(base)
    encoded = backend.encode_batch(list(words), add_special_tokens=False)
    return {
        word: found.tokens
        for word, found in zip(words, encoded, strict=True)
        if len(found.ids) > 1
        and base.unk_token_id not in found.ids
        and backend.token_to_id(word) is None
    }


def extend(base: PreTrainedTokenizerBase, words: Sequence[str]) -> PreTrainedTokenizerBase:
    """``base`` with each of ``words`` as one more token; the ids of the others stay.

    ``len()`` of a tokenizer counts the new tokens, ``vocab_size`` does not.
    """
    backend = _backend(base)
    state = json.loads(backend.to_str())
    if state["normalizer"]["type"] != "Sequence":  # extended for the first time
        backend.normalizer = normalizers.Sequence(
            [backend.normalizer, normalizers.Replace(Regex(_EDGE), _MARK)]
        )
        backend.decoder = decoders.Sequence([backend.decoder, decoders.Replace(_MARK, "")])
    backend.add_tokens([AddedToken(word, normalized=True, special=False) for word in words])
    special = {key: str(token) for key, token in base.special_tokens_map.items()}
    return _fast(backend, special, base.model_max_length)


def save(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write ``tokenizer`` so that ``AutoTokenizer`` of any release reads it back."""
    tokenizer.save_pretrained(directory)
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text())
    if config["tokenizer_class"] == "TokenizersBackend":
        # what transformers 5 writes and 4 does not know; both read this one
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _is_plain(word: str) -> bool:
    return re.search(f"[{PUNCTUATION}]", word) is None


def _backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """A copy, so that no setting of the caller's changes."""
    return Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())


def _fast(
    backend: Tokenizer, special: Mapping[str, str], max_tokens: int
) -> PreTrainedTokenizerBase:
    from transformers import PreTrainedTokenizerFast

    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        model_max_length=max_tokens,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **special,
    )
    return tokenizer


def _as_it_is(name: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    for token in ("cls_token", "sep_token", "pad_token"):
        if getattr(tokenizer, token) is None:
            raise ValueError(f"encoder {name!r}: its tokenizer has no {token}, want one as BERT's")
    # neither cut nor fill what is counted
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def _kind(tokenizer: PreTrainedTokenizerBase) -> list[str | None]:
    """What the tokenizer is made of, as far as an extension relies on it."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    normalizer = state["normalizer"] or {}
    if normalizer.get("type") == "Sequence":
        first, *rest = normalizer["normalizers"]
        if rest == [{"type": "Replace", "pattern": {"Regex": _EDGE}, "content": _MARK}]:
            normalizer = first  # one of ours
    return [
        state["model"]["type"],
        normalizer.get("type"),
        (state["pre_tokenizer"] or {}).get("type"),
        "clean_text" if normalizer.get("clean_text") else "no clean_text",
    ]
