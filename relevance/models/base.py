"""What the rest of the code knows of a model.

Abstract classes rather than ``typing.Protocol``: a model is also a ``torch.nn.Module``, and
Python's types cannot say "this module and that protocol".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from relevance.data.pairs import Pair

Batch = Mapping[str, torch.Tensor]


class Model(nn.Module, ABC):
    """Any family."""

    family: ClassVar[str]
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @abstractmethod
    def collate(self, pairs: Sequence[Pair]) -> Batch:
        """Tokenize ``pairs`` into one batch, padded to its longest row only."""

    @abstractmethod
    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean loss over the batch against its labels. []"""

    @abstractmethod
    def score(self, batch: Batch) -> torch.Tensor:
        """Raw scores (logits), higher is more relevant. [pairs]"""

    @abstractmethod
    def write(self, checkpoint: Path) -> None:
        """Write weights, config and tokenizer into an existing directory."""


class DualEncoder(Model):
    """Queries and items are encoded apart, so that items can be indexed."""

    @abstractmethod
    def encode_queries(self, queries: Sequence[str]) -> torch.Tensor:
        """Unit vectors. [queries, dim]"""

    @abstractmethod
    def encode_items(self, titles: Sequence[str]) -> torch.Tensor:
        """Unit vectors. [items, dim]"""

    @abstractmethod
    def compare(self, queries: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Raw scores of vectors side by side, each [pairs, dim]. [pairs]"""
