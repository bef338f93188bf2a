"""Scoring files: rows come back as they were, with two columns more, or one error names the row."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from querylift import pair_files
from querylift.pair_files import FORMATS, MAX_CHARS, Scores, score_file

ROWS = [
    {"id": "007", "query": "12v lamp", "title": 'LED lamp, 12 V, 5" wide'},
    {"id": "", "query": "naïve", "title": "two\nlines"},
    {"id": "null", "query": "灯", "title": "NaN"},
]


def lengths(queries: Sequence[str], titles: Sequence[str]) -> Scores:
    scores = np.array([len(t) - len(q) for q, t in zip(queries, titles, strict=True)], float)
    return scores, 1 / (1 + np.exp(-scores))


def write(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            delimiter = "," if path.suffix == ".csv" else "\t"
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


def read(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="," if path.suffix == ".csv" else "\t"))


@pytest.mark.parametrize("ending", FORMATS)
def test_rows_come_back_in_order_with_score_and_probability(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_files, "CHUNK", 2)
    out = tmp_path / f"out{ending}"
    assert score_file(lengths, write(tmp_path / f"in{ending}", ROWS), out) == 3
    for row, scored in zip(ROWS, read(out), strict=True):
        score = len(row["title"]) - len(row["query"])
        assert {name: scored[name] for name in row} == row
        assert float(scored["score"]) == score
        assert float(scored["probability"]) == pytest.approx(1 / (1 + np.exp(-score)), abs=1e-15)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"title": " "}, "row 2: column 'title' is empty"),
        ({"query": "x" * 10 * 2**20}, "row 2: column 'query' has 10,485,760 characters, want at"),
    ],
)
def test_a_text_that_cannot_be_scored_is_named_and_nothing_is_written(
    ending: str, change: dict[str, str], message: str, tmp_path: Path
) -> None:
    pairs = write(tmp_path / f"in{ending}", [ROWS[0], {**ROWS[1], **change}])
    with pytest.raises(ValueError, match=message):
        score_file(lengths, pairs, tmp_path / f"out{ending}")
    assert list(tmp_path.iterdir()) == [pairs]


@pytest.mark.parametrize("ending", FORMATS)
def test_a_missing_column_is_named_with_those_there(ending: str, tmp_path: Path) -> None:
    pairs = write(tmp_path / f"in{ending}", [{"query": "lamp", "name": "Lamp"}])
    with pytest.raises(ValueError, match="no column 'title'; it has query, name"):
        score_file(lengths, pairs, tmp_path / f"out{ending}")


@pytest.mark.parametrize("ending", FORMATS)
def test_a_column_of_ours_is_not_overwritten(ending: str, tmp_path: Path) -> None:
    pairs = write(tmp_path / f"in{ending}", [{**ROWS[0], "score": "1"}])
    with pytest.raises(ValueError, match="has a column 'score' already"):
        score_file(lengths, pairs, tmp_path / f"out{ending}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.csv", b"query,title\n", "no rows"),
        ("in.csv", b"", "no column 'query'"),
        ("in.csv", b"query,title\nlamp\n", "row 1 has 1 columns, want 2"),
        ("in.csv", b"query,title\nlamp,Lamp\nlamp,L\xe4mp\n", "line 3: byte 7 is not UTF-8"),
        ("in.tsv", b'query\ttitle\nlamp\t"Lamp\n', "line 2: unexpected end of data"),
        ("in.jsonl", b'{"query": "lamp", "title": 3}\n', "row 1: column 'title' is 3, want text"),
        ("in.jsonl", b'{"query": "lamp", "title": null}\n', "row 1: column 'title' is missing"),
        ("in.jsonl", b'{"query": "lamp"}\n', "line 1: no column 'title'"),
        ("in.jsonl", b'{"query": "lamp", "title": "\\ud800"}\n', "half a surrogate pair"),
        ("in.jsonl", b"[1]\n", "line 1: want an object"),
        ("in.jsonl", b"{\n", "line 1: no JSON"),
        ("in.parquet", b"PAR1", "not a readable Parquet file"),
        ("in.xlsx", b"", "ends in '.xlsx', want one of .parquet"),
    ],
)
def test_a_broken_file_is_one_error_that_says_where(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    pairs = tmp_path / name
    pairs.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        score_file(lengths, pairs, tmp_path / f"out{pairs.suffix}")
    assert list(tmp_path.iterdir()) == [pairs]


def test_parquet_nulls_and_broken_text_are_named(tmp_path: Path) -> None:
    broken = pa.array([b"lamp", b"l\xe4mp"], pa.binary()).cast(pa.string(), safe=False)
    for titles, message in [
        (pa.array(["Lamp", None]), "row 2: column 'title' is missing"),
        (broken, "row 2: column 'title' is not UTF-8"),
        (pa.array([1.0, float("nan")]), "row 1: column 'title' is 1.0, want text"),
    ]:
        pq.write_table(pa.table({"query": ["a", "b"], "title": titles}), tmp_path / "in.parquet")
        with pytest.raises(ValueError, match=message):
            score_file(lengths, tmp_path / "in.parquet", tmp_path / "out.parquet")


def test_other_columns_keep_their_type(tmp_path: Path) -> None:
    rows = pa.table({"query": ["a"], "title": ["b"], "at": pa.array([0], pa.timestamp("ms"))})
    pq.write_table(rows, tmp_path / "in.parquet")
    score_file(lengths, tmp_path / "in.parquet", tmp_path / "out.parquet")
    scored = pq.read_table(tmp_path / "out.parquet")
    assert scored.select(rows.column_names).equals(rows)


def test_a_byte_order_mark_belongs_to_no_column(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"\xef\xbb\xbfquery,title\r\nlamp,Lamp\r\n\r\n")
    assert score_file(lengths, tmp_path / "in.csv", tmp_path / "out.csv") == 1
    assert (tmp_path / "out.csv").read_text().startswith("query,title,score,probability\n")


def test_columns_longer_than_a_title_may_be_pass_through(tmp_path: Path) -> None:
    text = "d" * (MAX_CHARS * 20)
    write(tmp_path / "in.csv", [{**ROWS[0], "description": text}])
    score_file(lengths, tmp_path / "in.csv", tmp_path / "out.csv")
    assert read(tmp_path / "out.csv")[0]["description"] == text


def test_an_existing_result_is_kept(tmp_path: Path) -> None:
    pairs = write(tmp_path / "in.csv", ROWS)
    with pytest.raises(FileExistsError, match=r"in\.csv"):
        score_file(lengths, pairs, pairs)
    assert read(pairs) == ROWS


def test_the_result_has_the_format_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"out\.parquet: ends in '\.parquet', want '\.csv'"):
        score_file(lengths, write(tmp_path / "in.csv", ROWS), tmp_path / "out.parquet")
