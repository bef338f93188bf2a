"""Pairs from clicks: copies by depth, negatives that nobody clicked."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from relevance.configs import WeakPairsConfig
from relevance.data.clicks import click_pairs, core_terms
from relevance.data.tables import ACTIONS, TABLES, DatasetCard, write_card, write_table

DAY = 86_400_000
START = 1_700_000_000_000


def dataset(data: Path, events: list[tuple[str, str, str, int]]) -> Path:
    """``events`` are (query_id, item_id, action, day)."""
    data.mkdir()
    products = [
        (f"p{i}", f"{kind} number {i}", None, kind, None, [("core", kind)])
        for i, kind in enumerate(["lamp"] * 20 + ["shirt"] * 20)
    ]
    queries = [
        ("q1", "lamp number", "train", "s", 1),
        ("q2", "shirts big", "train", "s", 1),
        ("q3", "lamp held out", "test", "s", 1),
        ("q4", "lamp", "train", "s", 1),
        ("q5", "gift idea", "train", "s", 1),
    ]
    rows = [
        (f"e{i}", START + day * DAY, "u", f"s{i}", query, item, action, 1)
        for i, (query, item, action, day) in enumerate(events)
    ]
    for name, table in {"products": products, "queries": queries, "events": rows}.items():
        schema = TABLES[name]
        columns = [
            pa.array(column, field.type)
            for column, field in zip(zip(*table, strict=True), schema, strict=True)
        ]
        write_table(pa.table(columns, schema=schema), data, name)
    write_card(DatasetCard("tiny", is_generated=True, licence="none", settings={}), data)
    return data


@pytest.mark.parametrize(("action", "copies"), zip(ACTIONS, (1, 1, 2, 3, 5), strict=True))
def test_a_positive_is_copied_by_its_deepest_action(
    action: str, copies: int, tmp_path: Path
) -> None:
    data = dataset(tmp_path / "d", [("q1", "p0", "click", 0), ("q1", "p0", action, 0)])
    pairs = click_pairs(WeakPairsConfig(), data, seed=0)
    assert (pairs["label"] == 1).sum() == copies


def test_depth_counts_once_per_query_item_and_day(tmp_path: Path) -> None:
    days = [("q1", "p0", "order", 0), ("q1", "p0", "order", 0), ("q1", "p0", "pay", 1)]
    pairs = click_pairs(WeakPairsConfig(), dataset(tmp_path / "d", days), seed=0)
    assert (pairs["label"] == 1).sum() == 3 + 5


def test_impressions_alone_are_no_positive(tmp_path: Path) -> None:
    data = dataset(tmp_path / "d", [("q1", "p0", "click", 0), ("q1", "p1", "impression", 0)])
    pairs = click_pairs(WeakPairsConfig(negatives=0), data, seed=0)
    assert set(pairs["item_id"]) == {"p0"}


def test_queries_of_other_splits_give_no_pair(tmp_path: Path) -> None:
    data = dataset(tmp_path / "d", [("q3", "p0", "pay", 0), ("q1", "p1", "click", 0)])
    assert set(click_pairs(WeakPairsConfig(), data, seed=0)["query_id"]) == {"q1"}


def test_short_queries_and_those_without_a_core_term_are_filtered(tmp_path: Path) -> None:
    clicked = [(query, "p0", "click", 0) for query in ("q1", "q2", "q4", "q5")]
    data = dataset(tmp_path / "d", clicked)
    kept = click_pairs(WeakPairsConfig(min_query_words=2), data, seed=0)
    assert set(kept["query_id"]) == {"q1", "q2"}


def test_negatives_were_never_clicked_for_the_query(tmp_path: Path) -> None:
    clicked = [("q1", f"p{i}", "click", 0) for i in range(15)]
    data = dataset(tmp_path / "d", clicked)
    pairs = click_pairs(WeakPairsConfig(negatives=6), data, seed=0)
    positives = set(pairs.loc[pairs["label"] == 1, "item_id"])
    negatives = set(pairs.loc[pairs["label"] == 0, "item_id"])
    assert len(negatives) > 10
    assert positives.isdisjoint(negatives)


def test_half_of_the_negatives_share_the_category(tmp_path: Path) -> None:
    clicked = [("q2", f"p{i}", "click", 0) for i in range(20, 23)]
    data = dataset(tmp_path / "d", clicked)
    pairs = click_pairs(WeakPairsConfig(negatives=4), data, seed=0)
    titles = pairs.loc[pairs["label"] == 0, "title"]
    assert titles.str.startswith("shirt").sum() >= 3
    assert titles.str.startswith("lamp").any()


def test_a_log_without_a_usable_click_says_what_was_wanted(tmp_path: Path) -> None:
    data = dataset(tmp_path / "d", [("q3", "p0", "click", 0)])
    with pytest.raises(ValueError, match="no click on a known item by a train query of 1 words"):
        click_pairs(WeakPairsConfig(), data, seed=0)


def test_core_terms_come_with_plurals(tmp_path: Path) -> None:
    import pandas as pd

    catalogue = pd.DataFrame(
        {"attributes": [[("core", "desk lamp")]], "category": ["x"], "title": ["y"]}
    )
    assert {"desk", "lamp", "lamps"} <= core_terms(catalogue)
