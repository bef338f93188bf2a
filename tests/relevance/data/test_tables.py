"""Schemas, cards, hashes and merged datasets."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from relevance.data.readers import import_dataset
from relevance.data.tables import (
    TABLES,
    DatasetCard,
    check_schema,
    data_hash,
    merge,
    open_table,
    read_card,
    read_table,
    table_path,
    write_card,
    write_table,
)

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "tests" / "fixtures"


def dataset(data: Path, queries: Sequence[tuple[str, str]], *, events: bool = False) -> Path:
    """A dataset named as its directory, of (query, split) rows with one judged product."""
    data.mkdir()
    name = data.name
    ids = [f"{name}:{i}" for i in range(len(queries))]
    rows = {
        "queries": [
            {"query_id": i, "query": query, "split": split, "source": name}
            for i, (query, split) in zip(ids, queries, strict=True)
        ],
        "products": [{"item_id": f"{name}:p", "title": "T", "attributes": {"color": "red"}}],
        "judgments": [{"query_id": i, "item_id": f"{name}:p", "grade": 3} for i in ids],
    }
    if events:
        rows["events"] = [
            {
                "event_id": f"e{i}",
                "timestamp": pd.Timestamp("2025-01-01", tz="UTC"),
                "unit_id": "u",
                "search_id": "s",
                "query_id": i,
                "item_id": f"{name}:p",
                "action": "click",
            }
            for i in ids
        ]
    for table, found in rows.items():
        write_table(pa.Table.from_pylist(found, TABLES[table]), data, table)
    write_card(DatasetCard(name, False, f"licence of {name}", {"seed": 1}), data)
    return data


def test_tables_come_back_as_written(tmp_path: Path) -> None:
    data = dataset(tmp_path / "one", [("lamp", "train")])
    products = read_table(data, "products")
    assert products.schema.equals(TABLES["products"])
    assert products["attributes"].to_pylist() == [[("color", "red")]]
    assert read_table(data, "queries", ["query"]).to_pylist() == [{"query": "lamp"}]


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_other_writers_of_text_are_accepted(kind: pa.DataType) -> None:
    wanted = pa.schema([("query", pa.string())])
    check_schema("file", pa.schema([("query", kind)]), wanted)


def test_maps_of_other_writers_are_accepted_but_not_of_other_types() -> None:
    wanted = TABLES["products"].field("attributes")
    for kind in (pa.map_(pa.large_string(), pa.large_string()), pa.map_(pa.string(), pa.string())):
        check_schema("file", pa.schema([("attributes", kind)]), pa.schema([wanted]))
    for kind in (pa.map_(pa.string(), pa.int64()), pa.string(), pa.list_(pa.string())):
        with pytest.raises(ValueError, match=r"file: column 'attributes' is .*, want map<string"):
            check_schema("file", pa.schema([("attributes", kind)]), pa.schema([wanted]))


def test_wrong_columns_are_named(tmp_path: Path) -> None:
    data = dataset(tmp_path / "one", [("lamp", "train")])
    path = table_path(data, "queries")
    rows = pq.read_table(path)
    pq.write_table(rows.drop_columns(["split"]), path)
    with pytest.raises(ValueError, match=r"queries\.parquet: no column 'split' \(string\); it has"):
        open_table(data, "queries")
    typed = rows.set_column(1, "query", pa.array([7]))
    pq.write_table(typed, path)
    with pytest.raises(ValueError, match=r"queries\.parquet: column 'query' is int64, want string"):
        open_table(data, "queries")


def test_missing_and_broken_tables_are_named(tmp_path: Path) -> None:
    data = dataset(tmp_path / "one", [("lamp", "train")])
    with pytest.raises(FileNotFoundError, match=r"events\.parquet: missing; a dataset holds quer"):
        read_table(data, "events")
    table_path(data, "products").write_text("no Parquet")
    with pytest.raises(ValueError, match=r"products\.parquet: not a readable Parquet file"):
        read_table(data, "products")


def test_cards_come_back_as_written_and_broken_ones_are_refused(tmp_path: Path) -> None:
    card = DatasetCard("é", True, "MIT", {"seed": 1, "share": 0.5, "is_big": False, "kind": "x"})
    write_card(card, tmp_path)
    assert read_card(tmp_path) == card
    path = tmp_path / "dataset.json"
    for text in ("", "[]", '{"name": "x"}', '{"title": "x"}', "7"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"dataset\.json: .*want a JSON object with name, is_"):
            read_card(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="make a dataset with `querylift import`"):
        read_card(tmp_path)


def test_the_hash_of_the_data_sees_every_table_and_the_card(tmp_path: Path) -> None:
    one = dataset(tmp_path / "one", [("lamp", "train")])
    first = data_hash(one)
    copy = Path(shutil.copytree(one, tmp_path / "copy"))
    assert data_hash(copy) == first
    (copy / "note.txt").write_text("not data")
    assert data_hash(copy) == first
    for change in ("judgments.parquet", "dataset.json"):
        (copy / change).write_bytes((copy / change).read_bytes() + b"\n")
        assert data_hash(copy) != first
        shutil.copy(one / change, copy / change)


def test_merging_keeps_every_row_and_the_cards(tmp_path: Path) -> None:
    one = dataset(tmp_path / "one", [("lamp", "train"), ("bed", "test")])
    two = dataset(tmp_path / "two", [("mat", "valid")], events=True)
    merge([one, two], tmp_path / "both")
    both = tmp_path / "both"
    assert read_table(both, "queries")["query_id"].to_pylist() == ["one:0", "one:1", "two:0"]
    assert read_table(both, "products")["item_id"].to_pylist() == ["one:p", "two:p"]
    assert read_table(both, "judgments").num_rows == 3
    assert read_table(both, "events").num_rows == 1
    card = read_card(both)
    assert card.name == "one+two"
    assert card.licence == "licence of one; licence of two"
    assert card.settings == {"one.seed": 1, "two.seed": 1, "merge.queries_dropped": 0}


def test_a_table_of_one_source_is_linked_not_copied(tmp_path: Path) -> None:
    one = dataset(tmp_path / "one", [("lamp", "train")])
    two = dataset(tmp_path / "two", [("mat", "valid")], events=True)
    merge([one, two], tmp_path / "both")
    assert (tmp_path / "both" / "events.parquet").samefile(two / "events.parquet")
    merge([one], tmp_path / "alone")
    assert (tmp_path / "alone" / "queries.parquet").samefile(one / "queries.parquet")


def test_merging_drops_what_another_source_holds_out(tmp_path: Path) -> None:
    one = dataset(tmp_path / "one", [("Desk lamps", "train"), ("bed", "test")], events=True)
    two = dataset(tmp_path / "two", [("desklamp", "valid"), ("beds", "valid"), ("mat", "train")])
    merge([one, two], tmp_path / "both")
    both = tmp_path / "both"
    left = ["one:1", "two:0", "two:2"]
    assert read_table(both, "queries")["query_id"].to_pylist() == left
    assert read_table(both, "judgments")["query_id"].to_pylist() == left
    assert read_table(both, "events")["query_id"].to_pylist() == ["one:1"]
    assert read_card(both).settings["merge.queries_dropped"] == 2


def test_a_leak_within_a_source_is_left_for_the_validation(tmp_path: Path) -> None:
    one = dataset(tmp_path / "one", [("lamp", "train"), ("lamps", "test")])
    two = dataset(tmp_path / "two", [("mat", "train")])
    for sources in ([one], [one, two]):
        out = tmp_path / f"out{len(sources)}"
        merge(sources, out)
        assert read_table(out, "queries").num_rows == len(sources) + 1


def test_merging_needs_whole_datasets(tmp_path: Path) -> None:
    one = dataset(tmp_path / "one", [("lamp", "train")])
    two = dataset(tmp_path / "two", [("mat", "train")])
    table_path(two, "products").unlink()
    with pytest.raises(FileNotFoundError, match=r"two/products\.parquet: missing"):
        merge([one, two], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"none/dataset\.json: missing"):
        merge([one, tmp_path / "none"], tmp_path / "out")
    with pytest.raises(ValueError, match="no dataset to merge"):
        merge([], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_imported_layouts_merge_without_a_collision(tmp_path: Path) -> None:
    layouts = ["esci", "wands", "chorus", "ubi"]
    for layout in layouts:
        import_dataset(layout, FIXTURES / layout, tmp_path / layout)
    merge([tmp_path / layout for layout in layouts], tmp_path / "all")
    queries = read_table(tmp_path / "all", "queries").to_pandas()
    products = read_table(tmp_path / "all", "products").to_pandas()
    judgments = read_table(tmp_path / "all", "judgments").to_pandas()
    assert queries["query_id"].is_unique
    assert products["item_id"].is_unique
    assert set(judgments["query_id"]) <= set(queries["query_id"])
    # the same texts stand in all four, and each is in one split now
    assert queries.groupby("query")["split"].nunique().max() == 1
