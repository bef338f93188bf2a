"""Rows of an encoder for the words its vocabulary was extended by.

The ei-SRC paper does not say how new rows start. Ours start at the mean of the pieces that the
word was split into, with the length of an average row: the encoder is least surprised by those.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase


def extend_embeddings(
    embedding: nn.Embedding, base: PreTrainedTokenizerBase, extended: PreTrainedTokenizerBase
) -> nn.Embedding:
    """Copy ``embedding`` with a row for each word that ``extended`` has beyond ``base``.

    Args:
        embedding: Input embeddings. Rows beyond ``base``, which pad some encoders, are
            dropped. [len(base) or more, hidden]
        base: Tokenizer that the rows belong to.
        extended: From ``extend_vocabulary``, with the ids of ``base`` unchanged.

    Returns:
        Old rows unchanged, then the new ones; trainable as before. [len(extended), hidden]

    Raises:
        ValueError: The tokenizers are not each other's, or the rows too few.
    """
    pieces = _pieces(embedding.num_embeddings, base, extended)
    old = embedding.weight.detach()[: len(base)]
    new = word_rows(old, pieces)
    extended_embedding: nn.Embedding = nn.Embedding.from_pretrained(  # type: ignore[no-untyped-call]
        torch.cat([old, new]),
        freeze=not embedding.weight.requires_grad,
        padding_idx=embedding.padding_idx,
    )
    return extended_embedding


def word_rows(rows: torch.Tensor, pieces: Sequence[Sequence[int]]) -> torch.Tensor:
    """A row for each word of known pieces: their mean, with the norm of an average row.

    Args:
        rows: Of the pieces. [tokens, hidden]
        pieces: Rows that each word was split into.

    Returns:
        [words, hidden]
    """
    if not pieces:
        return rows[:0]
    means = torch.stack([rows[list(ids)].mean(dim=0) for ids in pieces])
    scaled: torch.Tensor = nn.functional.normalize(means, dim=1) * rows.norm(dim=1).mean()
    return scaled


def extend_bias(
    bias: torch.Tensor, base: PreTrainedTokenizerBase, extended: PreTrainedTokenizerBase
) -> nn.Parameter:
    """Extend the output bias of a masked-language head likewise, by plain means.

    Args:
        bias: One number a token. [len(base) or more]
        base: See ``extend_embeddings``.
        extended: See ``extend_embeddings``.

    Returns:
        Trainable as before. [len(extended)]

    Raises:
        ValueError: See ``extend_embeddings``.
    """
    pieces = _pieces(len(bias), base, extended)
    old = bias.detach()[: len(base)]
    new = torch.stack([old[ids].mean() for ids in pieces]) if pieces else old[:0]
    return nn.Parameter(torch.cat([old, new]), requires_grad=bias.requires_grad)


def _pieces(
    rows: int, base: PreTrainedTokenizerBase, extended: PreTrainedTokenizerBase
) -> list[list[int]]:
    """Ids in ``base`` that each new word of ``extended`` was split into, in order of its id."""
    if rows < len(base):
        raise ValueError(f"encoder has {rows} rows for a vocabulary of {len(base)} tokens")
    ids = extended.get_vocab()
    for token, row in base.get_vocab().items():
        if ids.get(token) != row:
            raise ValueError(
                f"token {token!r}: id {row} before and {ids.get(token)} after extension; "
                "want a tokenizer extended from the same base"
            )
    words = [str(extended.decode([row])).strip() for row in range(len(base), len(extended))]
    if not words:
        return []
    found: list[list[int]] = base(words, add_special_tokens=False)["input_ids"]
    for word, pieces in zip(words, found, strict=True):
        if not pieces:
            raise ValueError(f"word {word!r}: the base tokenizer drops it; want one that it splits")
    return found
