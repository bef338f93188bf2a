"""What makes ei-SRC ei-SRC: its layouts, its term classes, its losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import BertConfig as BertShape
from transformers import PreTrainedTokenizerFast

from relevance.calibration import Calibration
from relevance.configs import (
    DistillConfig,
    FinetuneConfig,
    LossConfig,
    OptimConfig,
    RegulariserConfig,
    TermsConfig,
)
from relevance.data.pairs import Pair
from relevance.data.tagger import learn_terms
from relevance.manifest import MANIFEST, write_manifest
from relevance.models import family_config, load, save
from relevance.models.bert import BertConfig
from relevance.models.ei_src import EiSrc, EiSrcConfig

LAYOUTS = ("contiguous", "segments", "fixed")
WORDS = "red blue green black lamp shirt cable kettle 12v 24v 500ml acme zenit unknownword".split()
CLOSE = 1e-5


@pytest.fixture(scope="module")
def terms(clicked_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tiny") / "terms"
    learn_terms(TermsConfig(OptimConfig(steps=0)), clicked_data, made, seed=0)
    return made


@pytest.fixture(scope="module")
def tokenizer(vocabulary: Path) -> PreTrainedTokenizerFast:
    made: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(str(vocabulary))
    return made


def shape(tokenizer: PreTrainedTokenizerFast) -> BertShape:
    return BertShape(
        vocab_size=len(tokenizer),
        num_hidden_layers=3,
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,
    )


def build(
    tokenizer: PreTrainedTokenizerFast, layout: str = "contiguous", terms: Path | None = None
) -> EiSrc:
    torch.manual_seed(0)
    config = EiSrcConfig(layout=layout, has_terms=terms is not None)  # type: ignore[arg-type]
    model = config.build(shape(tokenizer), tokenizer, terms)
    if model.terms is not None:
        torch.nn.init.normal_(model.terms.weight[1:])
    model.eval()
    return model


@pytest.fixture(scope="module")
def models(tokenizer: PreTrainedTokenizerFast, terms: Path) -> dict[str, EiSrc]:
    return {layout: build(tokenizer, layout, terms) for layout in LAYOUTS}


def scores(model: EiSrc, pairs: list[Pair]) -> np.ndarray:
    with torch.inference_mode():
        return model.score(model.collate(pairs)).double().numpy()


texts = st.lists(st.sampled_from(WORDS), min_size=0, max_size=45).map(" ".join)
some_pairs = st.lists(st.builds(Pair, texts, texts), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(pairs=some_pairs)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pair_scores_the_same_alone_and_in_any_batch(
    models: dict[str, EiSrc], layout: str, pairs: list[Pair]
) -> None:
    model = models[layout]
    together = scores(model, pairs)
    alone = np.concatenate([scores(model, [pair]) for pair in pairs])
    backwards = scores(model, pairs[::-1])[::-1]
    assert together == pytest.approx(alone, abs=CLOSE)
    assert together == pytest.approx(backwards, abs=CLOSE)


@settings(max_examples=40, deadline=None)
@given(pairs=some_pairs)
def test_padding_to_the_maximum_changes_no_score(
    models: dict[str, EiSrc], tokenizer: PreTrainedTokenizerFast, pairs: list[Pair]
) -> None:
    model = models["contiguous"]
    batch = model.collate(pairs)
    rest = 55 - batch["input_ids"].shape[1]
    padded = {
        name: torch.nn.functional.pad(tensor, (0, rest)) if tensor.ndim == 2 else tensor
        for name, tensor in batch.items()
    }
    with torch.inference_mode():
        assert torch.allclose(model.score(batch), model.score(padded), atol=CLOSE, rtol=0)


@settings(max_examples=40, deadline=None)
@given(pairs=some_pairs)
def test_dynamic_length_of_either_kind_scores_as_the_fixed_one(
    models: dict[str, EiSrc], pairs: list[Pair]
) -> None:
    fixed = scores(models["fixed"], pairs)
    for layout in ("segments", "contiguous"):
        assert scores(models[layout], pairs) == pytest.approx(fixed, abs=CLOSE)
    assert models["fixed"].collate(pairs)["input_ids"].shape[1] == 16 + 36 + 3


def test_rows_are_contiguous_and_no_wider_than_the_longest(models: dict[str, EiSrc]) -> None:
    pairs = [Pair("red lamp", "red lamp 12v"), Pair("lamp", "blue lamp 24v acme")]
    mask = models["contiguous"].collate(pairs)["attention_mask"]
    longest = mask.sum(1).max()
    assert mask.shape[1] == longest
    assert (mask.diff(dim=1) <= 0).all()  # once padding starts it does not end


def test_positions_of_titles_do_not_depend_on_the_batch(models: dict[str, EiSrc]) -> None:
    for layout in LAYOUTS:
        batch = models[layout].collate([Pair("red", "lamp"), Pair("red blue lamp", "lamp")])
        first = batch["position_ids"][batch["token_type_ids"] == 1].min()
        assert first == 16 + 2


def test_an_encoder_of_too_few_positions_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    narrow = shape(tokenizer)
    narrow.max_position_embeddings = 40
    with pytest.raises(ValueError, match="take 55 positions, and the encoder has 40"):
        EiSrcConfig().build(narrow, tokenizer)


def test_padding_is_neither_seen_nor_taught(models: dict[str, EiSrc]) -> None:
    model = models["contiguous"]
    batch = model.collate([Pair("red", "lamp"), Pair("red lamp 12v", "red lamp 12v acme")])
    embedded = model.embed(batch).detach().requires_grad_()
    model.judge(embedded, batch["attention_mask"]).sum().backward()
    assert embedded.grad is not None
    gradient = embedded.grad.abs().sum(-1)
    assert (gradient[batch["attention_mask"] == 0] == 0).all()
    assert (gradient[batch["attention_mask"] == 1] > 0).all()


def test_without_terms_it_is_plain_bert(tokenizer: PreTrainedTokenizerFast, terms: Path) -> None:
    pairs = [Pair("red lamp", "red lamp 12v"), Pair("blue shirt", "acme kettle")]
    torch.manual_seed(0)
    bert = BertConfig().build(shape(tokenizer), tokenizer).eval()
    batch = bert.collate(pairs)
    # the same rows, but titles stand where the longest query would let them begin
    first = ((batch["token_type_ids"] == 0) * batch["attention_mask"]).sum(1, keepdim=True)
    places = torch.arange(batch["input_ids"].shape[1]).expand_as(batch["input_ids"])
    places = torch.where(batch["token_type_ids"] == 1, places + 18 - first, places)
    with torch.inference_mode():
        inputs = {k: v for k, v in batch.items() if k != "labels"}
        plain = bert.network(**inputs, position_ids=places).logits[:, 0].double().numpy()
    assert scores(build(tokenizer), pairs) == pytest.approx(plain, abs=1e-6)
    torch.manual_seed(0)
    untrained = EiSrcConfig(has_terms=True).build(shape(tokenizer), tokenizer, terms).eval()
    assert untrained.collate(pairs)["term_ids"].any()
    # the table is drawn after the network, so both have the same weights
    assert scores(untrained, pairs) == pytest.approx(scores(build(tokenizer), pairs), abs=1e-6)


def test_the_row_of_no_class_stays_at_zero(tokenizer: PreTrainedTokenizerFast, terms: Path) -> None:
    model = EiSrcConfig(has_terms=True).build(shape(tokenizer), tokenizer, terms)
    assert model.terms is not None
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        model.loss(model.collate([Pair("red lamp", "red lamp unknownword", 1.0)])).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert (model.terms.weight[0] == 0).all()
    assert (model.terms.weight[1:] != 0).any()


def test_term_classes_reach_every_piece_of_a_word(
    tokenizer: PreTrainedTokenizerFast, terms: Path
) -> None:
    model = build(tokenizer, terms=terms)
    batch = model.collate([Pair("kettle", "zenit red kettle")])
    tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][0])
    classes = dict(zip(tokens, batch["term_ids"][0].tolist(), strict=True))
    assert classes["kettle"] == 6
    assert classes["[CLS]"] == classes["[SEP]"] == 0
    assert all(len(batch[name][0]) == len(tokens) for name in ("term_ids", "word_ids"))
    pieces = [token.startswith("##") for token in tokens]
    words = batch["word_ids"][0]
    assert any(pieces)  # a brand is not in the vocabulary
    for place in np.flatnonzero(pieces):
        assert words[place] == words[place - 1]


def test_a_checkpoint_with_terms_round_trips(
    tokenizer: PreTrainedTokenizerFast, terms: Path, tmp_path: Path
) -> None:
    model = build(tokenizer, terms=terms)
    model.calibration = Calibration(2.0, -1.0)
    save(model, tmp_path / "checkpoint")
    again = load(tmp_path / "checkpoint")
    pairs = [Pair("red lamp", "red lamp 12v"), Pair("blue shirt", "acme kettle")]
    assert isinstance(again, EiSrc)
    # weights at other addresses may be added up in another order
    assert scores(again, pairs) == pytest.approx(scores(model, pairs), abs=1e-6)
    assert again.calibration == model.calibration


def test_a_term_table_that_does_not_fit_is_refused(
    tokenizer: PreTrainedTokenizerFast, terms: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint"
    save(build(tokenizer, terms=terms), checkpoint)
    table = load_file(checkpoint / "terms.safetensors")["weight"]
    save_file({"weight": table[:5].contiguous()}, checkpoint / "terms.safetensors")
    (checkpoint / MANIFEST).unlink()
    write_manifest(checkpoint)
    with pytest.raises(ValueError, match=r"terms\.safetensors: table of \(5, 32\), want \(7, 32\)"):
        load(checkpoint)


@pytest.mark.parametrize("family", ["bert", "sbert"])
def test_abilities_that_a_family_lacks_are_refused_by_name(family: str, encoder: Path) -> None:
    for setting in ({"has_terms": True}, {"layout": "fixed"}):
        name = next(iter(setting))
        with pytest.raises(ValueError, match=f"{name}=.*: family '{family}' has no {name}; ei_src"):
            family_config(FinetuneConfig(family=family, **setting))  # type: ignore[arg-type]
    model = family_config(FinetuneConfig(family=family)).start(encoder)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"family '{family}' has no heat, regulariser"):
        model.learn_by(LossConfig(regulariser=RegulariserConfig(name="cat")))


def test_terms_that_are_wanted_and_not_given_are_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(ValueError, match="has_terms: no terms are given"):
        family_config(DistillConfig(family="ei_src", has_terms=True)).build(
            shape(tokenizer), tokenizer
        )
    with pytest.raises(ValueError, match="word_drop: wants has_terms"):
        build(tokenizer).learn_by(LossConfig(word_drop=1.0))


def test_heat_scales_gradients_and_no_score(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build(tokenizer)
    batch = model.collate([Pair("red lamp", "red lamp 12v", 1.0)])
    cold = model.score(batch)
    model.learn_by(LossConfig(heat=(4.0, 0.5), heat_until=(0.5, 1.0)))
    assert (model.score(batch) == cold).all()
    for progress, heat in ((0.0, 4.0), (0.9, 0.5)):
        wanted = torch.nn.functional.softplus(-heat * cold).mean()
        assert torch.allclose(model.loss(batch, progress), wanted, rtol=1e-5)


def test_word_drop_hides_whole_words_without_a_class(
    tokenizer: PreTrainedTokenizerFast, terms: Path
) -> None:
    model = build(tokenizer, terms=terms)
    model.learn_by(LossConfig(word_drop=1.0, word_drop_share=1.0))
    title = "unknownword kettle"
    batch = model.collate([Pair("unknownword lamp", title)])
    kept = model._drop_words(batch)[0]
    title_words = batch["word_ids"][0] > 0
    has_class = batch["term_ids"][0] > 0
    assert (kept[~title_words] == batch["attention_mask"][0][~title_words]).all()
    assert (kept[title_words & has_class] == 1).all()
    assert (kept[title_words & ~has_class] == 0).all()
    assert (title_words & ~has_class).sum() > 1  # several pieces, all gone
    without = model.loss(batch)
    model.learn_by(LossConfig())
    assert float(without) > float(model.loss(batch))


def test_another_architecture_is_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    from transformers import RobertaConfig, RobertaModel

    small = RobertaConfig(
        vocab_size=100,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    RobertaModel(small).save_pretrained(tmp_path / "roberta")
    with pytest.raises(ValueError, match="want bert for ei_src"):
        EiSrcConfig().start(tmp_path / "roberta")
