"""Tiny checkpoints of every kind that can be served, of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer
from transformers import BertConfig as BertShape

from relevance.configs import OptimConfig, TermsConfig
from relevance.data.tagger import learn_terms
from relevance.models import save
from relevance.models.bert import BertConfig
from relevance.models.ei_src import EiSrcConfig
from relevance.models.sbert import SbertConfig
from tests.relevance.training.test_pretrain import write_roberta

KINDS = ("bert", "roberta", "ei_src", "ei_src-terms", "sbert")


def write_checkpoint(kind: str, out: Path, vocabulary: Path, data: Path) -> None:
    """Write the checkpoint ``out`` of one of ``KINDS``, with what it takes beside it."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(str(vocabulary))
    shape = BertShape(
        vocab_size=len(tokenizer),
        num_hidden_layers=2,
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        # scores that differ
        initializer_range=0.2,
    )
    if kind == "roberta":
        write_roberta(out.with_name("named"))
        model: Any = BertConfig().start(out.with_name("named"))
    elif kind == "ei_src-terms":
        terms = out.with_name("terms")
        learn_terms(TermsConfig(OptimConfig(steps=0)), data, terms, seed=0)
        model = EiSrcConfig(has_terms=True).build(shape, tokenizer, terms)
        torch.nn.init.normal_(model.terms.weight[1:])
    else:
        config = {"bert": BertConfig, "ei_src": EiSrcConfig, "sbert": SbertConfig}[kind]()
        model = config.build(shape, tokenizer)
    save(model.eval(), out)
