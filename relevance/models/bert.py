"""BERT as a cross-encoder: query and title in one sequence, the head reads [CLS].

Source: Nogueira & Cho, "Passage Re-ranking with BERT", 2019. We differ in one logit trained
with binary cross-entropy on soft labels (a two-way softmax is the same for z = z1 - z0), and in
ei-SRC's caps of 16 query and 36 title tokens. Any encoder that ``transformers`` knows as a
sequence classifier can stand in for BERT; the checkpoint loads there and in
``sentence_transformers.CrossEncoder`` without our code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.nn import functional
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from relevance.data.pairs import Pair
from relevance.models.base import Batch, CrossEncoder, Tokens
from relevance.models.layers import attention, bert_logits, cut, pad, write_network
from relevance.models.speller import Speller


@dataclass(frozen=True)
class BertConfig:
    """Lengths; the network's own shape is in its Hugging Face config."""

    family: ClassVar[str] = "bert"
    max_query_tokens: int = 16
    max_title_tokens: int = 36

    def start(self, encoder: Path | str, terms: Path | None = None) -> Bert:
        """An untrained cross-encoder on top of a pretrained ``encoder``."""
        return self.read(encoder, num_labels=1)

    def build(
        self,
        shape: PretrainedConfig,
        tokenizer: PreTrainedTokenizerBase,
        terms: Path | None = None,
    ) -> Bert:
        """A cross-encoder of random weights."""
        shape.num_labels = 1
        network = AutoModelForSequenceClassification.from_config(  # type: ignore[no-untyped-call]
            shape, attn_implementation=attention()
        )
        return Bert(self, network, tokenizer)

    def read(self, checkpoint: Path | str, **changes: int) -> Bert:
        """A cross-encoder from files."""
        network = AutoModelForSequenceClassification.from_pretrained(
            str(checkpoint),
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=attention(),
            **changes,
        )
        return Bert(self, network, AutoTokenizer.from_pretrained(str(checkpoint)))


class Bert(CrossEncoder):
    """See the module's docstring."""

    family = BertConfig.family

    def __init__(
        self, config: BertConfig, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        super().__init__()
        self.config = config
        self.network = network
        self.tokenizer = tokenizer
        self.speller = Speller(tokenizer)

    @property
    def inputs(self) -> tuple[str, ...]:
        """See ``relevance.models.base.CrossEncoder.inputs``."""
        has_segments = getattr(self.network.config, "type_vocab_size", 1) > 1
        return ("input_ids", "attention_mask", *(("token_type_ids",) if has_segments else ()))

    @property
    def middle(self) -> list[int]:
        """BERT ends the query with one token, RoBERTa with two."""
        count = max(1, self.tokenizer.num_special_tokens_to_add(pair=True) - 2)
        return [int(self.tokenizer.sep_token_id)] * count

    def collate(self, pairs: Sequence[Pair]) -> Batch:
        """``[CLS] query [SEP] title [SEP]``, contiguous, padded to the longest row only."""
        tokenizer, config = self.tokenizer, self.config
        queries = cut(self.speller.ids([p.query for p in pairs]), config.max_query_tokens)
        titles = cut(self.speller.ids([p.title for p in pairs]), config.max_title_tokens)
        start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
        middle = self.middle
        rows = [[start, *q, *middle, *t, end] for q, t in zip(queries, titles, strict=True)]
        batch = {
            "input_ids": pad(rows, tokenizer.pad_token_id),
            "attention_mask": pad([[1] * len(row) for row in rows], 0),
            "labels": torch.tensor([p.label for p in pairs], dtype=torch.float32),
        }
        if "token_type_ids" in self.inputs:
            segments = [
                [0] * (1 + len(q) + len(middle)) + [1] * (len(t) + 1)
                for q, t in zip(queries, titles, strict=True)
            ]
            batch["token_type_ids"] = pad(segments, 0)
        return batch

    def read(self, texts: Sequence[str], max_tokens: int) -> list[Tokens]:
        """See ``relevance.models.base.CrossEncoder.read``."""
        rows = cut(self.speller.ids(texts), max_tokens)
        return [Tokens(ids, [0] * len(ids), []) for ids in rows]

    def score(self, batch: Batch) -> torch.Tensor:
        """Logits. [pairs]"""
        network: Any = self.network
        # a student's batch, which a teacher sees too, may say more
        inputs = {name: batch[name] for name in self.inputs}
        mask = inputs.pop("attention_mask")
        if network.config.model_type == "bert":
            return bert_logits(network, network.bert.embeddings(**inputs), mask)
        logits: torch.Tensor = network(**inputs, attention_mask=mask).logits  # [pairs, 1]
        return logits[:, 0].float()

    def loss(self, batch: Batch, progress: float = 0.0) -> torch.Tensor:
        """Binary cross-entropy on soft labels. []"""
        return functional.binary_cross_entropy_with_logits(self.score(batch), batch["labels"])

    def write(self, checkpoint: Path) -> None:
        """See ``relevance.models.base.Model.write``."""
        write_network(self, checkpoint)
