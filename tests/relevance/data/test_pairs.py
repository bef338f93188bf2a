"""Keys of query variants, splits by hash, and judged pairs."""

import random
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relevance.data.pairs import assign_split, judged_pairs, query_key
from relevance.data.splits import TEST_SHARE, VALID_SHARE
from relevance.data.tables import TABLES, write_table

WORDS = st.text("abcdefghijklmnopqrstuvwxyzéüñ0123456789", min_size=1, max_size=8)
QUERIES = st.lists(WORDS, min_size=1, max_size=5)


@settings(deadline=None)
@given(QUERIES, st.randoms(use_true_random=False))
def test_spacing_hyphens_case_and_order_do_not_change_the_key(
    words: list[str], rng: random.Random
) -> None:
    key = query_key(" ".join(words))
    for join in ("", "-", "  ", " / ", "'", "’", "_", ", "):
        assert query_key(join.join(words)) == key
    assert query_key(" ".join(words).upper()) == key
    assert query_key(" ".join(rng.sample(words, len(words)))) == key
    letters = " ".join(words)
    cut = rng.randrange(len(letters) + 1)
    assert query_key(f" {letters[:cut]} {letters[cut:]} ") == key


@settings(deadline=None)
@given(QUERIES, st.integers(min_value=0))
def test_a_plural_of_any_word_does_not_change_the_key(words: list[str], at: int) -> None:
    at %= len(words)
    word = words[at]
    plurals = [word + "s", word + "es", word + "'s"]
    if word.endswith("y"):
        plurals.append(word[:-1] + "ies")
    if word.endswith("f"):
        plurals.append(word[:-1] + "ves")
    for plural in plurals:
        for join in (" ", ""):
            variant = join.join([*words[:at], plural, *words[at + 1 :]])
            assert query_key(variant) == query_key(" ".join(words))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dress", "dresses"),
        ("box", "boxes"),
        ("shoe", "shoes"),
        ("glass", "glasses"),
        ("bus", "buses"),
        ("battery", "batteries"),
        ("hair tie", "hairties"),
        ("knife", "knives"),
        ("men's perfume", "man perfumes"),
        ("dress for women", "dresses for woman"),
        ("blue tooth speakers", "bluetooth speaker"),
        ("phone case", "phonecases"),
        ("kids shoes", "kidsshoe"),
        ("t-shirt", "T Shirts"),
        ("sillón", "sillones"),
        ("café", "cafe"),
        ("USB", "ｕｓｂ"),
        ("straße", "strasse"),
        ("memory foam queen mattress", "queen memory foam mattress"),
        ("ender3", "ender 3"),
        ("s", "es"),
        ("  ", ""),
    ],
)
def test_variants_share_a_key_and_so_a_split(one: str, other: str) -> None:
    assert query_key(one) == query_key(other)
    assert assign_split(one) == assign_split(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("12v lamp", "24v lamp"), ("lamp", "clamp"), ("ipad", "ipod"), ("!", "?"), ("", "s")],
)
def test_different_queries_have_different_keys(one: str, other: str) -> None:
    assert query_key(one) != query_key(other)


def test_splits_have_their_shares() -> None:
    count = 20_000
    found = Counter(assign_split(f"query number {i}") for i in range(count))
    # keys repeat (12 and 21 share one), so the spread is wider than a binomial's
    assert found["test"] / count == pytest.approx(TEST_SHARE, abs=0.02)
    assert found["valid"] / count == pytest.approx(VALID_SHARE, abs=0.02)


def test_splits_of_distinct_keys_are_uniform() -> None:
    """Five standard deviations of a binomial with 17,576 keys."""
    letters = "bcdfghijklmnopqrtuwxz"
    keys = {query_key(a * 3 + b * 2 + c) for a in letters for b in letters for c in letters}
    found = Counter(assign_split(key) for key in keys)
    deviation = (0.15 * 0.85 / len(keys)) ** 0.5
    for split in ("valid", "test"):
        assert abs(found[split] / len(keys) - 0.15) < 5 * deviation


def test_frozen_splits_stay() -> None:
    """Moving a query between splits would leak it into models trained before."""
    frozen = {
        "desk lamp": "valid",
        "water bottle": "train",
        "bluetooth speaker": "train",
        "12v": "train",
        "充電器": "valid",
        "yoga mat": "test",
    }
    assert {query: assign_split(query) for query in frozen} == frozen


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    judgments = pd.DataFrame(
        [
            ("q1", "b", 3, None),
            ("q1", "b", 0, "rater1"),
            ("q1", "a", 3, "rater1"),
            ("q1", "a", 2, "rater2"),
            ("q2", "a", 1, None),
        ],
        columns=["query_id", "item_id", "grade", "rater"],
    )
    queries = pd.DataFrame(
        {
            "query_id": ["q1", "q2", "q3"],
            "query": ["lamp", "bed", "mat"],
            "split": ["train", "test", "test"],
            "source": "shop",
            "searches": [1, None, 2],
        }
    )
    products = pd.DataFrame({"item_id": ["a", "b"], "title": ["A", "B"], "category": [None, "c"]})
    products[["description", "brand", "attributes"]] = None
    for name, rows in (("judgments", judgments), ("queries", queries), ("products", products)):
        write_table(pa.Table.from_pandas(rows, TABLES[name], preserve_index=False), tmp_path, name)
    return tmp_path


def test_the_consensus_beats_the_mean_of_raters(dataset: Path) -> None:
    pairs = judged_pairs(dataset)
    assert list(zip(pairs["query_id"], pairs["item_id"], pairs["grade"], strict=True)) == [
        ("q1", "a", 2.5),
        ("q1", "b", 3.0),
        ("q2", "a", 1.0),
    ]
    assert list(pairs.columns) == [
        *("query_id", "item_id", "grade", "query", "split", "source", "searches"),
        *("title", "category"),
    ]


def test_pairs_of_one_split_only(dataset: Path) -> None:
    assert list(judged_pairs(dataset, "test")["query"]) == ["bed"]
    assert judged_pairs(dataset, "valid").empty


def test_pairs_without_judgments_say_which_file_is_missing(dataset: Path) -> None:
    (dataset / "judgments.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"judgments\.parquet: missing"):
        judged_pairs(dataset)
