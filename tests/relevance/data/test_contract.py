import contextlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel, WordPiece
from tokenizers.pre_tokenizers import Whitespace

from relevance.config import override
from relevance.configs import ContractConfig
from relevance.data.contract import validate_data, validate_vocabulary
from relevance.data.tables import TABLES, DatasetCard, table_path, write_card
from relevance.errors import Finding

Tables = dict[str, list[dict[str, Any]]]

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def clean() -> Tables:
    """Sixty queries and products, a judged pair each, a clicked page for every sixth."""
    # a different count of letters each, so that no two are variants
    words = ["b" * (1 + n // 8) + "d" * (1 + n % 8) for n in range(60)]
    tables: Tables = {"queries": [], "products": [], "events": [], "judgments": []}
    for n, word in enumerate(words):
        split = "train" if n < 40 else "valid" if n < 50 else "test"
        tables["queries"].append(
            {
                "query_id": f"q{n}",
                "query": f"{word} lamp",
                "split": split,
                "source": "shop",
                "searches": n,
            }
        )
        tables["products"].append(
            {
                "item_id": f"p{n}",
                "title": f"Lampe à poser {word}, 40 × 20 cm – 日本",
                "description": "Two lines\nof text" if n % 2 else None,
                "category": "lamps",
                "brand": None,
                "attributes": [("colour", "red")],
            }
        )
        tables["judgments"].append(
            {"query_id": f"q{n}", "item_id": f"p{n}", "grade": n % 4, "rater": None}
        )
    for page in range(10):
        for item in range(3):
            tables["events"].append(event(page, item, "impression"))
        tables["events"] += [event(page, 1, action) for action in ("click", "order", "pay")]
    return tables


def event(page: int, item: int, action: str, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{page}-{item}-{action}",
        "timestamp": NOON + timedelta(minutes=page),
        "unit_id": "u1",
        "search_id": f"s{page}",
        "query_id": f"q{page}",
        "item_id": f"p{item}",
        "action": action,
        "position": item + 1,
    } | changes


def write(tables: Tables, data: Path, *, is_generated: bool = False) -> Path:
    data.mkdir()
    for table, rows in tables.items():
        # a broken export has nulls where our own schemas allow none
        schema = pa.schema([field.with_nullable(True) for field in TABLES[table]])
        pq.write_table(pa.Table.from_pylist(rows, schema), table_path(data, table))
    write_card(DatasetCard("lamps", is_generated, "CC0-1.0", {}), data)
    return data


def validate(tables: Tables, folder: Path, *settings: str) -> dict[str, Any]:
    """The report on ``tables``, whatever the verdict."""
    data, out = write(tables, folder / "data"), folder / "report"
    with contextlib.suppress(Finding):
        validate_data(override(ContractConfig(), settings), data, out)
    report: dict[str, Any] = json.loads((out / "validation.json").read_text())
    return report


def failed(report: dict[str, Any]) -> dict[str, Any]:
    return {f"{c['table']}.{c['check']}": c for c in report["checks"] if not c["success"]}


def test_a_clean_dataset_passes_every_check(tmp_path: Path) -> None:
    data, out = write(clean(), tmp_path / "data"), tmp_path / "report"
    metrics = validate_data(ContractConfig(), data, out)
    report = json.loads((out / "validation.json").read_text())
    assert failed(report) == {}
    assert report["verdict"] == "pass"
    assert metrics == {
        "rows_queries": 60,
        "rows_products": 60,
        "rows_events": 60,
        "rows_judgments": 60,
        "checks_passed": len(report["checks"]),
        "checks_warned": 0,
        "checks_blocked": 0,
    }


def test_events_and_judgments_may_be_absent(tmp_path: Path) -> None:
    tables = {table: rows for table, rows in clean().items() if table in ("queries", "products")}
    metrics = validate_data(ContractConfig(), write(tables, tmp_path / "data"), tmp_path / "report")
    assert set(metrics) == {
        "rows_queries",
        "rows_products",
        "checks_passed",
        "checks_warned",
        "checks_blocked",
    }


BAD_QUERIES = {
    "null": None,
    "empty": "",
    "blank": " \t\u00a0\u200b",
    "nan": "nan",
    "long": "x" * 1001,
    "replacement": "caf\ufffd",
    "control": "cafe\x07",
    "mojibake": "cafÃ© crÃ¨me",
    "email": "invoice for shopper@example.com",
    "card": "refund 4111-1111-1111-1111",
    "phone": "call +44 20 7946 0958",
    "ip": "router 192.168.1.254",
    # neither: a barcode, a part number, an order of magnitude
    "isbn": "9780306406157",
    "part": "NE555P 74-1234",
    "capital": "SÃO PAULO 35 €",
}


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The checks that fail on a dataset in which every row after the clean ones is bad."""
    tables = clean()
    queries, products = tables["queries"], tables["products"]
    events, judgments = tables["events"], tables["judgments"]
    for name, text in BAD_QUERIES.items():
        queries.append(queries[0] | {"query_id": name, "query": text})
    queries += [
        queries[0] | {"query_id": "q1", "query": "copied id"},
        queries[0] | {"query_id": "copy"},
        queries[0] | {"query_id": "other source", "source": "import"},
        queries[0] | {"query_id": "no split", "query": "no split", "split": "dev"},
        queries[0] | {"query_id": "negative", "query": "negative", "searches": -1},
        queries[0] | {"query_id": "leak 1", "query": "Blue Tooth speakers"},
        queries[0] | {"query_id": "leak 2", "query": "bluetooth speaker", "split": "test"},
    ]
    products += [
        products[0] | {"item_id": None},
        products[0] | {"item_id": "no title", "title": None},
        products[0] | {"item_id": "p1"},
        products[0] | {"item_id": "null title", "title": "None"},
        products[0] | {"item_id": "huge", "title": "lamp " * 2_000_000},
        products[0] | {"item_id": "replacement", "title": "Caf\ufffd"},
        products[0] | {"item_id": "mojibake", "title": "Lampe Ã  poser â€“ 40 cm"},
        products[0] | {"item_id": "html", "title": "Lamp &amp; shade<br/>"},
        products[0] | {"item_id": "control", "description": "a\x00b"},
        products[0] | {"item_id": "no brand", "brand": " "},
        products[0] | {"item_id": "no colour", "attributes": [("colour", "")]},
    ]
    future = datetime.now(UTC) + timedelta(days=30)
    events += [
        event(0, 0, "impression"),
        event(0, 3, "buy"),
        event(0, 4, "impression", position=0),
        event(0, 5, "impression", position=None),
        event(0, 6, "impression", timestamp=future),
        event(0, 7, "impression", timestamp=datetime(1970, 1, 20, tzinfo=UTC)),
        event(0, 8, "impression", timestamp=None),
        event(0, 9, "impression", unit_id=""),
        event(0, 10, "click"),
        event(0, 2, "order"),
        event(0, 0, "pay"),
        event(0, 999, "impression"),
        event(0, 11, "impression", query_id="q999"),
    ]
    judgments += [
        judgments[0] | {"grade": 4},
        judgments[1] | {"item_id": "p2", "grade": -1},
        judgments[0] | {"query_id": "q999"},
        judgments[0] | {"item_id": "p999"},
        judgments[0] | {"rater": "a"},
        judgments[0] | {"rater": " "},
    ]
    return failed(validate(tables, tmp_path_factory.mktemp("faults")))


FAULTS = [
    ("queries.query_filled", "block", ["null", "empty", "blank"]),
    ("queries.query_id_unique", "block", ["q1"]),
    ("queries.query_unique", "warn", ["copy"]),
    ("queries.query_length", "block", ["long"]),
    ("queries.query_not_nan", "block", ["nan"]),
    ("queries.query_characters", "warn", ["replacement", "control"]),
    ("queries.query_characters_share", "block", ["replacement", "control"]),
    ("queries.query_mojibake", "warn", ["mojibake"]),
    ("queries.query_no_email", "block", ["email"]),
    ("queries.query_no_card", "block", ["card"]),
    ("queries.query_no_phone", "warn", ["phone"]),
    ("queries.query_no_ip", "warn", ["ip"]),
    ("queries.split_set", "block", ["no split"]),
    ("queries.searches_range", "block", ["negative"]),
    ("queries.split_leak", "block", ["leak 1", "leak 2"]),
    ("products.item_id_filled", "block", ["null"]),
    ("products.title_filled", "block", ["no title"]),
    ("products.item_id_unique", "block", ["p1"]),
    ("products.title_not_nan", "block", ["null title"]),
    ("products.title_length", "block", ["huge"]),
    ("products.title_characters", "warn", ["replacement"]),
    ("products.title_characters_share", "block", ["replacement"]),
    ("products.title_mojibake", "warn", ["mojibake"]),
    ("products.title_no_markup", "warn", ["html"]),
    ("products.description_characters", "warn", ["control"]),
    ("products.brand_not_blank", "warn", ["no brand"]),
    ("products.attributes_not_blank", "warn", ["no colour"]),
    ("events.event_id_unique", "block", ["e0-0-impression"]),
    ("events.action_set", "block", ["e0-3-buy"]),
    ("events.position_range", "block", ["e0-4-impression"]),
    ("events.position_of_impression", "warn", ["e0-5-impression"]),
    ("events.timestamp_range", "block", ["e0-6-impression", "e0-7-impression"]),
    ("events.timestamp_filled", "block", ["e0-8-impression"]),
    ("events.unit_id_filled", "block", ["e0-9-impression"]),
    ("events.click_without_impression", "warn", ["e0-10-click"]),
    ("events.click_without_impression_share", "block", ["e0-10-click"]),
    ("events.order_without_click", "warn", ["e0-2-order"]),
    ("events.order_without_click_share", "block", ["e0-2-order"]),
    ("events.pay_without_order", "warn", ["e0-0-pay"]),
    ("events.pay_without_order_share", "block", ["e0-0-pay"]),
    ("events.item_id_known", "warn", ["e0-999-impression"]),
    ("events.item_id_known_share", "block", ["e0-999-impression"]),
    ("events.query_id_known", "warn", ["e0-11-impression"]),
    ("events.query_id_known_share", "block", ["e0-11-impression"]),
    ("judgments.pair_and_rater_unique", "block", ["q0/p0"]),
    ("judgments.rater_not_blank", "block", ["q0/p0"]),
    ("judgments.grade_range", "block", ["q0/p0", "q1/p2"]),
    ("judgments.query_id_known", "block", ["q999/p0"]),
    ("judgments.item_id_known", "block", ["q0/p999"]),
]


@pytest.mark.parametrize(("check", "severity", "ids"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_fault_is_found_and_its_rows_named(
    faults: dict[str, Any], check: str, severity: str, ids: list[str]
) -> None:
    assert faults[check]["severity"] == severity
    assert [row["id"] for row in faults[check]["rows"]] == ids
    assert faults[check]["failing_count"] == len(ids)


def test_no_check_fails_that_has_no_fault(faults: dict[str, Any]) -> None:
    assert set(faults) == {check for check, _, _ in FAULTS}


def test_a_title_of_ten_megabytes_makes_no_report_of_ten_megabytes(
    faults: dict[str, Any],
) -> None:
    assert len(faults["products.title_length"]["rows"][0]["value"]) == 200


def test_rows_are_numbered_as_in_the_file(faults: dict[str, Any]) -> None:
    assert [row["row"] for row in faults["queries.query_filled"]["rows"]] == [61, 62, 63]


def test_the_report_repeats_no_personal_data(faults: dict[str, Any]) -> None:
    texts = json.dumps(faults)
    assert "shopper@example.com" not in texts
    assert "1111" not in texts
    assert faults["queries.query_no_email"]["rows"][0]["value"] == "invoice for [e-mail]"


def test_a_blocked_run_leaves_its_report_and_raises_one_line(tmp_path: Path) -> None:
    tables = clean()
    tables["queries"] += [
        tables["queries"][0] | {"query_id": "line\nbreak", "query": "a@example.com"},
        tables["queries"][0] | {"query_id": "q1", "query": "once more"},
    ]
    data, out = write(tables, tmp_path / "data"), tmp_path / "report"
    with pytest.raises(Finding) as raised:
        validate_data(ContractConfig(), data, out)
    assert str(raised.value) == (
        f"{data}/queries.parquet: query_id_unique: want that query_id is unique; 1 row fails: "
        f"q1 (row 62); 1 more check blocks; report: {out}/index.html"
    )
    page = (out / "index.html").read_text()
    assert 'class="verdict block"' in page
    assert "line\\nbreak" in page
    assert "a@example.com" not in page


def test_the_page_shows_verdict_origin_and_data_docs(tmp_path: Path) -> None:
    data, out = write(clean(), tmp_path / "data", is_generated=True), tmp_path / "report"
    validate_data(ContractConfig(), data, out)
    page = (out / "index.html").read_text()
    assert 'class="verdict pass"' in page
    assert "lamps" in page
    assert "Generated data" in page
    assert "http" not in page  # it opens without a network
    (link,) = re.findall(r'href="(data_docs/[^"]+)"', page)
    docs = (out / link).read_text()
    suites = list((out / "data_docs" / "expectations").iterdir())
    assert sorted(suite.stem for suite in suites) == sorted(TABLES)
    assert "queries" in docs
    assert (
        "no query holds an e-mail address"
        in (out / "data_docs/expectations/queries.html").read_text()
    )


def test_markup_in_the_data_stays_text_on_the_page(tmp_path: Path) -> None:
    tables = clean()
    tables["products"][0]["title"] = "<script>alert(1)</script>"
    validate(tables, tmp_path)
    page = (tmp_path / "report" / "index.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_clicks_without_impression_only_warn_below_the_share(tmp_path: Path) -> None:
    tables = clean()
    tables["events"].append(event(0, 10, "click"))
    report = validate(tables, tmp_path, "max_orphan_share=0.1")
    assert report["verdict"] == "warn"
    assert set(failed(report)) == {"events.click_without_impression"}


@pytest.mark.parametrize(
    ("setting", "check"),
    [
        ("min_queries=61", "queries.volume"),
        ("min_products=61", "products.volume"),
        ("min_events=61", "events.volume"),
        ("min_judgments=61", "judgments.volume"),
    ],
)
def test_too_few_rows_block(tmp_path: Path, setting: str, check: str) -> None:
    report = validate(clean(), tmp_path, setting)
    assert report["verdict"] == "block"
    assert set(failed(report)) == {check}
    assert failed(report)[check]["observed"] == 60


@pytest.mark.parametrize("table", TABLES)
def test_an_empty_table_blocks(tmp_path: Path, table: str) -> None:
    data = write(clean() | {table: []}, tmp_path / "data")
    with pytest.raises(Finding, match=rf"{table}\.parquet: volume: .*; found 0"):
        validate_data(ContractConfig(), data, tmp_path / "report")


def test_a_split_without_queries_or_judgments_warns(tmp_path: Path) -> None:
    tables = clean()
    for query in tables["queries"]:
        query["split"] = "train" if query["split"] == "test" else query["split"]
    report = validate(tables, tmp_path)
    assert report["verdict"] == "warn"
    assert set(failed(report)) == {"queries.share_test", "judgments.splits"}


def test_judgments_of_one_grade_warn(tmp_path: Path) -> None:
    tables = clean()
    for judgment in tables["judgments"]:
        judgment["grade"] = 3
    assert set(failed(validate(tables, tmp_path))) == {"judgments.grades"}


def without_column(table: pa.Table) -> pa.Table:
    return table.drop_columns(["item_id"])


def of_other_type(table: pa.Table) -> pa.Table:
    return table.set_column(0, "item_id", pa.array(range(len(table))))


def nan_text(table: pa.Table) -> pa.Table:
    return table.set_column(1, "title", pa.array([float("nan")] * len(table)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_column, "no column 'item_id'"),
        (of_other_type, "column 'item_id' is int64, want string"),
        (nan_text, "column 'title' is double, want string"),
    ],
)
def test_a_table_of_another_schema_is_refused(
    tmp_path: Path, spoil: Callable[[pa.Table], pa.Table], message: str
) -> None:
    path = table_path(write(clean(), tmp_path / "data"), "products")
    pq.write_table(spoil(pq.read_table(path)), path)
    with pytest.raises(ValueError, match=f"{path}: {message}"):
        validate_data(ContractConfig(), tmp_path / "data", tmp_path / "report")
    assert not (tmp_path / "report").exists()


def spoilt_texts(texts: list[bytes | None]) -> pa.Array:
    binary = pa.array(texts, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(binary), binary.buffers())


@pytest.mark.parametrize("column", ["title", "brand", "attributes"])
def test_bytes_that_are_not_utf8_are_named(tmp_path: Path, column: str) -> None:
    path = table_path(write(clean(), tmp_path / "data"), "products")
    table = pq.read_table(path)
    texts = spoilt_texts([b"fine"] * 41 + [b"caf\xe9"] + [b"fine"] * 18)
    values: pa.Array = texts
    if column == "attributes":
        values = pa.MapArray.from_arrays(pa.array(range(61), pa.int32()), texts, texts)
    table = table.set_column(table.schema.get_field_index(column), column, values)
    pq.write_table(table, path, row_group_size=25)
    with pytest.raises(
        ValueError, match=f"{path}: column '{column}', row 42: .*not UTF-8"
    ) as error:
        validate_data(ContractConfig(), tmp_path / "data", tmp_path / "report")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "data"]


def test_a_truncated_table_is_refused(tmp_path: Path) -> None:
    path = table_path(write(clean(), tmp_path / "data"), "events")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=rf"{path}: not a readable Parquet file"):
        validate_data(ContractConfig(), tmp_path / "data", tmp_path / "report")


def test_damaged_pages_are_refused_in_one_line(tmp_path: Path) -> None:
    path = table_path(write(clean(), tmp_path / "data"), "events")
    content = bytearray(path.read_bytes())
    content[40:400] = b"\xff" * 360
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: damaged: ") as error:
        validate_data(ContractConfig(), tmp_path / "data", tmp_path / "report")
    assert "\n" not in str(error.value)


def test_a_directory_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"dataset\.json"):
        validate_data(ContractConfig(), tmp_path, tmp_path / "report")


def test_an_existing_report_is_kept(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    with pytest.raises(FileExistsError):
        validate_data(ContractConfig(), write(clean(), tmp_path / "data"), tmp_path / "report")


def test_a_path_with_glob_characters_and_quotes_is_a_path(tmp_path: Path) -> None:
    data = write(clean(), tmp_path / "it's [a] d*ta?")
    assert validate_data(ContractConfig(), data, tmp_path / "report")["rows_queries"] == 60


def test_strings_may_be_large_or_encoded_as_dictionaries(tmp_path: Path) -> None:
    path = table_path(write(clean(), tmp_path / "data"), "queries")
    table = pq.read_table(path)
    table = table.set_column(0, "query_id", table["query_id"].cast(pa.large_string()))
    table = table.set_column(2, "split", table["split"].dictionary_encode())
    pq.write_table(table, path)
    metrics = validate_data(ContractConfig(), tmp_path / "data", tmp_path / "report")
    assert metrics["checks_warned"] == 0


# ---- the vocabulary

WORDS = {"bluetooth": 40, "wi-fi": 12, "100%": 7}


def write_vocabulary(vocabulary: Path, words: dict[str | None, int]) -> Path:
    pieces = ["[PAD]", "[UNK]", "b", "##l", "##u", "##e", "w", "##i", "lamp"]
    tokenizer = Tokenizer(WordPiece({p: n for n, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    (vocabulary / "base").mkdir(parents=True)
    tokenizer.save(str(vocabulary / "base" / "tokenizer.json"))
    tokenizer.add_tokens(list(WORDS))
    tokenizer.save(str(vocabulary / "tokenizer.json"))
    table = {
        "word": pa.array(list(words), pa.string()),
        "count": pa.array(list(words.values()), pa.int64()),
    }
    pq.write_table(pa.table(table), vocabulary / "words.parquet")
    return vocabulary


def vocabulary_faults(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(Finding):
        validate_vocabulary(ContractConfig(), folder / "vocabulary", folder / "report")
    return failed(json.loads((folder / "report" / "validation.json").read_text()))


def test_a_good_vocabulary_passes(tmp_path: Path) -> None:
    vocabulary = write_vocabulary(tmp_path / "vocabulary", dict(WORDS))
    metrics = validate_vocabulary(ContractConfig(), vocabulary, tmp_path / "report")
    assert metrics["rows_words"] == 3
    assert metrics["checks_warned"] == metrics["checks_blocked"] == 0
    assert "Data contract: vocabulary" in (tmp_path / "report" / "index.html").read_text()


def test_bad_words_are_named(tmp_path: Path) -> None:
    words = dict(WORDS) | {"rare": 1, "blue": 5, "ξ": 9, None: 3}
    vocabulary = write_vocabulary(tmp_path / "vocabulary", words)
    path = vocabulary / "words.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), path)
    faults = vocabulary_faults(tmp_path)
    assert {check: [row["id"] for row in fault["rows"]] for check, fault in faults.items()} == {
        "words.word_filled": ["null"],
        "words.word_unique": ["bluetooth"],
        "words.count_range": ["rare"],
        "words.known": ["rare", "ξ"],
        "words.whole": ["blue", "null"],
        "words.round_trip": ["rare", "blue", "ξ"],
    }


def test_a_base_token_whose_id_moved_blocks(tmp_path: Path) -> None:
    vocabulary = write_vocabulary(tmp_path / "vocabulary", dict(WORDS))
    base = Tokenizer(WordLevel({"[UNK]": 0, "lamp": 8, "gone": 2}, unk_token="[UNK]"))
    base.save(str(vocabulary / "base" / "tokenizer.json"))
    faults = vocabulary_faults(tmp_path)
    assert set(faults) == {"base.id_kept"}
    assert [(row["id"], row["value"]) for row in faults["base.id_kept"]["rows"]] == [
        ("[UNK]", "0 to 1"),
        ("gone", "2 to -1"),
    ]


def test_a_vocabulary_without_new_words_only_warns(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "vocabulary", {})
    faults = vocabulary_faults(tmp_path)
    assert {check: fault["severity"] for check, fault in faults.items()} == {"words.volume": "warn"}


@pytest.mark.parametrize("missing", ["words.parquet", "tokenizer.json"])
def test_a_vocabulary_that_lacks_a_file_is_refused(tmp_path: Path, missing: str) -> None:
    vocabulary = write_vocabulary(tmp_path / "vocabulary", dict(WORDS))
    (vocabulary / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        validate_vocabulary(ContractConfig(), vocabulary, tmp_path / "report")


def test_a_tokenizer_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    vocabulary = write_vocabulary(tmp_path / "vocabulary", dict(WORDS))
    (vocabulary / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="not a readable tokenizer"):
        validate_vocabulary(ContractConfig(), vocabulary, tmp_path / "report")
