"""Fine-tuning in two stages: A on weak pairs, B on judgments.

Source: ei-SRC section 4.1. We differ where a catalogue has no clicks: stage A then learns from
made queries, and from a ``guide``, a checkpoint whose probabilities label real train queries.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from relevance.calibration import Calibration
from relevance.configs import FinetuneConfig, LossConfig
from relevance.data.pairs import Pair, judged_pairs, query_key
from relevance.data.tables import MAX_GRADE, data_hash, has_table
from relevance.data.weak import weak_pairs
from relevance.encoders import check_encoder
from relevance.files import refuse_existing, sha256
from relevance.inference import load_scorer, score_pairs
from relevance.manifest import MANIFEST, verify
from relevance.metrics import roc_auc
from relevance.models import family_config, save
from relevance.models.base import Model
from relevance.models.layers import set_dropout
from relevance.training.loop import (
    Stage,
    fingerprint,
    is_main_process,
    native_precision,
    state_dir,
    train,
)

_DEV_SHARE = 0.12


def finetune(
    config: FinetuneConfig,
    data: Path,
    encoder: Path,
    out: Path,
    *,
    seed: int,
    guide: Path | None = None,
    terms: Path | None = None,
    state: Path | None = None,
) -> dict[str, float]:
    """Train a cross-encoder or dual encoder from ``encoder`` and write its checkpoint.

    Args:
        config: Family and the two stages.
        data: Dataset directory; stage B needs judgments of the train split.
        encoder: Pretrained encoder directory.
        out: Checkpoint to make.
        seed: Of the head, the sampled pairs and the order.
        guide: Checkpoint whose probabilities replace stage A's labels by half, and label
            what has none; without it unlabelled pairs are left out.
        terms: From ``learn_terms``; wanted where ``has_terms``.
        state: Where training states are kept; beside ``out`` unless given.

    Returns:
        The loop's numbers for each stage.
    """
    refuse_existing(out)
    check_encoder(encoder)
    if guide:
        verify(guide)
    torch.manual_seed(seed)
    model = family_config(config).start(encoder, terms)
    model.learn_by(config.loss)  # refused now rather than after stage A, which is plain
    model.learn_by(LossConfig())
    set_dropout(model, config.dropout)
    model.network.get_input_embeddings().requires_grad_(config.train_words)
    work = state_dir(out, state)
    key = fingerprint(
        config,
        seed,
        data_hash(data),
        sha256(encoder / "model.safetensors"),
        sha256(guide / "manifest.json") if guide else "",
        terms_hash(terms),
    )
    numbers: dict[str, float] = {}
    dev = judged_examples(data, "dev") if has_table(data, "judgments") else pd.DataFrame()
    validate = dev_auc(model, dev) if len(dev) else None
    if config.stage_a.steps:
        weak = weak_pairs(config.weak, data, seed=seed)
        pairs = to_pairs(guided(weak, guide, config.guide_weight))
        if config.judged_copies and has_table(data, "judgments"):
            pairs += to_pairs(judged_examples(data, "train")) * config.judged_copies
        stage = _stage("a", model, pairs, validate)
        numbers |= train(stage, config.stage_a, seed=seed, state=work, key=key)
    if config.stage_b.steps and has_table(data, "judgments"):
        model.learn_by(config.loss)
        stage = _stage("b", model, to_pairs(judged_examples(data, "train")), validate)
        numbers |= train(stage, config.stage_b, seed=seed, state=work, key=key)
    model.to("cpu")
    if len(dev):
        calibrate(model, dev)
    if is_main_process():
        save(model, out)
        if state is None:
            shutil.rmtree(work, ignore_errors=True)
    return numbers


def _stage(
    name: str, model: Model, pairs: list[Pair], validate: Callable[[], float] | None
) -> Stage[Pair]:
    full_name = f"{model.family}-stage-{name}"
    return Stage(full_name, model, pairs, pair_length, model.collate, model.loss, validate)


def judged_examples(data: Path, part: str) -> pd.DataFrame:
    """Judged pairs of the train split with ``label`` = grade / 3.

    ``part`` is ``train``, or ``dev``: an eighth of the train queries, by hash of their key, that
    early stopping watches, so that no reported split steers training.
    """
    pairs = judged_pairs(data, "train")
    in_dev = pairs["query"].map(_is_dev).astype(bool)
    pairs = pairs[in_dev if part == "dev" else ~in_dev]
    return pairs.assign(label=pairs["grade"] / MAX_GRADE)


def dev_auc(model: Model, dev: pd.DataFrame) -> Callable[[], float]:
    """Mean over sources of the ROC-AUC of full grade against the rest, on ``dev``."""

    def validate() -> float:
        scores = score_pairs(model, list(dev["query"]), list(dev["title"]))
        relevant = (dev["grade"] >= MAX_GRADE).to_numpy()
        areas = []
        for source in dev["source"].unique():
            rows = (dev["source"] == source).to_numpy()
            if 0 < relevant[rows].sum() < rows.sum():
                areas.append(roc_auc(relevant[rows], scores[rows]))
        return float(np.mean(areas)) if areas else 0.0

    return validate


def calibrate(model: Model, dev: pd.DataFrame) -> None:
    """Fit the model's probabilities of full grade, where ``dev`` has both kinds of pairs."""
    relevant = (dev["grade"] >= MAX_GRADE).to_numpy()
    if 0 < relevant.sum() < len(relevant):
        scores = score_pairs(model, list(dev["query"]), list(dev["title"]))
        model.calibration = Calibration.fit(scores, relevant)


def terms_hash(terms: Path | None) -> str:
    """Of what a terms directory holds; empty without one."""
    return sha256(terms / MANIFEST) if terms else ""


def guided(pairs: pd.DataFrame, guide: Path | None, weight: float) -> pd.DataFrame:
    """Mix the guide's probabilities into ``label`` by ``weight``; drop what stays unlabelled."""
    if guide is None or weight == 0:
        return pairs.dropna(subset="label")
    scores = score_pairs(
        load_scorer(guide),
        list(pairs["query"]),
        list(pairs["title"]),
        precision=native_precision(),
        progress="guide",
    )
    probability = 1 / (1 + np.exp(-scores))
    known = pairs["label"].fillna(pd.Series(probability, index=pairs.index))
    return pairs.assign(label=(1 - weight) * known + weight * probability)


def to_pairs(frame: pd.DataFrame) -> list[Pair]:
    """Rows as ``Pair`` objects."""
    return [Pair(*row) for row in zip(frame["query"], frame["title"], frame["label"], strict=True)]


def pair_length(pair: Pair) -> int:
    """Characters of a pair, which is close enough to its tokens for batching."""
    return len(pair.query) + len(pair.title)


def _is_dev(query: str) -> bool:
    digest = hashlib.sha256(f"dev {query_key(query)}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64 < _DEV_SHARE
