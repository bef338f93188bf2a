"""Pairs made from a catalogue without clicks."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from relevance.configs import WeakPairsConfig
from relevance.data.catalogue import catalogue_pairs, words_of
from relevance.data.pairs import query_key
from relevance.data.tables import TABLES, DatasetCard, write_card, write_table


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("catalogue") / "data"
    made.mkdir()
    products = [
        (f"p{i}", f"{brand} {colour} {kind} {unit}", None, kind, brand, [("volts", unit)])
        for i, (brand, colour, kind, unit) in enumerate(
            itertools.product(
                ("acme", "zenit"), ("red", "blue"), ("lamp", "kettle", "cable"), ("12v", "24v")
            )
        )
    ]
    queries = [("t", "red lamp", "train", "s", None), ("v", "blue kettle", "valid", "s", None)]
    for name, rows in {"products": products, "queries": queries}.items():
        schema = TABLES[name]
        columns = [
            pa.array(column, field.type)
            for column, field in zip(zip(*rows, strict=True), schema, strict=True)
        ]
        write_table(pa.table(columns, schema=schema), made, name)
    write_card(DatasetCard("tiny", is_generated=True, licence="none", settings={}), made)
    return made


def test_positives_carry_every_word_that_was_not_roughened(data: Path) -> None:
    pairs = catalogue_pairs(WeakPairsConfig(pairs=200), data, seed=0)
    positives = pairs[pairs["label"] == 1]
    whole = [
        set(words_of(query)) <= set(words_of(title))
        for query, title in zip(positives["query"], positives["title"], strict=True)
    ]
    assert len(positives) > 10
    assert np.mean(whole) > 0.75  # at most 15 % of queries are roughened


def test_no_negative_carries_every_facet(data: Path) -> None:
    pairs = catalogue_pairs(WeakPairsConfig(pairs=200), data, seed=0)
    negatives = pairs[pairs["label"] == 0]
    assert len(negatives) > 10
    for query, title in zip(negatives["query"], negatives["title"], strict=True):
        assert not set(words_of(query)) <= set(words_of(title)), (query, title)


def test_some_negatives_differ_in_nothing_but_a_unit(data: Path) -> None:
    pairs = catalogue_pairs(WeakPairsConfig(pairs=200), data, seed=0)
    negatives = pairs[pairs["label"] == 0]
    missing = [
        set(words_of(query)) - set(words_of(title))
        for query, title in zip(negatives["query"], negatives["title"], strict=True)
    ]
    assert any(words in ({"12v"}, {"24v"}) for words in missing)


def test_train_queries_get_unlabelled_candidates_and_other_splits_none(data: Path) -> None:
    pairs = catalogue_pairs(WeakPairsConfig(pairs=200), data, seed=0)
    unlabelled = pairs[pairs["label"].isna()]
    assert set(unlabelled["query_id"]) == {"t"}
    keys = {query_key(query) for query in pairs["query"]}
    assert query_key("blue kettle") not in keys


def test_the_same_seed_makes_the_same_pairs(data: Path) -> None:
    config = WeakPairsConfig(pairs=50)
    first, second = (catalogue_pairs(config, data, seed=5) for _ in range(2))
    assert first.equals(second)


def test_words_keep_units_and_per_cent_whole() -> None:
    assert words_of('USB-C 3.5mm 100% Cotton 24" 12V') == [
        "usb-c", "3.5mm", "100%", "cotton", '24"', "12v",
    ]  # fmt: skip
