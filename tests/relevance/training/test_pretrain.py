"""Masked-language modelling from scratch and from a named encoder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForPreTraining,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaTokenizer,
)

from relevance.configs import (
    FinetuneConfig,
    OptimConfig,
    PretrainConfig,
    ShapeConfig,
    VocabularyConfig,
    WeakPairsConfig,
)
from relevance.data.pairs import Pair
from relevance.data.vocabulary import extend_vocabulary
from relevance.encoders import check_encoder
from relevance.inference import score_pairs
from relevance.models import load
from relevance.training.finetune import finetune
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


# --- encoders by name ------------------------------------------------------------------------


SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 80,
}
NOTHING = replace(CONFIG, optim=replace(OPTIM, steps=0))


def write_roberta(directory: Path) -> None:
    """RoBERTa as it is published: a byte-level tokenizer, no segments, weights in half."""
    learner = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    texts = ["red lamp 12v acme", "blue shirt zenit"] * 9
    learner.train_from_iterator(texts, 300, special_tokens=special, show_progress=False)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    tokenizer = RobertaTokenizer(vocab=learner.get_vocab(), merges=merges)  # type: ignore[arg-type]
    tokenizer.save_pretrained(directory)
    shape = RobertaConfig(
        **SHAPE, vocab_size=len(tokenizer), type_vocab_size=1, pad_token_id=tokenizer.pad_token_id
    )
    torch.manual_seed(0)
    network: Any = RobertaForMaskedLM(shape)
    network.half().save_pretrained(directory)


def write_structbert(directory: Path, vocabulary: Path) -> None:
    """StructBERT as it is published: a BERT with its heads, and ``vocab.txt`` alone."""
    tokens = AutoTokenizer.from_pretrained(vocabulary).get_vocab()
    torch.manual_seed(0)
    BertForPreTraining(BertConfig(**SHAPE, vocab_size=len(tokens))).save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(sorted(tokens, key=tokens.__getitem__)) + "\n")


@pytest.mark.parametrize("kind", ["roberta", "structbert"])
def test_an_encoder_is_named_copied_finetuned_loaded_and_scored(
    kind: str, tiny_data: Path, vocabulary: Path, tmp_path: Path
) -> None:
    named, copied = tmp_path / "named", tmp_path / "encoder"
    write_roberta(named) if kind == "roberta" else write_structbert(named, vocabulary)
    settings = VocabularyConfig(encoder=str(named), new_words=0)
    extend_vocabulary(settings, tiny_data, tmp_path / "vocabulary")
    assert pretrain(NOTHING, tiny_data, tmp_path / "vocabulary", copied, seed=0) == {}
    check_encoder(copied)
    texts = ["red lamp 12v", "blue shirt"]
    tokenizers = [AutoTokenizer.from_pretrained(path) for path in (named, copied)]
    assert tokenizers[0](texts)["input_ids"] == tokenizers[1](texts)["input_ids"]
    ids = tokenizers[0](texts[:1], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        states = [
            AutoModel.from_pretrained(path, dtype=torch.float32).eval()(ids).last_hidden_state
            for path in (named, copied)
        ]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    assert AutoModel.from_pretrained(copied).dtype == torch.float32

    stage = replace(OPTIM, steps=2)
    for family in ("bert", "sbert"):
        tuning = FinetuneConfig(
            family=family,
            weak=WeakPairsConfig(pairs=30),
            stage_a=stage,
            stage_b=stage,
        )
        numbers = finetune(tuning, tiny_data, copied, tmp_path / family, seed=0)
        assert numbers[f"{family}-stage-b/steps"] == 2
        model = load(tmp_path / family)
        scores = score_pairs(model, texts, texts[::-1])
        assert np.isfinite(scores).all()
        alone = score_pairs(model, texts[:1], texts[1:])
        np.testing.assert_allclose(scores[:1], alone, rtol=1e-5)
        if family == "bert":
            # as the encoder itself joins a query and a title
            pair = model.collate([Pair(texts[0], texts[1])])["input_ids"][0].tolist()
            assert pair == tokenizers[0](texts[0], texts[1])["input_ids"]


def test_training_an_encoder_that_is_no_bert_is_refused_with_the_way_out(
    tiny_data: Path, tmp_path: Path
) -> None:
    write_roberta(tmp_path / "named")
    settings = VocabularyConfig(encoder=str(tmp_path / "named"), new_words=0)
    extend_vocabulary(settings, tiny_data, tmp_path / "vocabulary")
    match = r"encoder '.*named': architecture 'roberta', want bert.*set pretrain\.optim\.steps=0"
    with pytest.raises(ValueError, match=match):
        pretrain(CONFIG, tiny_data, tmp_path / "vocabulary", tmp_path / "encoder", seed=0)
    assert not (tmp_path / "encoder").exists()


def test_words_for_an_encoder_that_is_no_bert_are_refused(
    tiny_data: Path, vocabulary: Path, tmp_path: Path
) -> None:
    # it has BERT's tokenizer, so only the network tells
    named = tmp_path / "named"
    tokenizer = AutoTokenizer.from_pretrained(vocabulary)
    tokenizer.save_pretrained(named)
    shape = DistilBertConfig(vocab_size=len(tokenizer), dim=32, n_layers=1, n_heads=2)
    DistilBertModel(shape).save_pretrained(named)
    settings = VocabularyConfig(encoder=str(named), new_words=5, min_count=2)
    extend_vocabulary(settings, tiny_data, tmp_path / "vocabulary")
    with pytest.raises(ValueError, match=r"'distilbert', want bert.*vocabulary\.new_words=0"):
        pretrain(NOTHING, tiny_data, tmp_path / "vocabulary", tmp_path / "encoder", seed=0)
    # the same encoder without the words is taken as it is
    plain = replace(NOTHING, extend=False)
    pretrain(plain, tiny_data, tmp_path / "vocabulary", tmp_path / "encoder", seed=0)
    assert AutoModel.from_pretrained(tmp_path / "encoder").config.model_type == "distilbert"
