"""What two families use unchanged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BertConfig, PreTrainedTokenizerBase
from transformers.models.bert.modeling_bert import BertEmbeddings, BertSelfAttention

from relevance.configs import ShapeConfig
from relevance.models.base import Model


def attention() -> str:
    """The implementation of attention that trains fastest.

    Measured on 2 cores at 45 tokens: the fused one's backward pass takes a third of a step, five
    times what plain products take.
    """
    return "sdpa" if torch.cuda.is_available() else "eager"


def set_dropout(network: nn.Module, share: float) -> None:
    """Set every dropout of ``network``; drawing the masks costs a CPU a seventh of a step."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = share


def small_bert(shape: ShapeConfig, tokenizer: PreTrainedTokenizerBase) -> BertConfig:
    """Hugging Face's config of a BERT that we train from scratch.

    Weights start with deviation 1 / sqrt(hidden): BERT's 0.02 is meant for a width of 768, and at
    128 every layer would start as good as silent.
    """
    return BertConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=shape.hidden**-0.5,
    )


def start_by_matching(network: nn.Module) -> None:
    """Let every layer of an untrained BERT attend to equal words first.

    Keys start equal to queries and positions nearly silent, so that a title's word sees the same
    word of the query from the first step. Without it a small model spends its first tens of
    thousands of pairs on a plateau (``docs/experiments.md``).

    Source: Trockman & Kolter, "Mimetic initialization of self-attention layers", ICML 2023; we
    keep its idea of query and key, not its values.
    """
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, BertSelfAttention):
                module.key.weight.copy_(module.query.weight)
            elif isinstance(module, BertEmbeddings):
                module.position_embeddings.weight.mul_(0.1)


def bert_logits(network: Any, embedded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Logits of embedded rows. [rows]

    Args:
        network: Hugging Face's ``BertForSequenceClassification`` of one label.
        embedded: Input of its encoder. [rows, seq, hidden]
        mask: 1 where a token may be seen. [rows, seq]
    """
    state = first_state(network.bert.encoder, embedded, mask)  # [rows, hidden]
    pooled = network.bert.pooler(state[:, None])  # [rows, hidden]
    logits: torch.Tensor = network.classifier(network.dropout(pooled))  # [rows, 1]
    return logits[:, 0].float()


def first_state(encoder: Any, embedded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """State of the first token after the last layer. [pairs, hidden]

    Only that token feeds the head, so in the last layer it alone asks, and is fed forward: the
    same numbers for a quarter less work.

    Args:
        encoder: Hugging Face's ``BertEncoder``.
        embedded: Its input. [pairs, seq, hidden]
        mask: 1 where a token may be seen. [pairs, seq]
    """
    added = torch.zeros_like(mask, dtype=embedded.dtype)
    added = added.masked_fill(mask == 0, torch.finfo(embedded.dtype).min)[:, None, None, :]
    hidden = embedded
    for layer in encoder.layer[:-1]:
        hidden = layer(hidden, attention_mask=added)  # [pairs, seq, hidden]
    last = encoder.layer[-1]
    attend = last.attention.self
    heads, width = attend.num_attention_heads, attend.attention_head_size

    def split(states: torch.Tensor) -> torch.Tensor:
        return states.view(*states.shape[:2], heads, width).transpose(1, 2)

    first = hidden[:, :1]
    query = split(attend.query(first))  # [pairs, heads, 1, width]
    key = split(attend.key(hidden))  # [pairs, heads, seq, width]
    value = split(attend.value(hidden))
    weights = torch.softmax(query @ key.transpose(-1, -2) * width**-0.5 + added, dim=-1)
    seen = attend.dropout(weights) @ value  # [pairs, heads, 1, width]
    seen = seen.transpose(1, 2).reshape(first.shape)
    told = last.attention.output(seen, first)
    state: torch.Tensor = last.output(last.intermediate(told), told)
    return state[:, 0]


def cut(rows: Sequence[list[int]], most: int) -> list[list[int]]:
    """Each row's first values, ``most`` at most."""
    return [row[:most] for row in rows]


def pad(rows: Sequence[Sequence[int]], value: int, width: int = 0) -> torch.Tensor:
    """Rows padded on the right to the longest, or to ``width`` if that is more. [rows, seq]"""
    width = max(width, *(len(row) for row in rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def write_network(model: Model, checkpoint: Path) -> None:
    """Write a Hugging Face directory whose ``config.json`` also names our family."""
    model.network.save_pretrained(checkpoint)
    model.tokenizer.save_pretrained(checkpoint)
    path = checkpoint / "config.json"
    fields = json.loads(path.read_text())
    fields["querylift"] = {
        "family": model.family,
        "calibration": asdict(model.calibration) if model.calibration else None,
        **asdict(model.config),
    }
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
