"""ei-SRC: a shallow BERT cross-encoder with term classes, trained under attack.

Source: Chen et al., "Robust Interaction-based Relevance Modeling for Online E-Commerce and
LLM-based Retrieval", ECML-PKDD 2024. Query and title share one sequence; a word's embedding is the
sum of token, term class, segment and position, and [CLS] feeds one logit. We differ in

- rows without padding between query and title (``contiguous``). Positions are those of the uncut
  row in every layout, so that a pair's score depends on nothing but the pair, in the paper's
  dynamic length (``segments``) too;
- an embedding of no term class that stays zero, as the whole table is at the start, so that the
  untrained model is plain BERT;
- one logit and the logistic function, a two-way softmax of z = z1 - z0.

The training loss is ``relevance.configs.LossConfig``: heat, a regulariser, a word-drop view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from relevance.configs import LossConfig
from relevance.data.pairs import Pair
from relevance.data.tagger import Tagger, load_terms
from relevance.data.terms import CLASSES, token_classes
from relevance.models.base import Batch, CrossEncoder, Tokens
from relevance.models.layers import attention, bert_logits, pad, write_network
from relevance.models.speller import Speller
from relevance.regularisers import REGULARISERS, Passes

_TABLE = "terms.safetensors"
_TAGGER = "terms"
_REMEMBERED = 500_000
"""Texts whose tokens are kept at most."""


@dataclass(frozen=True)
class EiSrcConfig:
    """Input of the model; the network's own shape is in its Hugging Face config."""

    family: ClassVar[str] = "ei_src"
    max_query_tokens: int = 16
    max_title_tokens: int = 36
    layout: Literal["contiguous", "segments", "fixed"] = "contiguous"
    has_terms: bool = False

    def start(self, encoder: Path | str, terms: Path | None = None) -> EiSrc:
        """An untrained ei-SRC on top of a pretrained BERT ``encoder``.

        Raises:
            ValueError: The encoder is no BERT, or ``terms`` are wanted and not given.
        """
        return EiSrc(
            self,
            _network(encoder, num_labels=1),
            AutoTokenizer.from_pretrained(str(encoder)),
            self._tagger(terms),
        )

    def build(
        self,
        shape: PretrainedConfig,
        tokenizer: PreTrainedTokenizerBase,
        terms: Path | None = None,
    ) -> EiSrc:
        """An ei-SRC of random weights."""
        shape.num_labels = 1
        network = BertForSequenceClassification._from_config(  # type: ignore[no-untyped-call]
            shape, attn_implementation=attention()
        )
        return EiSrc(self, network, tokenizer, self._tagger(terms))

    def read(self, checkpoint: Path) -> EiSrc:
        """An ei-SRC from files.

        Raises:
            ValueError: The table of terms does not fit the network.
        """
        terms = checkpoint / _TAGGER if self.has_terms else None
        model = EiSrc(
            self,
            _network(checkpoint),
            AutoTokenizer.from_pretrained(str(checkpoint)),
            self._tagger(terms),
        )
        if model.terms is not None:
            table = load_file(checkpoint / _TABLE).get("weight")
            wanted = model.terms.weight
            if table is None or table.shape != wanted.shape:
                raise ValueError(
                    f"{checkpoint / _TABLE}: table of "
                    f"{'no weight' if table is None else tuple(table.shape)}, want "
                    f"{tuple(wanted.shape)}: a row for each of {', '.join(CLASSES)}"
                )
            with torch.no_grad():
                wanted.copy_(table)
        return model

    def _tagger(self, terms: Path | None) -> Tagger | None:
        if not self.has_terms:
            return None
        if terms is None:
            raise ValueError("has_terms: no terms are given; learn some with `learn-terms`")
        return load_terms(terms)


def _network(source: Path | str, **changes: Any) -> BertForSequenceClassification:
    network: Any = BertForSequenceClassification.from_pretrained(
        str(source), use_safetensors=True, attn_implementation=attention(), **changes
    )
    if network.config.model_type != BertConfig.model_type:
        raise ValueError(
            f"{source}: architecture {network.config.model_type!r}, want bert for ei_src"
        )
    found: BertForSequenceClassification = network
    return found


class EiSrc(CrossEncoder):
    """See the module's docstring."""

    family = EiSrcConfig.family

    def __init__(
        self,
        config: EiSrcConfig,
        network: BertForSequenceClassification,
        tokenizer: PreTrainedTokenizerBase,
        tagger: Tagger | None,
    ) -> None:
        super().__init__()
        wanted = config.max_query_tokens + config.max_title_tokens + 3
        if network.config.max_position_embeddings < wanted:
            raise ValueError(
                f"max_query_tokens={config.max_query_tokens}, "
                f"max_title_tokens={config.max_title_tokens}: take {wanted} positions, and the "
                f"encoder has {network.config.max_position_embeddings}"
            )
        self.config = config
        self.network = network
        self.tokenizer = tokenizer
        self.speller = Speller(tokenizer)
        self.tagger = tagger
        self.learning = LossConfig()
        self.terms: nn.Embedding | None = None
        if tagger is not None:
            # the padding row of an embedding gets no gradient: class 0 stays at zero
            self.terms = nn.Embedding(len(CLASSES), network.config.hidden_size, padding_idx=0)
            nn.init.zeros_(self.terms.weight)
        self._remembered: dict[str, Tokens] = {}

    def learn_by(self, loss: LossConfig) -> None:
        """Train by ``loss`` from now on.

        Raises:
            ValueError: Words are to be dropped, but no classes say which.
        """
        if loss.word_drop and self.tagger is None:
            raise ValueError("word_drop: wants has_terms, whose classes say which words may go")
        self.learning = loss

    @property
    def inputs(self) -> tuple[str, ...]:
        """See ``relevance.models.base.CrossEncoder.inputs``."""
        terms = ("term_ids",) if self.terms is not None else ()
        return ("input_ids", "attention_mask", "token_type_ids", "position_ids", *terms)

    def collate(self, pairs: Sequence[Pair]) -> Batch:
        """``[CLS] query [SEP] title [SEP]`` in the config's layout. Each [pairs, seq].

        ``contiguous`` pads on the right to the longest row. ``fixed`` pads the query to its cap
        and the title to its own; ``segments`` is the same less the columns that are padding in
        every row. Position ids say where a token stands in ``fixed``: all three score alike.
        """
        config, tokenizer = self.config, self.tokenizer
        queries = self._tokens([p.query for p in pairs], config.max_query_tokens)
        titles = self._tokens([p.title for p in pairs], config.max_title_tokens)
        start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
        gaps = [0] * len(pairs)
        if config.layout != "contiguous":
            gaps = [config.max_query_tokens - len(query.ids) for query in queries]
        rows: dict[str, list[list[int]]] = {
            name: []
            for name in (
                "input_ids",
                "attention_mask",
                "token_type_ids",
                "position_ids",
                "term_ids",
                "word_ids",
            )
        }
        for query, title, gap in zip(queries, titles, gaps, strict=True):
            first, second = len(query.ids) + 2, len(title.ids) + 1
            padding = [0] * gap
            rows["input_ids"].append(
                [start, *query.ids, end, *[tokenizer.pad_token_id] * gap, *title.ids, end]
            )
            rows["attention_mask"].append([1] * first + padding + [1] * second)
            rows["token_type_ids"].append([0] * first + padding + [1] * second)
            rows["position_ids"].append(
                [*range(first + gap), *range(self.title_start, self.title_start + second)]
            )
            rows["term_ids"].append([0, *query.classes, 0, *padding, *title.classes, 0])
            # words of the title alone, from 1; the query, which is short, is never cut
            rows["word_ids"].append([0] * (first + gap) + [w + 1 for w in title.words] + [0])
        full = config.max_query_tokens + config.max_title_tokens + 3
        width = full if config.layout == "fixed" else 0
        batch = {
            name: pad(values, tokenizer.pad_token_id if name == "input_ids" else 0, width)
            for name, values in rows.items()
        }
        if config.layout == "segments":
            kept = batch["attention_mask"].any(0)
            batch = {name: tensor[:, kept] for name, tensor in batch.items()}
        return {**batch, "labels": torch.tensor([p.label for p in pairs], dtype=torch.float32)}

    def _tokens(self, texts: Sequence[str], max_tokens: int) -> list[Tokens]:
        """Pieces of each text, remembered, for the same texts come back every epoch."""
        new = [text for text in dict.fromkeys(texts) if text not in self._remembered]
        if new:
            if len(self._remembered) + len(new) > _REMEMBERED:
                self._remembered.clear()
                new = list(dict.fromkeys(texts))
            # a text may be a query here and a title there, so it is remembered whole
            self._remembered.update(zip(new, self._read(new), strict=True))
        return [_cut(self._remembered[text], max_tokens) for text in texts]

    def read(self, texts: Sequence[str], max_tokens: int) -> list[Tokens]:
        """See ``relevance.models.base.CrossEncoder.read``."""
        return [_cut(tokens, max_tokens) for tokens in self._read(texts)]

    def _read(self, texts: Sequence[str]) -> list[Tokens]:
        tagged = self.tagger.tag(texts) if self.tagger else [[] for _ in texts]
        return [
            Tokens(
                list(spelling.ids),
                token_classes(spelling.offsets, terms),
                list(spelling.words),
            )
            for spelling, terms in zip(self.speller.spellings(texts), tagged, strict=True)
        ]

    @property
    def title_start(self) -> int:
        """Position of a title's first token."""
        start: int = self.config.max_query_tokens + 2
        return start

    def embed(self, batch: Batch) -> torch.Tensor:
        """What the layers read: the summed embeddings after norm and dropout. [pairs, seq, hidden]

        Adversarial training moves this, as the authors' code does.
        """
        network: Any = self.network
        embeddings = network.bert.embeddings
        words = embeddings.word_embeddings(batch["input_ids"])
        if self.terms is not None:
            words = words + self.terms(batch["term_ids"])
        embedded: torch.Tensor = embeddings(
            inputs_embeds=words,
            token_type_ids=batch["token_type_ids"],
            position_ids=batch["position_ids"],
        )
        return embedded

    def judge(self, embedded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits of embedded pairs. [pairs]

        Args:
            embedded: From ``embed``. [pairs, seq, hidden]
            mask: 1 where a token may be seen. [pairs, seq]
        """
        return bert_logits(self.network, embedded, mask)

    def score(self, batch: Batch) -> torch.Tensor:
        """Logits, without heat. [pairs]"""
        return self.judge(self.embed(batch), batch["attention_mask"])

    def loss(self, batch: Batch, progress: float = 0.0) -> torch.Tensor:
        """See ``learn_by``. []"""
        learning = self.learning
        heat = learning.heat_at(progress)
        mask = batch["attention_mask"]
        passes = Passes(
            embed=lambda: self.embed(batch),
            judge=lambda embedded: heat * self.judge(embedded, mask),
            mask=mask,
            labels=batch["labels"],
        )
        loss = REGULARISERS[learning.regulariser.name](learning.regulariser, passes)
        if learning.word_drop:
            logits = heat * self.judge(self.embed(batch), self._drop_words(batch))
            view = functional.binary_cross_entropy_with_logits(logits, batch["labels"])
            loss = loss + learning.word_drop * view
        return loss

    def _drop_words(self, batch: Batch) -> torch.Tensor:
        """The mask less some of the title's words without a class, all pieces of a word alike."""
        words = batch["word_ids"]
        # a word is kept if any piece of it has a class
        has_class = torch.zeros(len(words), int(words.max()) + 1, device=words.device)
        has_class.scatter_add_(1, words, (batch["term_ids"] > 0).float())
        lost = torch.rand_like(has_class) < self.learning.word_drop_share
        lost &= has_class == 0
        lost[:, 0] = False
        return batch["attention_mask"] * ~lost.gather(1, words)

    def write(self, checkpoint: Path) -> None:
        """See ``relevance.models.base.Model.write``; plus the table of terms and its tagger."""
        write_network(self, checkpoint)
        if self.terms is not None and self.tagger is not None:
            save_file({"weight": self.terms.weight.detach()}, checkpoint / _TABLE)
            self.tagger.write(checkpoint / _TAGGER)


def _cut(tokens: Tokens, length: int) -> Tokens:
    return Tokens(tokens.ids[:length], tokens.classes[:length], tokens.words[:length])
