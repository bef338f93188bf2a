"""Word embeddings of a narrow model from those of a wide one.

Nine tenths of a 3x128 model are its vocabulary, and few pairs would have to teach it: starting at
the wide model's principal components, words that mean the same start near each other.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedTokenizerBase

from relevance.models.extension import word_rows


def prune_words(
    own: torch.Tensor,
    tokenizer: PreTrainedTokenizerBase,
    words: torch.Tensor,
    known: PreTrainedTokenizerBase,
) -> None:
    """Fill ``own`` with the principal components of ``words``, keeping its deviation.

    Args:
        own: Input embeddings to fill, no wider than ``words``. [own tokens, hidden]
        tokenizer: That ``own`` belongs to.
        words: Input embeddings of the wide model. [known tokens, hidden of the wide one]
        known: Tokenizer that ``words`` belong to.

    Raises:
        ValueError: ``own`` is wider.
    """
    width = own.shape[1]
    if width > words.shape[1]:
        raise ValueError(f"hidden {width}: want at most {words.shape[1]}, the width to start from")
    with torch.no_grad():
        centred = words - words.mean(0)
        _, axes = torch.linalg.eigh(centred.T @ centred)
        rows = _rows_of(known, tokenizer, centred @ axes.flip(1)[:, :width])
        own.copy_(rows * (own.std() / rows.std()))
        own[tokenizer.pad_token_id].zero_()


def _rows_of(
    known: PreTrainedTokenizerBase, wanted: PreTrainedTokenizerBase, rows: torch.Tensor
) -> torch.Tensor:
    """Rows for the tokens of ``wanted``: those of ``known``, or the mean of a word's pieces there.

    Args:
        known: Tokenizer that ``rows`` belong to.
        wanted: Tokenizer that rows are wanted for.
        rows: One a token of ``known``. [known tokens, hidden]

    Returns:
        A new word has the norm of an average row. [wanted tokens, hidden]
    """
    ids = known.get_vocab()
    found = torch.empty(len(wanted), rows.shape[1])
    new: dict[int, list[int]] = {}
    for token, row in wanted.get_vocab().items():
        if token in ids:
            found[row] = rows[ids[token]]
            continue
        word = str(wanted.decode([row])).removeprefix("##")
        pieces = known(word, add_special_tokens=False)["input_ids"]
        new[row] = pieces or list(range(len(rows)))
    found[list(new)] = word_rows(rows, list(new.values()))
    return found
