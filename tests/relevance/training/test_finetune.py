"""Which examples each stage sees, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from relevance.configs import FinetuneConfig, OptimConfig, WeakPairsConfig
from relevance.data.pairs import judged_pairs, query_key
from relevance.models import load
from relevance.training.finetune import finetune, guided, judged_examples

OPTIM = OptimConfig(steps=2, batch_size=8, lr=1e-3, precision="fp32")
CONFIG = FinetuneConfig(weak=WeakPairsConfig(pairs=30), stage_a=OPTIM, stage_b=OPTIM)


def test_train_and_dev_share_no_query_and_leave_other_splits_alone(tiny_data: Path) -> None:
    train, dev = judged_examples(tiny_data, "train"), judged_examples(tiny_data, "dev")
    keys = [{query_key(query) for query in part["query"]} for part in (train, dev)]
    held_out = {
        query_key(query)
        for split in ("valid", "test")
        for query in judged_pairs(tiny_data, split)["query"]
    }
    assert len(dev)
    assert keys[0].isdisjoint(keys[1])
    assert held_out.isdisjoint(keys[0] | keys[1])


def test_labels_are_thirds_of_the_grade(tiny_data: Path) -> None:
    train = judged_examples(tiny_data, "train")
    np.testing.assert_allclose(train["label"] * 3, train["grade"])


def test_without_a_guide_unlabelled_pairs_are_left_out() -> None:
    pairs = pd.DataFrame({"query": ["a", "b"], "title": ["x", "y"], "label": [1.0, np.nan]})
    assert list(guided(pairs, None, 0.5)["label"]) == [1.0]


def test_a_guide_labels_what_has_none_and_softens_the_rest(
    tiny_data: Path, encoder: Path, tmp_path: Path
) -> None:
    finetune(CONFIG, tiny_data, encoder, tmp_path / "guide", seed=0)
    pairs = pd.DataFrame(
        {"query": ["red lamp"] * 2, "title": ["acme red lamp 12v"] * 2, "label": [1.0, np.nan]}
    )
    mixed = guided(pairs, tmp_path / "guide", 0.25)["label"].to_numpy()
    assert mixed[0] == pytest.approx(0.75 + 0.25 * mixed[1])
    assert 0 < mixed[1] < 1


def test_finetune_on_clicks_and_on_a_catalogue_ends_in_a_checkpoint(
    tiny_data: Path, clicked_data: Path, encoder: Path, tmp_path: Path
) -> None:
    for name, data in (("catalogue", tiny_data), ("clicked", clicked_data)):
        numbers = finetune(CONFIG, data, encoder, tmp_path / name, seed=0)
        assert numbers["bert-stage-a/steps"] == 2
        assert 0 <= numbers["bert-stage-b/valid"] <= 1
        assert load(tmp_path / name).family == "bert"


def test_frozen_words_stay_as_they_were(tiny_data: Path, encoder: Path, tmp_path: Path) -> None:
    config = FinetuneConfig(
        weak=CONFIG.weak, stage_a=OPTIM, stage_b=OPTIM, train_words=False, dropout=0.0
    )
    finetune(config, tiny_data, encoder, tmp_path / "frozen", seed=0)
    from safetensors.numpy import load_file

    name = "embeddings.word_embeddings.weight"
    before = load_file(encoder / "model.safetensors")[name]
    after = load_file(tmp_path / "frozen" / "model.safetensors")[f"bert.{name}"]
    np.testing.assert_array_equal(before, after)


def test_a_dataset_without_judgments_trains_on_stage_a_alone(
    tiny_data: Path, encoder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "unjudged"
    shutil.copytree(tiny_data, data)
    (data / "judgments.parquet").unlink()
    numbers = finetune(CONFIG, data, encoder, tmp_path / "checkpoint", seed=0)
    assert "bert-stage-b/steps" not in numbers


def test_an_existing_checkpoint_is_refused_before_any_work(
    tiny_data: Path, encoder: Path, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match="exists already"):
        finetune(CONFIG, tiny_data, encoder, tmp_path / "there", seed=0)


def test_a_loss_that_blows_up_says_so(tiny_data: Path, encoder: Path, tmp_path: Path) -> None:
    broken = OptimConfig(steps=20, batch_size=8, lr=1e30, clip=0.0, warmup=0.0, precision="fp32")
    config = FinetuneConfig(weak=CONFIG.weak, stage_a=broken, stage_b=OPTIM)
    with pytest.raises(ValueError, match=r"bert-stage-a: loss is .* at step .*; lower lr"):
        finetune(config, tiny_data, encoder, tmp_path / "nan", seed=0)
    assert not (tmp_path / "nan").exists()
