"""BM25 and token overlap: formulas by hand, and real ratings where they are at hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from relevance.baselines import (
    FEATURES,
    Bm25,
    TokenOverlap,
    bm25_scores,
    overlap_features,
    words,
)
from relevance.data.tables import TABLES, write_table
from relevance.metrics import roc_auc

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"

TITLES = ["red lamp", "red desk lamp lamp", "blue chair", "12v led strip"]


def feature(query: str, title: str, name: str) -> float:
    return overlap_features([query], [title])[0, FEATURES.index(name)]


class TestWords:
    def test_case_and_punctuation_do_not_count(self):
        assert words("USB-C Cable, 2m (Weiß)") == ["usb", "c", "cable", "2m", "weiss"]

    def test_unspaced_scripts_give_a_word_a_character(self):
        assert words("iphone用ケース") == ["iphone", "用", "ケ", "ー", "ス"]


class TestBm25:
    def test_scores_are_the_formula_written_out(self):
        # N = 4 titles of 2, 4, 2 and 3 words, mean 11/4; lamp stands in 2 titles, red in 2
        k1, b, mean = 1.2, 0.75, 11 / 4
        idf = math.log(1 + (4 - 2 + 0.5) / (2 + 0.5))

        def term(tf: int, length: int) -> float:
            return idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / mean))

        expected = [term(1, 2) + term(1, 2), term(2, 4) + term(1, 4), 0, 0]
        got = Bm25.of(TITLES).score(["lamp red"] * 4, TITLES)
        assert got == pytest.approx(expected)

    def test_a_repeated_query_word_counts_twice(self):
        once, twice = Bm25.of(TITLES).score(["lamp", "lamp lamp"], [TITLES[0]] * 2)
        assert twice == pytest.approx(2 * once)

    def test_rare_words_weigh_more_and_none_is_negative(self):
        bm25 = Bm25.of(["a b"] * 99 + ["a c"])
        assert bm25.idf("c") > bm25.idf("b") > bm25.idf("a") > 0

    def test_counting_only_the_querys_words_changes_no_score(self):
        queries = ["red chair", "12v unseen"]
        full = Bm25.of(TITLES).score(queries * 2, TITLES)
        lean = Bm25.of(TITLES, {w for q in queries for w in words(q)}).score(queries * 2, TITLES)
        assert np.array_equal(full, lean)

    def test_empty_texts_score_zero(self):
        assert list(Bm25.of(TITLES).score(["", "lamp"], ["red lamp", ""])) == [0, 0]
        assert list(Bm25.of([""]).score(["lamp"], [""])) == [0]

    def test_an_empty_collection_raises(self):
        with pytest.raises(ValueError, match="collection has no titles"):
            Bm25.of([])

    def test_the_collection_is_the_datasets_products(self, tmp_path):
        rows = {name: [None] * len(TITLES) for name in TABLES["products"].names}
        rows |= {"item_id": list("abcd"), "title": TITLES}
        write_table(pa.table(rows, schema=TABLES["products"]), tmp_path, "products")
        got = bm25_scores(tmp_path, ["red"], ["red kettle"])
        assert got == Bm25.of(TITLES).score(["red"], ["red kettle"])


class TestFeatures:
    def test_shares_by_hand(self):
        query, title = "desk lamps black", "Table LAMP for the Desk-top, black"
        assert feature(query, title, "words") == pytest.approx(2 / 3)
        assert feature(query, title, "substrings") == pytest.approx(2 / 3)
        assert feature(query, title, "prefixes") == 1
        assert feature(query, title, "all_words") == 0
        assert feature("lamp desk", title, "all_words") == 1
        assert feature(query, title, "log_first_match") == pytest.approx(math.log1p(4))
        assert feature(query, title, "last_match") == pytest.approx(6 / 7)

    def test_spacing_variants_are_found_in_the_squashed_title(self):
        assert feature("bluetooth", "blue tooth speaker", "substrings") == 1
        assert feature("bluetooth", "blue tooth speaker", "words") == 0

    def test_numbers_agree_by_value_and_quantities_with_their_unit(self):
        assert feature("lamp 12v", "lamp 12 V", "numbers") == 1
        assert feature("lamp 12v", "lamp 12 V", "quantities") == 1
        assert feature("lamp 12v", "lamp 12 W", "numbers") == 1
        assert feature("lamp 12v", "lamp 12 W", "quantities") == 0
        assert feature("lamp 2v", "lamp 12v", "numbers") == 0
        assert feature("lamp", "lamp 12v", "has_number") == 0

    def test_no_words_or_no_match_give_finite_features(self):
        features = overlap_features(["", "!!", "lamp"], ["", "lamp", "!!"])
        assert np.isfinite(features).all()
        assert feature("!!", "lamp", "all_words") == 0


class TestTokenOverlap:
    def test_fitted_on_labels_it_learns_which_features_count(self):
        # here the first word decides, which equal weights cannot know
        queries = ["red lamp"] * 40
        titles = ["red chair", "blue lamp"] * 20
        model = TokenOverlap.fit(queries, titles, np.array([True, False] * 20))
        red, blue = model.score(["red lamp"] * 2, ["red table", "green lamp"])
        assert red > 0 > blue
        assert "fitted on 40 judged pairs of the train split, 20 relevant" in model.note

    @pytest.mark.parametrize("labels", [[], [True, True], [False]])
    def test_without_both_classes_it_is_the_mean_of_the_shares_and_says_so(self, labels):
        texts = ["lamp"] * len(labels)
        model = TokenOverlap.fit(texts, texts, np.array(labels, bool))
        assert list(model.score(["red lamp"] * 2, ["red lamp", "chair"])) == [1, 0]
        assert "not fitted" in model.note

    def test_equal_input_gives_equal_scores(self):
        queries, titles = ["red lamp", "chair"] * 20, TITLES * 10
        labels = np.arange(40) % 3 == 0
        first, again = (
            TokenOverlap.fit(queries, titles, labels).score(queries, titles) for _ in range(2)
        )
        assert np.array_equal(first, again)


@pytest.mark.parametrize(
    ("folder", "title", "grade", "low", "high"),
    [("chorus", "title", "rating", 0.75, 0.85), ("esci", "product_title", "grade", 0.68, 0.78)],
)
def test_on_real_ratings_overlap_is_strong(folder, title, grade, low, high):
    path = SHARED / folder / "pairs.parquet"
    if not path.exists():
        pytest.skip(f"{path}: the real data is not on this machine")
    pairs = pd.read_parquet(path)
    if "product_locale" in pairs:
        pairs = pairs[pairs["product_locale"] == "us"]
    train, valid = (pairs[pairs["split"] == split] for split in ("train", "valid"))
    model = TokenOverlap.fit(
        list(train["query"]), list(train[title]), (train[grade] >= 3).to_numpy()
    )
    relevant = (valid[grade] >= 3).to_numpy()
    area = roc_auc(relevant, model.score(list(valid["query"]), list(valid[title])))
    assert low < area < high
    bm25 = Bm25.of(pairs[title].drop_duplicates())
    assert 0.55 < roc_auc(relevant, bm25.score(list(valid["query"]), list(valid[title]))) < area
