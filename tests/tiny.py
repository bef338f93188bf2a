"""A tiny dataset, vocabulary and encoder, made afresh, for training in seconds."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from relevance.data.tables import ACTIONS, TABLES, DatasetCard, write_card, write_table

COLOURS = ("red", "blue", "green", "black")
KINDS = ("lamp", "shirt", "cable", "kettle")
UNITS = ("12v", "24v", "500ml")
BRANDS = ("acme", "zenit")


def write_tiny_dataset(data: Path, *, with_events: bool) -> None:
    """96 products and 64 queries whose relevance follows from colour, kind and unit."""
    data.mkdir()
    products = [
        (f"p{i}", f"{brand} {colour} {kind} {unit}", None, kind, brand, [("colour", colour)])
        for i, (colour, kind, unit, brand) in enumerate(
            itertools.product(COLOURS, KINDS, UNITS, BRANDS)
        )
    ]
    asked = [
        (f"q{i}", f"{colour} {kind} {tail}".strip(), colour, kind, tail)
        for i, (colour, kind, tail) in enumerate(
            itertools.product(COLOURS, KINDS, ("", "12v", "acme", "24v"))
        )
    ]
    splits = np.resize(["train", "train", "train", "train", "train", "valid", "test"], len(asked))
    queries = [
        (query_id, query, split, "tiny", 10)
        for (query_id, query, *_), split in zip(asked, splits, strict=True)
    ]
    rng = np.random.default_rng(0)
    judgments, events = [], []
    for query_id, _, colour, kind, tail in asked:
        for row in rng.choice(len(products), size=12, replace=False):
            title = products[row][1]
            same_kind, same_colour = kind in title, colour in title
            grade = 3 if same_kind and same_colour and tail in title else int(same_kind)
            judgments.append((query_id, f"p{row}", grade, None))
            search = f"s-{query_id}"
            stamp = 1_700_000_000_000 + len(events)
            shown = (stamp, "u1", search, query_id, f"p{row}")
            events.append((f"e{len(events)}", *shown, "impression", 1))
            if grade == 3:
                action = ACTIONS[int(rng.integers(len(ACTIONS)))]
                events.append((f"e{len(events)}", *shown, "click", 1))
                if action != "click":
                    events.append((f"e{len(events)}", *shown, action, 1))
    tables = {"queries": queries, "products": products, "judgments": judgments}
    if with_events:
        tables["events"] = events
    for name, rows in tables.items():
        schema = TABLES[name]
        columns = [
            pa.array(column, field.type)
            for column, field in zip(zip(*rows, strict=True), schema, strict=True)
        ]
        write_table(pa.table(columns, schema=schema), data, name)
    write_card(DatasetCard("tiny", is_generated=True, licence="none", settings={}), data)


def write_tiny_vocabulary(vocabulary: Path) -> None:
    """A vocabulary directory as ``extend_vocabulary`` writes it, of the dataset's words."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(97, 123)]
    # brands are left out, so that there are words to split
    words = [*COLOURS, *KINDS, *UNITS, *letters, *(f"##{letter}" for letter in letters)]
    built = Tokenizer(
        WordPiece({w: i for i, w in enumerate([*special, *words])}, unk_token="[UNK]")
    )
    built.normalizer = BertNormalizer()
    built.pre_tokenizer = BertPreTokenizer()
    built.decoder = decoders.WordPiece()
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=built, **dict(zip(names, special, strict=True))
    )
    tokenizer.save_pretrained(vocabulary)
    tokenizer.save_pretrained(vocabulary / "base")
    (vocabulary / "encoder.json").write_text(json.dumps({"encoder": ""}))


def write_tiny_encoder(vocabulary: Path, encoder: Path) -> None:
    """A random BERT of two layers with that vocabulary."""
    torch.manual_seed(0)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(vocabulary))
    shape = BertConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=2,
        hidden_size=32,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(shape).save_pretrained(encoder)
    tokenizer.save_pretrained(encoder)
