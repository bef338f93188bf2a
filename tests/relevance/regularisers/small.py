"""A small BERT cross-encoder in two halves, and batches of random pairs for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from relevance.configs import RegulariserConfig
from relevance.regularisers import REGULARISERS, Passes

WORDS = 60


def config_of(name: str, **changes: Any) -> RegulariserConfig:
    """A small attack; FreeLB's start is its only chance, so without a ball it has none."""
    fields: dict[str, Any] = {
        "name": name,
        "epsilon": 0.0 if name == "freelb" else 2.0,
        "step_size": 1.0,
        "ascents": 3,
        "weights": (0.4, 0.6, 0.5),
    }
    return RegulariserConfig(**(fields | changes))


@dataclass
class Batch:
    """Random token ids, padded on the right; half of the labels are soft."""

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor

    def rows(self, start: int, stop: int) -> Batch:
        """Some pairs, without the columns that are padding in all of them."""
        width = int(self.mask[start:stop].sum(1).max())
        return Batch(
            self.ids[start:stop, :width], self.mask[start:stop, :width], self.labels[start:stop]
        )


def batch(pairs: int, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Batch:
    """``pairs`` of 3 to 12 tokens, those of the first row 12, its label hard."""
    draw = torch.Generator().manual_seed(seed)
    sizes = torch.randint(3, 13, (pairs,), generator=draw)
    sizes[0] = 12
    mask = (torch.arange(12) < sizes[:, None]).long()
    ids = torch.randint(1, WORDS, (pairs, 12), generator=draw) * mask
    labels = torch.rand(pairs, generator=draw).to(dtype)
    labels[::2] = labels[::2].round()
    return Batch(ids, mask, labels)


@dataclass
class Watched:
    """What a regulariser asked for."""

    embedded: list[torch.Tensor] = field(default_factory=list)
    judged: list[torch.Tensor] = field(default_factory=list)

    @property
    def attack(self) -> torch.Tensor:
        """From the first pass to the last. [pairs, seq, hidden]"""
        return (self.judged[-1] - self.judged[0]).detach()


class Small(nn.Module):
    """Two layers of width 16; ``heat`` multiplies its logits."""

    def __init__(
        self, *, dropout: float = 0.0, heat: float = 1.0, dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__()
        torch.manual_seed(1)
        shape = BertConfig(
            vocab_size=WORDS,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=16,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            initializer_range=0.3,
        )
        shape.num_labels = 1
        network: Any = BertForSequenceClassification(shape)
        self.network = network.to(dtype).train()
        self.heat = heat

    def embed(self, given: Batch) -> torch.Tensor:
        embedded: torch.Tensor = self.network.bert.embeddings(given.ids)
        return embedded

    def judge(self, embedded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = (1 - mask[:, None, None, :]).to(embedded.dtype) * -1e9
        states = self.network.bert.encoder(embedded, attention_mask=hidden)[0]
        pooled = self.network.dropout(self.network.bert.pooler(states))
        logits: torch.Tensor = self.network.classifier(pooled)[:, 0]
        return self.heat * logits.to(torch.promote_types(logits.dtype, torch.float32))

    def passes(self, given: Batch, watched: Watched | None = None) -> Passes:
        watched = watched if watched is not None else Watched()

        def embed() -> torch.Tensor:
            watched.embedded.append(self.embed(given))
            return watched.embedded[-1]

        def judge(embedded: torch.Tensor) -> torch.Tensor:
            watched.judged.append(embedded)
            return self.judge(embedded, given.mask)

        return Passes(embed, judge, given.mask, given.labels)

    def loss(self, config: RegulariserConfig, given: Batch) -> torch.Tensor:
        return REGULARISERS[config.name](config, self.passes(given))

    # what DistributedDataParallel calls
    forward = loss

    def gradients(self) -> dict[str, torch.Tensor]:
        """Of all parameters; the unused ones have none."""
        return {n: p.grad.clone() for n, p in self.named_parameters() if p.grad is not None}


def learnt(model: Small, config: RegulariserConfig, *parts: Batch) -> dict[str, torch.Tensor]:
    """Gradients after one step accumulated over ``parts`` of equal size."""
    model.zero_grad()
    for part in parts:
        (model.loss(config, part) / len(parts)).backward()  # type: ignore[no-untyped-call]
    return model.gradients()


def log_likelihood(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Written as a two-way softmax over (0, logit). [pairs]"""
    both = torch.stack([torch.zeros_like(logits), logits], dim=1).log_softmax(dim=1)
    return (1 - labels) * both[:, 0] + labels * both[:, 1]


def slope(model: Small, given: Batch) -> torch.Tensor:
    """Gradient of each pair's log-likelihood, a pair at a time. [pairs, seq, hidden]"""
    found = []
    for row in range(len(given.labels)):
        embedded = model.embed(Batch(*(t[row : row + 1] for t in vars(given).values())))
        likelihood = log_likelihood(
            model.judge(embedded, given.mask[row : row + 1]), given.labels[row : row + 1]
        )
        found.append(torch.autograd.grad(likelihood.sum(), embedded)[0])
    return torch.cat(found)
