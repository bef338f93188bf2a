"""SBERT: one encoder for queries and titles, mean-pooled; items can be indexed.

Source: Reimers & Gurevych, "Sentence-BERT", EMNLP 2019. We differ in the objective: the cosine
goes through a learnt scale and offset into binary cross-entropy, so that the score is a logit
like every other family's. The checkpoint loads in ``sentence_transformers`` without our code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from transformers import (
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from relevance.data.pairs import Pair
from relevance.models.base import Batch, DualEncoder
from relevance.models.layers import attention, cut, pad, write_network
from relevance.models.speller import Speller

_HEAD = "head.safetensors"


@dataclass(frozen=True)
class SbertConfig:
    """Lengths; the network's own shape is in its Hugging Face config."""

    family: ClassVar[str] = "sbert"
    max_query_tokens: int = 16
    max_title_tokens: int = 36

    def start(self, encoder: Path | str, terms: Path | None = None) -> Sbert:
        """An untrained dual encoder on top of a pretrained ``encoder``."""
        network = AutoModel.from_pretrained(
            str(encoder),
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=attention(),
        )
        return Sbert(self, network, AutoTokenizer.from_pretrained(str(encoder)))

    def build(
        self,
        shape: PretrainedConfig,
        tokenizer: PreTrainedTokenizerBase,
        terms: Path | None = None,
    ) -> Sbert:
        """A dual encoder of random weights."""
        network = AutoModel.from_config(  # type: ignore[no-untyped-call]
            shape, attn_implementation=attention()
        )
        return Sbert(self, network, tokenizer)

    def read(self, checkpoint: Path | str) -> Sbert:
        """A dual encoder from files."""
        model = self.start(checkpoint)
        head = load_file(Path(checkpoint) / _HEAD)
        with torch.no_grad():
            model.scale.copy_(head["scale"])
            model.offset.copy_(head["offset"])
        return model


class Sbert(DualEncoder):
    """See the module's docstring."""

    family = SbertConfig.family

    def __init__(
        self, config: SbertConfig, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        super().__init__()
        self.config = config
        self.network = network
        self.tokenizer = tokenizer
        self.speller = Speller(tokenizer)
        # cosines of a sentence encoder lie around 0.1 to 0.8, so start with a logit of 0 midway
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.offset = nn.Parameter(torch.tensor(-4.0))

    def collate(self, pairs: Sequence[Pair]) -> Batch:
        """Queries and titles side by side, each padded to its own longest."""
        queries = self._inputs([p.query for p in pairs], self.config.max_query_tokens)
        titles = self._inputs([p.title for p in pairs], self.config.max_title_tokens)
        return {
            **{f"query_{name}": tensor for name, tensor in queries.items()},
            **{f"title_{name}": tensor for name, tensor in titles.items()},
            "labels": torch.tensor([p.label for p in pairs], dtype=torch.float32),
        }

    def _inputs(self, texts: Sequence[str], max_tokens: int) -> dict[str, torch.Tensor]:
        tokenizer = self.tokenizer
        start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
        rows = [[start, *ids, end] for ids in cut(self.speller.ids(texts), max_tokens)]
        return {
            "input_ids": pad(rows, tokenizer.pad_token_id),
            "attention_mask": pad([[1] * len(row) for row in rows], 0),
        }

    def _encode(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states = self.network(input_ids=input_ids, attention_mask=attention_mask)
        hidden = states.last_hidden_state.float()  # [texts, seq, hidden]
        mask = attention_mask[:, :, None].float()
        return functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    def encode_queries(self, queries: Sequence[str]) -> torch.Tensor:
        """Unit vectors. [queries, hidden]"""
        return self._encode_texts(queries, self.config.max_query_tokens)

    def encode_items(self, titles: Sequence[str]) -> torch.Tensor:
        """Unit vectors. [items, hidden]"""
        return self._encode_texts(titles, self.config.max_title_tokens)

    def _encode_texts(self, texts: Sequence[str], max_tokens: int) -> torch.Tensor:
        device = self.scale.device
        inputs = {k: v.to(device) for k, v in self._inputs(texts, max_tokens).items()}
        return self._encode(**inputs)

    def score(self, batch: Batch) -> torch.Tensor:
        """Scaled and shifted cosines: logits. [pairs]"""
        queries = self._encode(batch["query_input_ids"], batch["query_attention_mask"])
        titles = self._encode(batch["title_input_ids"], batch["title_attention_mask"])
        return self.compare(queries, titles)

    def compare(self, queries: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Scaled and shifted cosines. [pairs]"""
        return (queries * items).sum(-1) * self.scale + self.offset

    def loss(self, batch: Batch, progress: float = 0.0) -> torch.Tensor:
        """Binary cross-entropy on soft labels. []"""
        return functional.binary_cross_entropy_with_logits(self.score(batch), batch["labels"])

    def write(self, checkpoint: Path) -> None:
        """As ``Model.write``, plus ``SentenceTransformer``'s modules: mean pooling, unit length."""
        write_network(self, checkpoint)
        head = {"scale": self.scale.detach(), "offset": self.offset.detach()}
        save_file(head, checkpoint / _HEAD)
        package = "sentence_transformers.models"
        modules = [
            {"idx": 0, "name": "0", "path": "", "type": f"{package}.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{package}.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{package}.Normalize"},
        ]
        (checkpoint / "modules.json").write_text(json.dumps(modules, indent=2) + "\n")
        (checkpoint / "1_Pooling").mkdir()
        pooling = {
            "word_embedding_dimension": self.network.config.hidden_size,
            "pooling_mode_mean_tokens": True,
        }
        (checkpoint / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2) + "\n")
        (checkpoint / "2_Normalize").mkdir()
