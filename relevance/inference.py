"""Scoring pairs with a model: sorted by length, so that little is padded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from relevance.data.pairs import Pair
from relevance.models import load
from relevance.models.base import DualEncoder, Model

BATCH = 128


def load_scorer(checkpoint: Path) -> Model:
    """Read a checkpoint onto the accelerator, where there is one; see ``relevance.models.load``."""
    return load(checkpoint).to("cuda" if torch.cuda.is_available() else "cpu")


def score_pairs(
    model: Model,
    queries: Sequence[str],
    titles: Sequence[str],
    *,
    precision: str = "fp32",
    progress: str = "",
) -> NDArray[np.float64]:
    """Raw scores of pairs, in the order given.

    Args:
        model: Any family; a dual encoder encodes each distinct text once.
        queries: One query a pair.
        titles: One title a pair.
        precision: ``fp32``, or ``bf16`` for autocast.
        progress: Label of a progress bar; empty shows none.

    Returns:
        Scores. [pairs]
    """
    if len(queries) != len(titles):
        raise ValueError(f"{len(queries)} queries for {len(titles)} titles: want one each")
    device = next(model.parameters()).device
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        if isinstance(model, DualEncoder):
            query_row, query_vectors = _encode(model.encode_queries, queries, progress)
            title_row, title_vectors = _encode(model.encode_items, titles, progress)
            compared = model.compare(query_vectors[query_row], title_vectors[title_row])
            return np.asarray(compared.double().cpu())
        lengths = [len(query) + len(title) for query, title in zip(queries, titles, strict=True)]
        scores = np.empty(len(titles))
        for rows in _batches(lengths, progress):
            batch = model.collate([Pair(queries[i], titles[i]) for i in rows])
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            scores[rows] = np.asarray(model.score(batch).double().cpu())
        return scores


def _encode(
    encode: Callable[[Sequence[str]], torch.Tensor], texts: Sequence[str], progress: str
) -> tuple[list[int], torch.Tensor]:
    """Row of each text among the vectors of the distinct ones. [texts], [distinct, dim]"""
    row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    distinct = list(row_of)
    parts, order = [], []
    for rows in _batches([len(text) for text in distinct], progress):
        parts.append(encode([distinct[i] for i in rows]).float())
        order += rows
    vectors = torch.cat(parts) if parts else torch.empty(0, 0)
    return [row_of[text] for text in texts], vectors[torch.tensor(order).argsort()]


def _batches(lengths: Sequence[int], progress: str) -> Sequence[list[int]]:
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    bar: Sequence[list[int]] = tqdm(batches, desc=progress, disable=not progress, mininterval=5)
    return bar
