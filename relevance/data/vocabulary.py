"""The vocabulary step: a tokenizer for this shop, and what it saves.

Source: ei-SRC, section 3.2 and Table 3: of the words in queries and titles that BERT's WordPiece
splits, the most frequent are added whole. We count titles once and queries by their searches,
and measure on items that the words were not learnt from.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from relevance.configs import VocabularyConfig
from relevance.data import wordpiece
from relevance.data.tables import table_path
from relevance.data.words import Texts, count_words, open_texts
from relevance.files import new_dir, refuse_existing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LEARN_TEXTS = 1_000_000
"""Texts that a vocabulary from scratch is learnt from at most; more change little of it."""
_MEASURED = 20_000
"""Held-out titles, and pairs, that Table 3 is measured on at most."""
_CHUNK = 1_000
_MIN_STEM_LETTERS = 3
"""A word of so few begins others by chance, as ``car`` does ``cardigan``, or is a unit, as ``mah``:
it counts as a part of another only if the rest is a word too, and is not added itself."""

_WORDS = pa.schema(
    [("word", pa.string()), ("count", pa.int64()), ("pieces", pa.list_(pa.string()))]
)

_ROWS = ("each word", "each title", "each pairs")
_COLUMNS = ("original word", "original WPE", "extended vocab.")


def extend_vocabulary(config: VocabularyConfig, data: Path, out: Path) -> dict[str, float]:
    """Make the tokenizer of ``config`` for the dataset ``data``.

    Args:
        config: The encoder whose tokenizer is extended, or the size of one to learn; how many
            words are added. Without any, a tokenizer that is not BERT's is copied as it is.
        data: Dataset directory.
        out: Directory to make: the extended tokenizer, ``base/`` before extension,
            ``words.parquet`` (word, count, pieces), ``table.json`` (see ``format_table``) and
            ``encoder.json``.

    Returns:
        Words added, and sub-tokens of a word, a title and a pair before and after, on held-out
        items.

    Raises:
        FileExistsError: ``out`` is there already.
        FileNotFoundError: A table is missing.
        ValueError: A table or the encoder's tokenizer cannot be used; no title to measure on.
    """
    refuse_existing(out)
    with open_texts(data) as texts:
        if config.encoder:
            base = wordpiece.of_encoder(config.encoder, is_extended=config.new_words > 0)
        else:
            base = wordpiece.learn(lambda: texts.sample(_LEARN_TEXTS), config.base_size)
        words = _new_words(config, base, texts) if config.new_words else _WORDS.empty_table()
        extended = base
        if wordpiece.is_bert(base):
            extended = wordpiece.extend(base, words.column("word").to_pylist())
        table = _measure(texts, base, extended, data)
    with new_dir(out) as partial:
        wordpiece.save(extended, partial)
        wordpiece.save(base, partial / "base")
        pq.write_table(words, partial / "words.parquet")
        _write_json(table, partial / "table.json")
        _write_json({"encoder": config.encoder}, partial / "encoder.json")
    return _metrics(table, len(base), len(extended))


def format_table(table: Path | Mapping[str, Mapping[str, float]]) -> str:
    """Lay out sub-token counts as the ei-SRC paper's Table 3.

    Args:
        table: ``table.json`` of a vocabulary, or its content.

    >>> row = {"original word": 1, "original WPE": 1.37, "extended vocab.": 1.22}
    >>> print(format_table({"each word": row, "each title": row, "each pairs": row}))
    types       original word  original WPE  extended vocab.
    each word            1.00          1.37             1.22
    each title           1.00          1.37             1.22
    each pairs           1.00          1.37             1.22
    """
    rows = json.loads(table.read_text()) if isinstance(table, Path) else table
    lines = ["  ".join([f"{'types':<10}", *_COLUMNS])]
    for row in _ROWS:
        numbers = [f"{rows[row][column]:>{len(column)}.2f}" for column in _COLUMNS]
        lines.append("  ".join([f"{row:<10}", *numbers]))
    return "\n".join(lines)


def _new_words(config: VocabularyConfig, base: PreTrainedTokenizerBase, texts: Texts) -> pa.Table:
    """The most frequent words that ``base`` splits, as ``_WORDS`` has them."""
    folded = _folded_counts(config, base, texts.to_learn())
    ranked = sorted(folded, key=lambda word: (-folded[word], word))
    if config.only_strangers:
        titles = _folded_counts(config, base, texts.titles_to_learn())
        words = [word for word in ranked if word in titles and word.isalpha()]
        ranked = _strangers(words, folded.keys())
    found: dict[str, list[str]] = {}
    for start in range(0, len(ranked), _CHUNK):
        if len(found) >= config.new_words:
            break
        found |= wordpiece.split_words(base, ranked[start : start + _CHUNK])
    words = list(found)[: config.new_words]
    columns = [words, [folded[word] for word in words], [found[word] for word in words]]
    return pa.table(dict(zip(_WORDS.names, columns, strict=True)), schema=_WORDS)


def _strangers(words: Sequence[str], known: Set[str]) -> list[str]:
    """Those of ``words``, in order, that no other of the ``known`` words is a part of.

    A word begins those that stand right behind it in the alphabet, if any.
    """
    ordered = sorted(known)
    begins = {word for word, behind in pairwise(ordered) if behind.startswith(word)}

    def has_relatives(word: str) -> bool:
        least = _MIN_STEM_LETTERS
        heads = {word[:cut] for cut in range(least, len(word))} & known
        return word in begins or any(
            len(head) > least or word[len(head) :] in known for head in heads
        )

    return [word for word in words if len(word) > _MIN_STEM_LETTERS and not has_relatives(word)]


def _folded_counts(
    config: VocabularyConfig, base: PreTrainedTokenizerBase, texts: Any
) -> Counter[str]:
    """How often each word stands in ``texts``, as ``base`` sees it; the rarer are left out."""
    counts = count_words(
        texts,
        min_count=config.min_count,
        is_lowercased=base.backend_tokenizer.normalizer.normalize_str("A") == "a",
    )
    pairs = zip(counts.column("word").to_pylist(), counts.column("count").to_pylist(), strict=True)
    return wordpiece.fold(base, pairs)


def _measure(
    texts: Texts, base: PreTrainedTokenizerBase, extended: PreTrainedTokenizerBase, data: Path
) -> dict[str, dict[str, float]]:
    """Table 3 on held-out items, special tokens not counted."""
    titles = texts.held_out_titles(_MEASURED)
    words = sum(len(title.split()) for title in titles)
    if not words:
        raise ValueError(
            f"{table_path(data, 'products')}: no title in the fifth of items that is held out; "
            "want about 50 products or more"
        )
    source, pairs = texts.held_out_pairs(_MEASURED)
    sides = [query for query, _ in pairs] + [title for _, title in pairs]
    lengths = [
        (words, sum(len(text.split()) for text in sides)),
        (_tokens(base, titles), _tokens(base, sides)),
        (_tokens(extended, titles), _tokens(extended, sides)),
    ]
    of_title = [title / len(titles) for title, _ in lengths]
    of_pair = [pair / len(pairs) for _, pair in lengths]
    of_word = [title / words for title, _ in lengths]
    table = {
        name: dict(zip(_COLUMNS, numbers, strict=True))
        for name, numbers in zip(_ROWS, (of_word, of_title, of_pair), strict=True)
    }
    return table | {"measured on": {"titles": len(titles), f"{source} pairs": len(pairs)}}


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> int:
    backend = tokenizer.backend_tokenizer
    chunks = (texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK))
    return sum(
        len(encoding.ids)
        for chunk in chunks
        for encoding in backend.encode_batch_fast(list(chunk), add_special_tokens=False)
    )


def _metrics(table: Mapping[str, Mapping[str, float]], before: int, after: int) -> dict[str, float]:
    metrics = {
        "vocabulary/tokens_before": float(before),
        "vocabulary/tokens_after": float(after),
        "vocabulary/words_added": float(after - before),
    }
    for row in _ROWS:
        words, base, extended = (table[row][column] for column in _COLUMNS)
        name = row.removeprefix("each ").removesuffix("s")
        metrics[f"vocabulary/words_per_{name}"] = words
        metrics[f"vocabulary/pieces_per_{name}_before"] = base
        metrics[f"vocabulary/pieces_per_{name}_after"] = extended
        metrics[f"vocabulary/saved_per_{name}"] = 1 - extended / base
    return metrics


def _write_json(content: Mapping[str, object], path: Path) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
