"""What the rest of the code knows of a model.

Abstract classes rather than ``typing.Protocol``: a model is also a ``torch.nn.Module``, and
Python's types cannot say "this module and that protocol".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from relevance.calibration import Calibration
from relevance.configs import LossConfig
from relevance.data.pairs import Pair
from relevance.models.speller import Speller

Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text in pieces."""

    ids: list[int]
    classes: list[int]
    """Term class of each piece; all 0 where the model has no terms."""
    words: list[int]
    """Number of the word that each piece belongs to."""


class Model(nn.Module, ABC):
    """Any family."""

    family: ClassVar[str]
    config: Any
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    speller: Speller
    """Of the tokenizer."""
    calibration: Calibration | None = None
    """Fitted on dev queries at the end of training; None where they could not tell."""

    @abstractmethod
    def collate(self, pairs: Sequence[Pair]) -> Batch:
        """Tokenize ``pairs`` into one batch, padded to its longest row only."""

    @abstractmethod
    def loss(self, batch: Batch, progress: float = 0.0) -> torch.Tensor:
        """Mean loss over the batch against its labels. []

        ``progress`` is the share of the stage's steps that are done, for schedules.
        """

    def learn_by(self, loss: LossConfig) -> None:
        """Choose the training loss.

        Raises:
            ValueError: This family cannot; most know plain cross-entropy alone.
        """
        if loss != LossConfig():
            raise ValueError(
                f"family {self.family!r} has no heat, regulariser or word drop; ei_src has"
            )

    @abstractmethod
    def score(self, batch: Batch) -> torch.Tensor:
        """Raw scores (logits), higher is more relevant. [pairs]"""

    @abstractmethod
    def write(self, checkpoint: Path) -> None:
        """Write weights, config and tokenizer into an existing directory."""


class CrossEncoder(Model):
    """Query and title share one sequence, ``[CLS] query [SEP] title [SEP]``."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """What ``score`` reads of a batch; each [pairs, seq]."""

    @property
    def middle(self) -> list[int]:
        """Special tokens between query and title."""
        return [int(self.tokenizer.sep_token_id)]

    @property
    def title_start(self) -> int | None:
        """Position of a title's first token; None where it stands right behind its query."""
        return None

    @abstractmethod
    def read(self, texts: Sequence[str], max_tokens: int) -> list[Tokens]:
        """Tokens of each text without special ones, cut to ``max_tokens``; nothing is kept."""


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
