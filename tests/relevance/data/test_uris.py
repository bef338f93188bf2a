"""Datasets by path and by URI: ``file://`` stands for object stores, which pyarrow opens alike."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from relevance.data.tables import TABLES, DatasetCard, data_hash, read_card, write_card, write_table
from relevance.data.uris import gather


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write(tmp_path / "shop", "shop")


def write(data: Path, name: str) -> Path:
    data.mkdir()
    rows = {
        "queries": [(f"{name}:q", "red lamp", "train", name, 1)],
        "products": [(f"{name}:p", "red lamp", None, None, None, None)],
    }
    for table, values in rows.items():
        columns = [
            pa.array(column, field.type)
            for column, field in zip(zip(*values, strict=True), TABLES[table], strict=True)
        ]
        write_table(pa.table(columns, schema=TABLES[table]), data, table)
    write_card(DatasetCard(name, is_generated=True, licence="none", settings={}), data)
    return data


def test_a_single_dataset_stays_the_same_data(dataset: Path, tmp_path: Path) -> None:
    gather([str(dataset)], tmp_path / "linked")
    gather([dataset.as_uri()], tmp_path / "fetched")
    assert data_hash(tmp_path / "linked") == data_hash(tmp_path / "fetched") == data_hash(dataset)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fetched", "linked", "shop"]


def test_only_tables_are_taken(dataset: Path, tmp_path: Path) -> None:
    (dataset / "notes.txt").touch()
    gather([dataset.as_uri()], tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["dataset.json", "products.parquet", "queries.parquet"]


def test_paths_and_uris_are_joined(dataset: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", "other")
    gather([str(dataset), other.as_uri()], tmp_path / "out")
    assert read_card(tmp_path / "out").name == "shop+other"


def test_what_is_no_dataset_is_named(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(FileNotFoundError, match=r"nowhere/dataset\.json: missing"):
        gather([str(tmp_path / "nowhere")], out)
    with pytest.raises(FileNotFoundError, match=r"^file:///nowhere/dataset\.json: missing"):
        gather([str(dataset), "file:///nowhere"], out)
    with pytest.raises(ValueError, match=r"^lake://x: .*; want a directory, or a URI like s3://"):
        gather(["lake://x"], out)
    with pytest.raises(ValueError, match="no data: want one dataset directory or more"):
        gather([], out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop"]
