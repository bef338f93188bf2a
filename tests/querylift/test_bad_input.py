"""Bad input to the real commands: one line that names the place, exit code, nothing left behind."""

import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from querylift.cli import main

Damage = Callable[[Path], object]


@dataclass(frozen=True)
class Paths:
    """What a command line is made of: copies that a test may damage."""

    data: Path
    vocabulary: Path
    encoder: Path
    out: Path


COMMANDS: dict[str, Callable[[Paths], Sequence[object]]] = {
    "validate-data": lambda p: ("validate-data", "--data", p.data, "--out", p.out),
    "extend-vocabulary": lambda p: ("extend-vocabulary", "--data", p.data, "--out", p.out),
    "pretrain": lambda p: (
        *("pretrain", "--data", p.data, "--vocabulary", p.vocabulary, "--out", p.out),
    ),
    "finetune": lambda p: ("finetune", "--data", p.data, "--encoder", p.encoder, "--out", p.out),
}
STEPS = ("extend-vocabulary", "pretrain", "finetune")
ALL = tuple(COMMANDS)


def column(table: str, name: str, values: Callable[[list[Any]], list[Any]], kind: Any) -> Damage:
    def damage(data: Path) -> None:
        path = data / f"{table}.parquet"
        rows = pq.read_table(path)
        changed = pa.array(values(rows[name].to_pylist()), kind)
        index = rows.schema.get_field_index(name)
        pq.write_table(rows.set_column(index, pa.field(name, kind), changed), path)

    return damage


def cell(table: str, name: str, value: object) -> Damage:
    """Row 4 of the file holds ``value``."""
    kind = pa.int8() if name == "grade" else pa.string()
    return column(table, name, lambda values: [*values[:3], value, *values[4:]], kind)


def rows(table: str, change: Callable[[pa.Table], pa.Table]) -> Damage:
    def damage(data: Path) -> None:
        path = data / f"{table}.parquet"
        pq.write_table(change(pq.read_table(path)), path)

    return damage


def other_encoding(table: str, name: str) -> Damage:
    def change(given: pa.Table) -> pa.Table:
        values = [text.encode() for text in given[name].to_pylist()]
        raw = pa.array([*values[:3], b"caf\xe9", *values[4:]], pa.binary())
        text = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
        index = given.schema.get_field_index(name)
        return given.set_column(index, pa.field(name, pa.string()), text)

    return rows(table, change)


def write(name: str, content: bytes) -> Damage:
    return lambda directory: (directory / name).write_bytes(content)


def remove(name: str) -> Damage:
    return lambda directory: (directory / name).unlink()


FAULTS: dict[str, tuple[Damage, Sequence[str], str]] = {
    "missing column": (
        rows("products", lambda table: table.drop_columns(["title"])),
        ALL,
        r"products\.parquet: no column 'title' \(string\); it has item_id,",
    ),
    "wrong type": (
        column("judgments", "grade", lambda grades: [float("nan") for _ in grades], pa.float64()),
        ALL,
        r"judgments\.parquet: column 'grade' is double, want int8",
    ),
    "unknown split": (
        cell("queries", "split", "dev"),
        STEPS,
        r"queries\.parquet: column 'split', row 4: 'dev', want one of train, valid, test",
    ),
    "unknown grade": (
        cell("judgments", "grade", 7),
        ("finetune",),
        r"judgments\.parquet: column 'grade', row 4: 7, want one of 0, 1, 2, 3",
    ),
    "null grade": (
        cell("judgments", "grade", None),
        ("finetune",),
        r"judgments\.parquet: column 'grade', row 4: null, want int8",
    ),
    "unknown action": (
        cell("events", "action", "stare"),
        STEPS[1:],
        r"events\.parquet: column 'action', row 4: 'stare', want one of impression, click,",
    ),
    "no products": (
        rows("products", lambda table: table.slice(0, 0)),
        STEPS,
        r"products\.parquet: no rows, want at least one",
    ),
    "no events": (
        rows("events", lambda table: table.slice(0, 0)),
        STEPS[1:],
        r"events\.parquet: no rows, want at least one",
    ),
    "null title": (
        cell("products", "title", None),
        STEPS,
        r"products\.parquet: column 'title', row 4: null, want text",
    ),
    "doubled item": (
        rows("products", lambda table: pa.concat_tables([table, table.slice(4, 1)])),
        ("extend-vocabulary", "finetune"),
        r"products\.parquet: item_id '.+' is on rows 5 and 97, want it once",
    ),
    "title of 10 MB": (
        cell("products", "title", "lamp " * 2_000_000),
        STEPS,
        r"products\.parquet: column 'title', row 4: a text of 10,000,000 bytes, want 1,048,576",
    ),
    "title in another encoding": (
        other_encoding("products", "title"),
        ALL,
        r"products\.parquet: column 'title', row 4: b'caf\\xe9' is not UTF-8, want UTF-8 text",
    ),
    "zero-length file": (
        write("products.parquet", b""),
        ALL,
        r"products\.parquet: not a readable Parquet file",
    ),
    "missing file": (remove("queries.parquet"), ALL, r"queries\.parquet: missing"),
    "no card": (remove("dataset.json"), ALL, r"dataset\.json: missing; make a dataset with"),
    "damaged card": (write("dataset.json", b"[]"), ALL, r"dataset\.json: .*; want a JSON object"),
}


def fails(
    arguments: Sequence[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Exit code and last line of a command that must fail without a traceback."""
    line = ["querylift", *map(str, arguments), "--recipe", "smoke"]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as ended:
        main()
    errors = capsys.readouterr().err.strip().splitlines()
    assert sum(text.startswith("querylift: ") for text in errors) == 1
    assert isinstance(ended.value.code, int)
    return ended.value.code, errors[-1]


@pytest.fixture
def paths(tmp_path: Path, clicked_data: Path, vocabulary: Path, encoder: Path) -> Paths:
    data = tmp_path / "data"
    shutil.copytree(clicked_data, data)
    (tmp_path / "work").mkdir()
    for source in (vocabulary, encoder):
        shutil.copytree(source, tmp_path / source.name)
    copies = tmp_path / vocabulary.name, tmp_path / encoder.name
    return Paths(data, *copies, tmp_path / "work" / "out")


@pytest.mark.parametrize(
    ("fault", "command"),
    [(fault, command) for fault, (_, reached, _) in FAULTS.items() for command in reached],
)
def test_bad_data_is_one_line_and_leaves_nothing(
    fault: str,
    command: str,
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage, _, message = FAULTS[fault]
    damage(paths.data)
    code, line = fails(COMMANDS[command](paths), monkeypatch, capsys)
    assert code == 2
    assert re.search(message, line), line
    assert list(paths.out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("model.safetensors"), "encoder: no weights; want model.safetensors"),
        (remove("config.json"), r"config\.json: missing; want an encoder directory"),
        (remove("tokenizer.json"), r"tokenizer\.json: missing; want the directory of a tokenizer"),
        (write("tokenizer.json", b""), r"tokenizer\.json: damaged"),
        (write("config.json", b"[]"), r"config\.json: want a JSON object"),
        (write("model.safetensors", b""), r"model\.safetensors: not a readable safetensors file"),
        (
            lambda encoder: (encoder / "model.safetensors").write_bytes(
                (encoder / "model.safetensors").read_bytes()[:-9]
            ),
            r"model\.safetensors: .* bytes, want .*; it was cut",
        ),
    ],
)
def test_a_damaged_encoder_is_one_line(
    damage: Damage,
    message: str,
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(paths.encoder)
    code, line = fails(COMMANDS["finetune"](paths), monkeypatch, capsys)
    assert code == 2
    assert re.search(message, line), line
    assert list(paths.out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("encoder.json"), r"encoder\.json: missing; make a vocabulary with"),
        (write("encoder.json", b"[]"), r"encoder\.json: want a JSON object"),
        (write("encoder.json", b"{}"), r"encoder\.json: encoder is None, want a name"),
        (write("tokenizer.json", b"{}"), r"tokenizer\.json: no 'model', want a tokenizer"),
    ],
)
def test_a_directory_that_is_no_vocabulary_is_one_line(
    damage: Damage,
    message: str,
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(paths.vocabulary)
    code, line = fails(COMMANDS["pretrain"](paths), monkeypatch, capsys)
    assert code == 2
    assert re.search(message, line), line
    assert list(paths.out.parent.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_an_out_that_exists_or_lies_in_a_file_is_refused(
    command: str,
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths.out.write_text("mine")
    code, line = fails(COMMANDS[command](paths), monkeypatch, capsys)
    assert (code, line) == (
        2,
        f"querylift: {paths.out}: exists already; remove it or choose another --out",
    )
    inside = Paths(paths.data, paths.vocabulary, paths.encoder, paths.out / "deeper")
    code, line = fails(COMMANDS[command](inside), monkeypatch, capsys)
    assert (code, line) == (
        2,
        f"querylift: {paths.out}: a file, want a directory to write deeper into",
    )
    assert paths.out.read_text() == "mine"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("nosuch=1", "Recipe has no field 'nosuch'; it has seed,"),
        ("seed=-1", "seed=-1: seed is -1, want 0 or more"),
        ("pretrain.mask=2", "mask is 2.0, want above 0, at most 1"),
        ("pretrain.max_tokens=1", "max_tokens is 1, want 3 or more"),
        ("teacher.dropout=5", "dropout is 5.0, want 0 or more, below 1"),
        ("teacher.weak.pairs=-5", "pairs is -5, want 1 or more"),
        ("teacher.guide_weight=7", "guide_weight is 7.0, want 0 to 1"),
        ("distill.relation_heads=0", "relation_heads is 0, want 1 or more"),
        ("distill.temperature=0", "temperature is 0.0, want above 0"),
        ("teacher.stage_a.lr=fast", "teacher.stage_a.lr=fast: want float"),
    ],
)
def test_an_impossible_setting_is_one_line(
    setting: str,
    message: str,
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = (*COMMANDS["pretrain"](paths), "--set", setting)
    code, line = fails(arguments, monkeypatch, capsys)
    assert code == 2
    assert message in line
    assert list(paths.out.parent.iterdir()) == []


def test_a_vocabulary_that_cannot_be_read_takes_the_report_of_the_data_with_it(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (paths.data / "events.parquet").unlink()
    arguments = (*COMMANDS["validate-data"](paths), "--vocabulary", paths.data)
    code, line = fails(arguments, monkeypatch, capsys)
    assert code == 2
    assert "words.parquet: missing; make a vocabulary" in line
    assert list(paths.out.parent.iterdir()) == []
