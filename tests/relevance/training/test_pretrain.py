"""Masked-language modelling from scratch and from a named encoder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModel, AutoTokenizer

from relevance.configs import OptimConfig, PretrainConfig, ShapeConfig, VocabularyConfig
from relevance.data.vocabulary import extend_vocabulary
from relevance.training.pretrain import _MaskedLanguage, pretrain

OPTIM = OptimConfig(steps=150, batch_size=16, lr=3e-3, precision="fp32", save_every=500)
CONFIG = PretrainConfig(shape=ShapeConfig(layers=1, hidden=32, heads=2), optim=OPTIM)


def test_training_lowers_the_loss_on_held_out_texts(
    clicked_data: Path, vocabulary: Path, tmp_path: Path
) -> None:
    numbers = pretrain(CONFIG, clicked_data, vocabulary, tmp_path / "encoder", seed=0)
    before, after = (numbers[f"pretrain/masked_loss_{when}"] for when in ("before", "after"))
    assert after < before - 0.5
    encoder = AutoModel.from_pretrained(tmp_path / "encoder")
    assert encoder.config.num_hidden_layers == 1


def test_the_same_seed_gives_the_same_encoder(
    tiny_data: Path, vocabulary: Path, tmp_path: Path
) -> None:
    short = replace(CONFIG, optim=replace(OPTIM, steps=5))
    made = []
    for name in ("first", "second"):
        pretrain(short, tiny_data, vocabulary, tmp_path / name, seed=1)
        made.append(load_file(tmp_path / name / "model.safetensors"))
    assert all(np.array_equal(made[0][name], made[1][name]) for name in made[0])


def test_a_named_encoder_is_extended_and_continued(
    tiny_data: Path, encoder: Path, tmp_path: Path
) -> None:
    settings = VocabularyConfig(encoder=str(encoder), new_words=5, min_count=2)
    extend_vocabulary(settings, tiny_data, tmp_path / "vocabulary")
    new_words = len(AutoTokenizer.from_pretrained(tmp_path / "vocabulary"))
    none = replace(CONFIG, optim=replace(OPTIM, steps=0))
    pretrain(none, tiny_data, tmp_path / "vocabulary", tmp_path / "encoder", seed=0)
    before = load_file(encoder / "model.safetensors")["embeddings.word_embeddings.weight"]
    after = load_file(tmp_path / "encoder" / "model.safetensors")[
        "embeddings.word_embeddings.weight"
    ]
    assert len(after) == new_words > len(before)
    np.testing.assert_array_equal(after[: len(before)], before)


def test_masks_hide_the_share_asked_and_no_special_token(tiny_data: Path, vocabulary: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(vocabulary)
    model = _MaskedLanguage(CONFIG, torch.nn.Identity(), tokenizer)
    torch.manual_seed(0)
    batch = model.collate(["red lamp 12v acme"] * 2000)
    chosen = batch["labels"] != -100
    assert chosen[:, 1:-1].float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert not chosen[:, [0, -1]].any()
    hidden = batch["input_ids"][chosen] == tokenizer.mask_token_id
    assert hidden.float().mean().item() == pytest.approx(0.8, abs=0.03)


def test_a_vocabulary_without_a_named_encoder_says_how_it_was_made(vocabulary: Path) -> None:
    assert json.loads((vocabulary / "encoder.json").read_text()) == {"encoder": ""}
