"""Continued masked-language modelling on titles, queries and clicked pairs.

Source: Devlin et al., "BERT", 2019, masking 80/10/10; ei-SRC section 4.1 continues it on e-commerce
text after extending the vocabulary.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertForMaskedLM,
    PreTrainedTokenizerBase,
)

from relevance.configs import PretrainConfig, WeakPairsConfig
from relevance.data.clicks import click_pairs
from relevance.data.tables import data_hash, has_table, read_table
from relevance.encoders import check_tokenizer, encoder_path, read_json
from relevance.files import new_dir, refuse_existing
from relevance.models.base import Batch
from relevance.models.extension import extend_bias, extend_embeddings
from relevance.models.layers import cut, pad, small_bert, start_by_matching
from relevance.models.pruning import prune_words
from relevance.models.speller import Speller
from relevance.training.loop import Stage, fingerprint, is_main_process, state_dir, train

_IGNORED = -100
_HELD_OUT = 512
"""Texts kept aside to measure the loss before and after."""


def pretrain(
    config: PretrainConfig,
    data: Path,
    vocabulary: Path,
    out: Path,
    *,
    seed: int,
    state: Path | None = None,
) -> dict[str, float]:
    """Train an encoder on the dataset's texts and write it to ``out``.

    Args:
        config: Shape (from scratch only), masking and optimizer.
        data: Dataset directory.
        vocabulary: From ``extend_vocabulary``; names the encoder to continue, if any. One that is
            no BERT is copied, which takes 0 steps and no added words.
        out: Encoder directory to make, in Hugging Face's layout.
        seed: Of weights, order and masks.
        state: Where training states are kept; beside ``out`` unless given.

    Returns:
        Masked-token loss on held-out texts before and after, and the loop's numbers; nothing
        where 0 steps left nothing to measure.

    Raises:
        FileExistsError: ``out`` is there already.
        FileNotFoundError: A table, the vocabulary or the encoder is missing.
        ValueError: One of them is damaged, or the encoder is no BERT and not just to be copied.
    """
    refuse_existing(out)
    name = _encoder_name(vocabulary)
    words = vocabulary if config.extend else vocabulary / "base"
    tokenizer = AutoTokenizer.from_pretrained(str(words))
    torch.manual_seed(seed)
    network = _network(config, name, vocabulary, tokenizer)
    work = state_dir(out, state)
    numbers: dict[str, float] = {}
    if config.optim.steps:
        texts = _texts(data, seed)
        held_out, texts = texts[:_HELD_OUT], texts[_HELD_OUT:] or texts
        model = _MaskedLanguage(config, network, tokenizer)
        before = _held_out_loss(model, held_out)
        stage = Stage("pretrain", model, texts, len, model.collate, model.loss)
        key = fingerprint(config, seed, data_hash(data), (words / "tokenizer.json").read_bytes())
        numbers = train(stage, config.optim, seed=seed, state=work, key=key)
        model.to("cpu")
        numbers["pretrain/masked_loss_before"] = before
        numbers["pretrain/masked_loss_after"] = _held_out_loss(model, held_out)
    if is_main_process():
        with new_dir(out) as partial:
            network.base_model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
        if state is None:
            shutil.rmtree(work, ignore_errors=True)
    return numbers


def _encoder_name(vocabulary: Path) -> str:
    """The encoder that ``vocabulary`` extends; empty for one learnt from scratch."""
    path = vocabulary / "encoder.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: missing; make a vocabulary with `querylift extend-vocabulary`"
        )
    name = read_json(path).get("encoder")
    if not isinstance(name, str):
        raise ValueError(f"{path}: encoder is {name!r}, want a name, or '' for none")
    check_tokenizer(vocabulary)
    check_tokenizer(vocabulary / "base")
    return name


def _network(
    config: PretrainConfig, name: str, vocabulary: Path, tokenizer: PreTrainedTokenizerBase
) -> Any:
    if config.start == "pruned" and not name:
        raise ValueError("pretrain.start=pruned: the vocabulary names no encoder to prune")
    if not name or config.start != "encoder":
        scratch = BertForMaskedLM(small_bert(config.shape, tokenizer))
        start_by_matching(scratch)
        if config.start == "pruned":
            wide: Any = AutoModel.from_pretrained(
                str(encoder_path(name)), use_safetensors=True, trust_remote_code=False
            )
            known = AutoTokenizer.from_pretrained(str(vocabulary / "base"))
            prune_words(
                scratch.bert.embeddings.word_embeddings.weight,
                tokenizer,
                wide.get_input_embeddings().weight.float(),
                known,
            )
        return scratch
    path = str(encoder_path(name))
    base = AutoTokenizer.from_pretrained(str(vocabulary / "base"))
    kind = AutoConfig.from_pretrained(path, trust_remote_code=False).model_type
    is_copied = config.optim.steps == 0 and len(tokenizer) == len(base)
    if kind != "bert" and not is_copied:
        raise ValueError(
            f"encoder {name!r}: architecture {kind!r}, want bert to train further or to add words "
            "to; set pretrain.optim.steps=0 and vocabulary.new_words=0 to take it as it is"
        )
    network: Any = (AutoModelForMaskedLM if kind == "bert" else AutoModel).from_pretrained(
        path,
        use_safetensors=True,
        trust_remote_code=False,
        # some are published in half precision, in which small steps are lost
        dtype=torch.float32,
    )
    if kind != "bert":
        return network
    bias = extend_bias(network.cls.predictions.bias, base, tokenizer)
    network.set_input_embeddings(extend_embeddings(network.get_input_embeddings(), base, tokenizer))
    network.cls.predictions.bias = bias
    network.cls.predictions.decoder.bias = bias
    network.cls.predictions.decoder.weight = network.get_input_embeddings().weight
    network.cls.predictions.decoder.out_features = len(tokenizer)
    network.config.vocab_size = len(tokenizer)
    return network


def _texts(data: Path, seed: int) -> list[str]:
    """Titles (with what the description adds), train queries, and clicked query-title pairs."""
    products = read_table(data, "products", ["title", "description"]).to_pandas()
    queries = read_table(data, "queries", ["query", "split"]).to_pandas()
    texts = list(products["title"])
    described = products.dropna(subset="description")
    texts += list(described["title"] + " " + described["description"].str.slice(0, 300))
    texts += list(queries.loc[queries["split"] == "train", "query"])
    if has_table(data, "events"):
        clicked = click_pairs(WeakPairsConfig(negatives=0), data, seed=seed)
        texts += list((clicked["query"] + " " + clicked["title"]).drop_duplicates())
    return [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))]


class _MaskedLanguage(nn.Module):
    def __init__(
        self, config: PretrainConfig, network: Any, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        super().__init__()
        self.config = config
        self.network = network
        self.tokenizer = tokenizer
        self.speller = Speller(tokenizer)

    def collate(self, texts: Sequence[str]) -> Batch:
        tokenizer = self.tokenizer
        rows = [
            [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]
            for ids in cut(self.speller.ids(texts), self.config.max_tokens - 2)
        ]
        ids = pad(rows, tokenizer.pad_token_id)  # [texts, seq]
        attention = pad([[1] * len(row) for row in rows], 0)
        special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
        chosen = (torch.rand(ids.shape) < self.config.mask) & ~special
        labels = torch.where(chosen, ids, _IGNORED)
        fate = torch.rand(ids.shape)
        ids = torch.where(chosen & (fate < 0.8), tokenizer.mask_token_id, ids)
        other = torch.randint(len(tokenizer), ids.shape)
        ids = torch.where(chosen & (fate >= 0.9), other, ids)
        return {"input_ids": ids, "attention_mask": attention, "labels": labels}

    def loss(self, batch: Batch, progress: float = 0.0) -> torch.Tensor:
        hidden = self.network.base_model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).last_hidden_state
        # the vocabulary-wide head costs as much as the layers, so it sees hidden tokens only
        chosen = batch["labels"] != _IGNORED
        logits = self.network.cls(hidden[chosen])  # [chosen, vocabulary]
        total = functional.cross_entropy(logits.float(), batch["labels"][chosen], reduction="sum")
        return total / chosen.sum().clamp(min=1)


def _held_out_loss(model: _MaskedLanguage, texts: Sequence[str]) -> float:
    model.eval()
    torch.manual_seed(0)
    with torch.inference_mode():
        parts = [texts[start : start + 64] for start in range(0, len(texts), 64)]
        losses = [float(model.loss(model.collate(part))) for part in parts]
    return float(np.mean(losses)) if losses else float("nan")
