"""What every family must do, over the table of families."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)
from transformers import BertConfig as BertShape

from relevance.data.pairs import Pair
from relevance.files import sha256
from relevance.inference import score_pairs
from relevance.models import FAMILIES, load, save
from relevance.models.base import DualEncoder, Model

WORDS = "red blue green steel cotton shirt lamp cable 12v 24v usb for men led phone case".split()
PAIRS = [
    Pair("red shirt", "cotton shirt red for men", 1.0),
    Pair("red shirt", "blue steel lamp", 0.0),
    Pair("usb cable", "usb cable for phone", 1.0),
    Pair("usb cable", "phone case", 0.0),
    Pair("12v lamp", "led lamp 12v steel", 1.0),
    Pair("12v lamp", "led lamp 24v steel", 0.0),
    Pair("phone case", "phone case for men blue", 1.0),
    Pair("phone case", "cotton shirt green", 0.0),
]


def tokenizer() -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    built = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    built.normalizer = BertNormalizer()
    built.pre_tokenizer = BertPreTokenizer()
    built.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=built, **dict(zip(names, special, strict=True)))


@pytest.fixture(params=sorted(FAMILIES))
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(0)
    shape = BertShape(
        vocab_size=len(tokenizer()),
        num_hidden_layers=2,
        hidden_size=32,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    built = FAMILIES[request.param]().build(shape, tokenizer())
    built.eval()
    return built


def scores(model: Model, pairs: list[Pair] = PAIRS) -> np.ndarray:
    return score_pairs(model, [p.query for p in pairs], [p.title for p in pairs])


def test_checkpoint_round_trips_to_the_same_scores(model: Model, tmp_path: Path) -> None:
    save(model, tmp_path / "checkpoint")
    again = load(tmp_path / "checkpoint")
    assert type(again) is type(model)
    np.testing.assert_array_equal(scores(again), scores(model))


def test_a_pair_scores_the_same_alone_and_in_a_batch(model: Model) -> None:
    together = scores(model)
    alone = np.concatenate([scores(model, [pair]) for pair in PAIRS])
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_every_family_overfits_eight_pairs(model: Model) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    batch = model.collate(PAIRS)
    for _ in range(150):
        loss = model.loss(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    order = scores(model)
    relevant = np.array([p.label for p in PAIRS]) == 1
    assert order[relevant].min() > order[~relevant].max()


def test_a_changed_byte_is_refused(model: Model, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    save(model, checkpoint)
    weights = bytearray((checkpoint / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (checkpoint / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=r"model\.safetensors: sha256 is .* want .*changed"):
        load(checkpoint)


def test_a_file_that_the_manifest_does_not_list_is_refused(model: Model, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    save(model, checkpoint)
    (checkpoint / "evil.py").write_text("")
    with pytest.raises(ValueError, match=r"evil\.py: not in manifest\.json"):
        load(checkpoint)


def test_a_checkpoint_is_never_overwritten(model: Model, tmp_path: Path) -> None:
    save(model, tmp_path / "checkpoint")
    with pytest.raises(FileExistsError, match="exists already"):
        save(model, tmp_path / "checkpoint")


def test_an_unknown_family_names_the_known_ones(model: Model, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    save(model, checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    config["querylift"]["family"] = "colbert"
    (checkpoint / "config.json").write_text(json.dumps(config))
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["config.json"] = sha256(checkpoint / "config.json")
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="'colbert' is unknown; there are bert, sbert"):
        load(checkpoint)


def test_cross_encoder_checkpoint_scores_the_same_in_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = BertShape(
        vocab_size=len(tokenizer()), num_hidden_layers=1, hidden_size=32, num_attention_heads=2
    )
    model = FAMILIES["bert"]().build(shape, tokenizer())
    model.eval()
    save(model, tmp_path / "checkpoint")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "checkpoint").eval()
    words = AutoTokenizer.from_pretrained(tmp_path / "checkpoint")
    for pair in PAIRS:
        batch = model.collate([pair])
        ids = [
            words.cls_token_id,
            *words(pair.query, add_special_tokens=False)["input_ids"],
            words.sep_token_id,
            *words(pair.title, add_special_tokens=False)["input_ids"],
            words.sep_token_id,
        ]
        assert batch["input_ids"][0].tolist() == ids
        with torch.inference_mode():
            logits = theirs(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                token_type_ids=batch["token_type_ids"],
            ).logits
        assert logits.item() == pytest.approx(scores(model, [pair])[0], abs=1e-5)


def test_dual_encoder_checkpoint_encodes_the_same_in_sentence_transformers(
    tmp_path: Path,
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    torch.manual_seed(0)
    shape = BertShape(
        vocab_size=len(tokenizer()), num_hidden_layers=1, hidden_size=32, num_attention_heads=2
    )
    model = FAMILIES["sbert"]().build(shape, tokenizer())
    model.eval()
    assert isinstance(model, DualEncoder)
    save(model, tmp_path / "checkpoint")
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "checkpoint"), device="cpu")
    titles = [pair.title for pair in PAIRS]
    with torch.inference_mode():
        ours = model.encode_items(titles).numpy()
    np.testing.assert_allclose(theirs.encode(titles), ours, atol=1e-5)


def test_dual_scores_are_scaled_cosines(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = BertShape(
        vocab_size=len(tokenizer()), num_hidden_layers=1, hidden_size=32, num_attention_heads=2
    )
    model = FAMILIES["sbert"]().build(shape, tokenizer())
    model.eval()
    with torch.inference_mode():
        cosine = (
            model.encode_queries([p.query for p in PAIRS])
            * model.encode_items([p.title for p in PAIRS])
        ).sum(-1)
        wanted = cosine * model.scale + model.offset
    np.testing.assert_allclose(scores(model), wanted.numpy(), atol=1e-5)


def test_no_checkpoint_holds_a_pickle(model: Model, tmp_path: Path) -> None:
    save(model, tmp_path / "checkpoint")
    suffixes = {path.suffix for path in (tmp_path / "checkpoint").rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".safetensors", ".txt"}
    assert isinstance(AutoModel.from_pretrained(tmp_path / "checkpoint"), torch.nn.Module)
