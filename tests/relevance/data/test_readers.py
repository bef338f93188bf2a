"""Imports of the four public layouts: what is kept, and what is refused."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from relevance.data.pairs import judged_pairs
from relevance.data.readers import READERS, import_dataset
from relevance.data.readers.placing import place
from relevance.data.readers.source import MAX_TEXT_BYTES
from relevance.data.splits import most_held_out, query_key
from relevance.data.tables import TABLES, data_hash, has_table, open_table, read_card, table_path

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "tests" / "fixtures"
EXAMPLES = "shopping_queries_dataset_examples.parquet"
PRODUCTS = "shopping_queries_dataset_products.parquet"


def table(data: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(table_path(data, name))


@pytest.fixture
def source(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a fixture that a test may damage."""
    return lambda layout: Path(shutil.copytree(FIXTURES / layout, tmp_path / layout))


@pytest.mark.parametrize("layout", READERS)
def test_every_table_keeps_its_schema_and_its_references(layout: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    import_dataset(layout, FIXTURES / layout, out)
    for name in TABLES:
        if has_table(out, name):
            assert open_table(out, name).schema_arrow.equals(TABLES[name])
    queries, products = table(out, "queries"), table(out, "products")
    assert queries["query_id"].is_unique
    assert products["item_id"].is_unique
    for name in ("events", "judgments"):
        if has_table(out, name):
            assert set(table(out, name)["query_id"]) <= set(queries["query_id"])
            assert set(table(out, name)["item_id"]) <= set(products["item_id"])
    assert read_card(out).settings["layout"] == layout
    assert not read_card(out).is_generated


@pytest.mark.parametrize("layout", READERS)
def test_no_query_has_a_variant_in_another_split(layout: str, tmp_path: Path) -> None:
    import_dataset(layout, FIXTURES / layout, tmp_path / "out")
    queries = table(tmp_path / "out", "queries")
    keys = queries["query"].map(query_key)
    assert queries.groupby(keys)["split"].nunique().max() == 1


@pytest.mark.parametrize("layout", READERS)
def test_the_same_source_gives_the_same_bytes(layout: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        import_dataset(layout, FIXTURES / layout, tmp_path / name)
    assert data_hash(tmp_path / "one") == data_hash(tmp_path / "two")


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*/*")), ids=lambda path: path.name)
def test_fixtures_are_small(path: Path) -> None:
    assert path.stat().st_size < 20_000


def test_esci_labels_become_grades(tmp_path: Path) -> None:
    import_dataset("esci", FIXTURES / "esci", tmp_path / "out")
    given = pd.read_parquet(FIXTURES / "esci" / EXAMPLES)
    given = given[given["query_id"] == 105]
    wanted = dict(zip("esci-us:" + given["product_id"], given["esci_label"], strict=True))
    judgments = table(tmp_path / "out", "judgments")
    found = judgments[judgments["query_id"] == "esci-us:105"]
    grades = dict(zip(found["item_id"], found["grade"], strict=True))
    assert grades == {item: "ICSE".index(label) for item, label in wanted.items()}


def test_esci_products_carry_their_texts(tmp_path: Path) -> None:
    import_dataset("esci", FIXTURES / "esci", tmp_path / "out")
    item = table(tmp_path / "out", "products").set_index("item_id").loc["esci-us:P001"]
    assert item["title"] == "Tarnwell Desk Lamp, red, large"
    assert item["description"].split() == "A desk lamp you will keep. Size: large".split()
    assert item["brand"] == "Tarnwell"
    assert item["attributes"] == [("color", "red")]


@pytest.mark.parametrize("locale", ["us", "es", "jp", "all"])
def test_esci_joins_on_product_and_locale(locale: str, tmp_path: Path) -> None:
    import_dataset("esci", FIXTURES / "esci", tmp_path / "out", locale=locale)
    pairs = judged_pairs(tmp_path / "out")
    wanted = {"us", "es", "jp"} if locale == "all" else {locale}
    assert set(pairs["source"]) == {f"esci-{name}" for name in wanted}
    for name in wanted - {"us"}:
        assert pairs.loc[pairs["source"] == f"esci-{name}", "title"].str.startswith(name).all()


def test_esci_keeps_its_test_set_whole_and_drops_what_leaks_into_it(tmp_path: Path) -> None:
    import_dataset("esci", FIXTURES / "esci", tmp_path / "out")
    queries = table(tmp_path / "out", "queries").set_index("query_id")
    assert set(queries.index[queries["split"] == "test"]) == {
        f"esci-us:{i}" for i in (100, 101, 102)
    }
    assert "esci-us:140" not in queries.index
    given = pd.read_parquet(FIXTURES / "esci" / EXAMPLES)
    official = given[(given["split"] == "test") & (given["product_locale"] == "us")]
    pairs = judged_pairs(tmp_path / "out", "test")
    assert sorted(pairs["item_id"].str[8:]) == sorted(official["product_id"])
    assert read_card(tmp_path / "out").settings["queries_dropped"] == 1
    assert read_card(tmp_path / "out").settings["judgments_dropped"] == 2


def test_esci_rows_outside_the_large_version_are_left_out(
    source: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = source("esci")
    edit(folder / EXAMPLES, lambda rows: rows.assign(large_version=(rows["query_id"] < 105) * 1))
    import_dataset("esci", folder, tmp_path / "out")
    assert len(table(tmp_path / "out", "queries")) == 5


def test_wands_labels_become_grades_and_the_better_of_two_stays(tmp_path: Path) -> None:
    import_dataset("wands", FIXTURES / "wands", tmp_path / "out")
    judgments = table(tmp_path / "out", "judgments")
    assert not judgments.duplicated(["query_id", "item_id"]).any()
    first = judgments[judgments["query_id"] == "wands:0"]
    assert list(first["grade"]) == [3, 2, 2, 0]
    assert read_card(tmp_path / "out").settings["labels_doubled"] == 1


def test_wands_quotes_line_breaks_and_features_are_read(tmp_path: Path) -> None:
    import_dataset("wands", FIXTURES / "wands", tmp_path / "out")
    products = table(tmp_path / "out", "products").set_index("item_id")
    assert products.loc["wands:0", "title"] == 'Northfold Desk Lamp, red, small, 5"'
    assert products.loc["wands:1", "description"] == "A desk lamp.\nBuilt to last."
    # no class: the last step of the hierarchy
    assert products.loc["wands:0", "category"] == "Desk Lamp"
    assert dict(products.loc["wands:0", "attributes"]) == {"color": "red, matte", "size": "small"}


def test_chorus_ratings_keep_their_raters_and_splits(tmp_path: Path) -> None:
    import_dataset("chorus", FIXTURES / "chorus", tmp_path / "out")
    judgments = table(tmp_path / "out", "judgments")
    given = pd.read_parquet(FIXTURES / "chorus" / "pairs.parquet")
    assert judgments["rater"].isna().sum() == len(given)
    assert judgments["rater"].value_counts().to_dict() == {
        rater: given[rater].notna().sum() for rater in ("rater1", "rater2", "rater3")
    }
    queries = table(tmp_path / "out", "queries")
    assert dict(zip(queries["query"], queries["split"], strict=True)) == dict(
        zip(given["query"], given["split"], strict=True)
    )


def test_chorus_texts_lose_markup_and_attributes_their_prefix(tmp_path: Path) -> None:
    import_dataset("chorus", FIXTURES / "chorus", tmp_path / "out")
    products = table(tmp_path / "out", "products").set_index("item_id")
    assert products.loc["chorus:P001", "description"] == "desk lamp large & light"
    assert products.loc["chorus:P001", "category"] == "desk lamp"
    assert products.loc["chorus:P001", "brand"] == "Tarnwell"
    assert dict(products.loc["chorus:P001", "attributes"]) == {
        "product colour": "red",
        "operating temperature t t": "0 - 40 °C",
        "weight": "2",
    }
    assert dict(products.loc["chorus:P000", "attributes"])["dimmable"] == "yes"


def test_ubi_events_get_our_actions_positions_and_searches(tmp_path: Path) -> None:
    import_dataset("ubi", FIXTURES / "ubi", tmp_path / "out")
    events = table(tmp_path / "out", "events")
    given = pd.read_parquet(FIXTURES / "ubi" / "events.parquet")
    counts = events["action"].value_counts()
    assert counts["order"] == (given["action_name"] == "purchase").sum()
    assert counts["impression"] == (given["action_name"] == "impression").sum()
    assert events["position"].min() == 1
    assert events.groupby("search_id")["query_id"].nunique().max() == 1
    # clicks carry no text in this log: they have that of their search
    clicks = events[events["action"] == "click"]
    assert len(clicks) == (given["action_name"] == "click").sum() - 1
    assert read_card(tmp_path / "out").settings["events_without_query_or_product"] == 1


def test_ubi_searches_count_each_query_id_once(tmp_path: Path) -> None:
    import_dataset("ubi", FIXTURES / "ubi", tmp_path / "out")
    queries = table(tmp_path / "out", "queries").set_index("query")
    assert queries.loc["red desk lamp", "searches"] == 1
    # searched again in another session, with a blank at the end
    assert queries.loc["blue desk lamp", "searches"] == 2


def test_one_ubi_query_id_with_two_texts_is_two_searches(
    source: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = source("ubi")

    def retype(rows: pd.DataFrame) -> pd.DataFrame:
        rows.loc[1, "user_query"] = "red desk lam"
        return rows

    edit(folder / "events.parquet", retype)
    import_dataset("ubi", folder, tmp_path / "out")
    events = table(tmp_path / "out", "events")
    assert events.groupby("search_id")["query_id"].nunique().max() == 1
    ids = events.loc[events["search_id"].str.startswith("ubi:q-0/"), "search_id"]
    assert ids.nunique() == 2


def test_ubi_takes_titles_and_judgments_where_they_are(
    source: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = source("ubi")
    titles = pd.DataFrame({"item_id": ["P000", "P004"], "title": ["Lamp", "Other"], "brand": "B"})
    titles.to_parquet(folder / "products.parquet")
    pd.DataFrame(
        {
            "query": ["red desk lamp", "unseen thing", "redd esk lamps"],
            "product_id": ["P000", "P004", "P004"],
            "esci_label": ["Exact", "Irrelevant", "Complement"],
            "split": ["valid", "test", "train"],
        }
    ).to_parquet(folder / "judgments.parquet")
    import_dataset("ubi", folder, tmp_path / "out")
    assert set(table(tmp_path / "out", "events")["item_id"]) == {"ubi:P000", "ubi:P004"}
    assert list(table(tmp_path / "out", "products")["title"]) == ["Lamp", "Other"]
    queries = table(tmp_path / "out", "queries").set_index("query")
    assert queries.loc["red desk lamp", "split"] == "valid"
    assert queries.loc["unseen thing", "split"] == "test"
    assert queries.loc["unseen thing", "searches"] == 0
    # a variant of the valid query that was put into train
    assert "redd esk lamps" not in queries.index
    pairs = judged_pairs(tmp_path / "out")
    assert dict(zip(pairs["query"], pairs["grade"], strict=True)) == {
        "red desk lamp": 3,
        "unseen thing": 0,
    }


@pytest.mark.parametrize("layout", READERS)
def test_given_splits_win_over_the_owners_and_the_hash(layout: str, tmp_path: Path) -> None:
    import_dataset(layout, FIXTURES / layout, tmp_path / "first")
    texts = sorted({*table(tmp_path / "first", "queries")["query"], "Blue desklamps"})
    given = {text: ("valid", "train")[i % 2] for i, text in enumerate(texts)}
    given["Blue desklamps"] = given["blue desk lamp"]
    frame = pd.DataFrame({"query": given.keys(), "split": given.values()})
    frame.to_parquet(tmp_path / "splits.parquet")
    import_dataset(layout, FIXTURES / layout, tmp_path / "out", splits=tmp_path / "splits.parquet")
    queries = table(tmp_path / "out", "queries")
    assert list(queries["split"]) == [given[query] for query in queries["query"]]
    assert read_card(tmp_path / "out").settings["splits"] == "file"


def test_queries_follow_variants_whose_split_is_given() -> None:
    placed = place(
        [("a", "desk lamp", "test"), ("b", "Desk lamps", None), ("c", "desklamp", "train")], None
    )
    assert placed == {"a": "test", "b": "test"}


def test_the_most_held_out_split_of_a_key_wins() -> None:
    queries = [("fan", "train"), ("fans", "valid"), ("Fan", "train")]
    assert most_held_out(queries) == {query_key("fan"): "valid"}


# --- bad input


def edit(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    if path.suffix == ".csv":
        rows = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        change(rows).to_csv(path, sep="\t", index=False)
    else:
        change(pd.read_parquet(path)).to_parquet(path, index=False)


def drop(column: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda rows: rows.drop(columns=column)


def put(row: int, column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        rows[column] = rows[column].astype(object)
        rows.loc[row, column] = value
        return rows

    return change


def typed(column: str, kind: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda rows: rows.assign(**{column: range(len(rows))}).astype({column: kind})


def repeat(row: int, **changes: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda rows: pd.concat([rows, rows.iloc[[row]].assign(**changes)], ignore_index=True)


def empty(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.head(0)


LONG = "x" * (10 << 20)
QUERIES, EVENTS = "queries.parquet", "events.parquet"
RATED, ITEMS = "pairs.parquet", "products.parquet"

BAD = {
    "missing column": [
        ("esci", EXAMPLES, drop("esci_label"), "no column 'esci_label' (text); it has"),
        ("esci", PRODUCTS, drop("product_title"), "no column 'product_title'"),
        ("wands", "label.csv", drop("label"), "no column 'label'; it has id, query_id"),
        ("chorus", RATED, drop("rating"), "no column 'rating' (integer)"),
        ("ubi", EVENTS, drop("action_name"), "no column 'action_name'"),
    ],
    "wrong type": [
        ("esci", EXAMPLES, typed("query", "int64"), "column 'query' is int64, want text"),
        ("chorus", RATED, typed("rating", "float64"), "column 'rating' is double, want integer"),
        ("ubi", EVENTS, typed("position", "str"), "column 'position' is"),
        ("ubi", QUERIES, typed("timestamp", "int64"), "'timestamp' is int64, want timestamp or"),
    ],
    "unknown label": [
        (
            "esci",
            EXAMPLES,
            put(3, "esci_label", "Exact"),
            "'esci_label', row 4 (example_id 3): 'Exact', want one of E, S, C, I",
        ),
        ("esci", EXAMPLES, put(3, "split", "dev"), "'dev', want one of train, test"),
        ("esci", EXAMPLES, put(3, "product_locale", "de"), "'de', want one of us, es, jp"),
        ("wands", "label.csv", put(0, "label", "exact"), "line 2: 'exact', want one of Exact"),
        ("chorus", RATED, put(2, "rating", 4), "column 'rating', row 3: 4, want 0 to 3"),
        ("chorus", RATED, put(2, "split", "dev"), "'split', row 3: 'dev', want one of train"),
        ("ubi", EVENTS, put(5, "action_name", "wink"), "row 6: 'wink', want one of impression"),
        ("ubi", EVENTS, put(5, "position", -1), "column 'position', row 6: -1, want a rank from 0"),
        ("ubi", EVENTS, put(5, "timestamp", "noon"), "'timestamp', row 6: 'noon', want ISO 8601"),
    ],
    "empty table": [
        ("esci", EXAMPLES, empty, "empty, want at least one row"),
        ("wands", "query.csv", empty, "empty, want at least one row"),
        ("chorus", ITEMS, empty, "empty, want at least one row"),
        ("ubi", EVENTS, empty, "empty, want at least one row"),
    ],
    "null text": [
        ("esci", EXAMPLES, put(7, "query", None), "column 'query', row 8: null, want text"),
        ("esci", PRODUCTS, put(2, "product_title", float("nan")), "'product_title', row 3: null"),
        (
            "wands",
            "product.csv",
            put(0, "product_name", ""),
            "column 'product_name', line 2: empty",
        ),
        ("chorus", ITEMS, put(1, "title", None), "column 'title', row 2: null"),
        ("ubi", QUERIES, put(0, "user_query", None), "column 'user_query', row 1: null"),
    ],
    "duplicate ids": [
        ("esci", PRODUCTS, repeat(0), "product_id 'P000' (us) is on rows 1 and 217"),
        ("esci", EXAMPLES, repeat(0), "'example_id': 0 is on rows 1 and 75"),
        ("esci", EXAMPLES, repeat(0, example_id=999), "query_id 100 with product_id 'P000' is on"),
        (
            "esci",
            EXAMPLES,
            put(1, "query", "other"),
            "query_id 100 stands for 'other' and 'red desk lamp'",
        ),
        ("wands", "query.csv", repeat(1), "column 'query_id', line 20: 1 is there twice"),
        ("wands", "product.csv", repeat(1), "column 'product_id'"),
        ("chorus", RATED, repeat(0), "is on rows 1 and 73, want one rating a pair"),
        ("chorus", ITEMS, repeat(0), "column 'product_id', row 73: 'P000' is there twice"),
    ],
    "unmatched id": [
        ("esci", EXAMPLES, put(0, "product_id", "P999"), "row 1: 'P999' (us) is not in"),
        ("wands", "label.csv", put(0, "product_id", "999"), "line 2: 999 is not in product.csv"),
        ("chorus", RATED, put(0, "product_id", "P999"), "row 1: 'P999' is not in"),
    ],
    "two splits": [
        ("chorus", RATED, put(0, "split", "train"), "is in valid and in train, want one split"),
    ],
    "10 MB": [
        ("esci", PRODUCTS, put(4, "product_title", LONG), "'product_title', row 5: a text of 10,4"),
        ("wands", "product.csv", put(3, "product_name", LONG), "a text of 10,48"),
        ("chorus", ITEMS, put(4, "title", LONG), "column 'title', row 5: a text of 10,485,760"),
        ("ubi", QUERIES, put(4, "user_query", LONG), "column 'user_query', row 5: a text of"),
    ],
    "not JSON": [
        ("chorus", ITEMS, put(4, "attributes_json", "{"), "'attributes_json', row 5: not JSON"),
        ("chorus", ITEMS, put(4, "attributes_json", "[]"), "'[]', want a JSON object"),
    ],
}


def cases() -> Iterator[object]:
    for what, rows in BAD.items():
        for layout, file, change, message in rows:
            yield pytest.param(layout, file, change, message, id=f"{layout}-{what}-{message[:24]}")


@pytest.mark.parametrize(("layout", "file", "change", "message"), cases())
def test_bad_input_is_refused_in_one_line_and_nothing_is_left(
    layout: str,
    file: str,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    message: str,
    source: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    folder = source(layout)
    edit(folder / file, change)
    refused(layout, folder, tmp_path / "out", re.escape(message), file=file)


def refused(layout: str, folder: Path, out: Path, message: str, *, file: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        import_dataset(layout, folder, out)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1_000
    assert file in str(caught.value)
    assert [path.name for path in out.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("layout", "file", "column"),
    [
        ("esci", EXAMPLES, "query"),
        ("esci", PRODUCTS, "product_description"),
        ("chorus", ITEMS, "title"),
        ("ubi", QUERIES, "user_query"),
    ],
)
def test_parquet_texts_that_are_not_utf8_are_refused(
    layout: str, file: str, column: str, source: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = source(layout)
    rows = pq.read_table(folder / file)
    values = [value.encode() if value else value for value in rows[column].to_pylist()]
    values[6] = b"caf\xe9 lamp"
    # a view of bytes as text is not checked: this is how bad exporters write
    buffers = pa.array(values, pa.large_binary()).buffers()
    texts = pa.Array.from_buffers(pa.large_string(), len(values), buffers)
    rows = rows.set_column(rows.schema.get_field_index(column), column, texts)
    pq.write_table(rows, folder / file)
    message = rf"column '{column}', row 7: b'caf\\xe9 lamp' is not UTF-8"
    refused(layout, folder, tmp_path / "out", message, file=file)


def test_csv_lines_that_are_not_utf8_are_refused(
    source: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = source("wands")
    path = folder / "query.csv"
    path.write_bytes(path.read_bytes().replace(b"red dog bed", b"r\xe9d dog bed"))
    message = r"line \d+: b'\\xe9d dog b' is not UTF-8"
    refused("wands", folder, tmp_path / "out", message, file="query.csv")


def test_csv_rows_with_a_lost_field_are_refused(
    source: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = source("wands")
    path = folder / "label.csv"
    path.write_text(path.read_text().replace("\tExact", "", 1))
    message = "line 2: 3 tab-separated fields, want 4"
    refused("wands", folder, tmp_path / "out", message, file="label.csv")


def test_a_quote_that_never_closes_is_refused(
    source: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = source("wands")
    path = folder / "product.csv"
    path.write_text(path.read_text() + '"72\tlamp')
    refused("wands", folder, tmp_path / "out", r"line \d+: unexpected end", file="product.csv")


def test_a_file_that_is_no_parquet_is_refused(
    source: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = source("esci")
    (folder / PRODUCTS).write_text("product_id,product_title\n")
    refused("esci", folder, tmp_path / "out", "not a readable Parquet file", file=PRODUCTS)


def test_a_truncated_page_is_refused(source: Callable[[str], Path], tmp_path: Path) -> None:
    folder = source("chorus")
    path = folder / ITEMS
    content = bytearray(path.read_bytes())
    content[100:2_000] = bytes(1_900)
    path.write_bytes(content)
    refused("chorus", folder, tmp_path / "out", "products.parquet: ", file=ITEMS)


@pytest.mark.parametrize("layout", READERS)
def test_missing_files_are_named(
    layout: str, source: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = source(layout)
    for name in sorted(path.name for path in folder.iterdir()):
        (folder / name).rename(tmp_path / "aside")
        # UBI's products are wanted by nobody
        with pytest.raises(FileNotFoundError, match=f"{name}: missing"):
            import_dataset(layout, folder, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        (tmp_path / "aside").rename(folder / name)


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(
        ValueError, match="layout 'csv': unknown; there are esci, wands, chorus, ubi"
    ):
        import_dataset("csv", FIXTURES / "esci", out)
    with pytest.raises(ValueError, match="locale 'de': unknown; there are us, es, jp, all"):
        import_dataset("esci", FIXTURES / "esci", out, locale="de")
    with pytest.raises(FileNotFoundError, match="nowhere: want a directory with the files of esci"):
        import_dataset("esci", tmp_path / "nowhere", out)
    with pytest.raises(FileNotFoundError, match=r"none\.parquet: missing"):
        import_dataset("esci", FIXTURES / "esci", out, splits=tmp_path / "none.parquet")
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    with pytest.raises(FileExistsError, match="out: exists already"):
        import_dataset("esci", FIXTURES / "esci", out)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("queries", "splits", "message"),
    [
        (["red desk lamp"], ["train"], "query 'blue desk lamp' .* is not in the file of --splits"),
        (["a", "a"], ["train", "test"], "row 2: query 'a' is in test and in train"),
        (["a"], ["dev"], "column 'split', row 1: 'dev', want one of train, valid, test"),
    ],
)
def test_bad_splits_are_refused(
    queries: list[str], splits: list[str], message: str, tmp_path: Path
) -> None:
    pd.DataFrame({"query": queries, "split": splits}).to_parquet(tmp_path / "splits.parquet")
    with pytest.raises(ValueError, match=message):
        import_dataset(
            "esci", FIXTURES / "esci", tmp_path / "out", splits=tmp_path / "splits.parquet"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["splits.parquet"]


def test_a_source_with_quotes_and_stars_in_its_name_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "o'data*[1]?"
    shutil.copytree(FIXTURES / "ubi", folder)
    import_dataset("ubi", folder, tmp_path / "out")
    assert len(table(tmp_path / "out", "queries")) == 18


def test_texts_up_to_the_limit_are_left_to_the_validation(
    source: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = source("chorus")
    edit(folder / ITEMS, put(4, "title", "x" * MAX_TEXT_BYTES))
    import_dataset("chorus", folder, tmp_path / "out")
    assert table(tmp_path / "out", "products")["title"].str.len().max() == MAX_TEXT_BYTES


@pytest.mark.parametrize("layout", READERS)
def test_a_full_disk_is_named_and_nothing_is_left(layout: str, tmp_path: Path) -> None:
    """A limit on the size of files fails a write as a full disk does, without privileges."""
    script = f"""
import resource
from pathlib import Path
from relevance.data.readers import import_dataset
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
try:
    import_dataset({layout!r}, Path({str(FIXTURES / layout)!r}), Path({str(tmp_path / "out")!r}))
except OSError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"[Errno 27] File too large: '{tmp_path / 'out'}'\n"
    assert list(tmp_path.iterdir()) == []


def test_a_really_full_disk_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        with pytest.raises(OSError, match=r"No space left on device: '.*/disk/out'"):
            import_dataset("chorus", FIXTURES / "chorus", disk / "out")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# --- the real data beside the project


def test_real_esci_is_read_whole(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    source = shared_data("esci")
    import_dataset("esci", source, tmp_path / "out", splits=source / "pairs.parquet")
    wanted = pd.read_parquet(source / "pairs.parquet")
    wanted = wanted[wanted["product_locale"] == "us"]
    pairs = judged_pairs(tmp_path / "out")
    assert pairs["split"].value_counts().to_dict() == wanted["split"].value_counts().to_dict()
    assert pairs["grade"].value_counts().to_dict() == wanted["grade"].value_counts().to_dict()


def test_real_chorus_is_read_whole(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    source = shared_data("chorus")
    import_dataset("chorus", source, tmp_path / "out")
    wanted = pd.read_parquet(source / "pairs.parquet")
    pairs = judged_pairs(tmp_path / "out")
    assert pairs["split"].value_counts().to_dict() == wanted["split"].value_counts().to_dict()
    assert pairs["grade"].value_counts().to_dict() == wanted["rating"].value_counts().to_dict()
    assert not table(tmp_path / "out", "products")["title"].str.contains("<").any()


def test_real_ubi_is_read(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    import_dataset("ubi", shared_data("ubi_simulated"), tmp_path / "out")
    card = read_card(tmp_path / "out").settings
    events = table(tmp_path / "out", "events")
    left_out = card["events_not_about_items"] + card["events_without_query_or_product"]
    assert len(events) + left_out == 3_448
    assert set(events["action"]) == {"impression", "click", "add_to_cart"}
