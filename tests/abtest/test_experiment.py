"""The experiment file is read whole and strictly, or refused with the place of the mistake."""

import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from abtest.experiment import Experiments, load_experiments, read_experiments, schema

PATH = Path(__file__).parent / "experiments.yaml"
FILE = load_experiments(PATH)
TREE: dict[str, Any] = msgspec.to_builtins(FILE)
NAME = "ei-src-vs-bert"
EXPERIMENT = f"experiments.{NAME}"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("experiments") / "experiments.yaml"


def lists(value: Any) -> Any:
    """Tuples as JSON has them."""
    return msgspec.json.decode(msgspec.json.encode(value))


def with_value(place: str, value: object) -> dict[str, Any]:
    """The file's tree with another value at ``place``; an ellipsis takes it out."""
    tree = lists(TREE)
    *above, last = (int(key) if key.isdigit() else key for key in place.split("/"))
    part = tree
    for key in above:
        part = part[key]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    return tree  # type: ignore[no-any-return]


def refused(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: ") as caught:
        load_experiments(path)
    return str(caught.value).removeprefix(f"{path}: ")


def outcome(path: Path) -> str:
    try:
        load_experiments(path)
    except ValueError as error:
        return str(error)
    return f"{path}: fine"


def test_a_file_that_is_written_again_is_the_same(path: Path) -> None:
    path.write_text(yaml.safe_dump(lists(TREE), sort_keys=False))
    assert load_experiments(path) == FILE


def test_a_file_is_fine_under_its_schema_and_one_with_a_mistake_is_not() -> None:
    check = jsonschema.Draft202012Validator(schema())
    check.check_schema(schema())
    assert check.is_valid(lists(TREE))
    for place, value in (
        ("unit", "two words"),
        ("version", 0),
        ("experimants", {}),
        (f"experiments/{NAME}/range", [0, 10_001]),
        (f"experiments/{NAME}/variants", {"control": {"weight": 1.0, "scorer": "bert"}}),
        ("scorers/bert/url", "127.0.0.1:8001"),
    ):
        assert not check.is_valid(with_value(place, value)), place


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("version", "7", "version: '7'; Expected `int`, got `str`"),
        ("version", True, "version: True; Expected `int`, got `bool`"),
        ("champion", ..., "the file: Object missing required field `champion`"),
        ("experimants", {}, "the file: Object contains unknown field `experimants`"),
        ("layers/ranking", 1, "layers.ranking: 1; Expected `object`, got `int`"),
        ("layers/page/salt", "", "layers.page.salt: ''; Expected `str` matching"),
        ("layers/a page", {"salt": "x"}, "layers.a page: Expected `str` matching"),
        ("scorers/ei-src/url", "ftp://x", "scorers.ei-src.url: 'ftp://x'; Expected `str`"),
        ("scorers/ei-src/url", "http://u:p@x", "url: 'http://...@x'; Expected"),
        ("scorers/ei-src/url", "http://x:99999", "scorers.ei-src: Port out of range"),
        ("scorers/ei-src/url", "http://:80", "scorers.ei-src: want http://HOST:PORT"),
        ("scorers/ei-src/url", "http://x\n", "scorers.ei-src.url: "),
        (f"experiments/{NAME}/start", "2026-11-02T00:00:00", "with a timezone component"),
        (f"experiments/{NAME}/start", ..., f"{EXPERIMENT}: Object missing required field `start`"),
        (f"experiments/{NAME}/range", [0, 10_001], f"{EXPERIMENT}.range[1]: 10001; Expected"),
        (f"experiments/{NAME}/range", [0], f"{EXPERIMENT}.range: Expected `array` of length 2"),
        (f"experiments/{NAME}/ramp/1/range", [0, -1], f"{EXPERIMENT}.ramp[1].range[1]: -1;"),
        (f"experiments/{NAME}/variants/treatment/weight", 1.5, ".variants.treatment.weight: 1.5;"),
        (f"experiments/{NAME}/variants/treatment/wieght", 1.5, ".variants.treatment: Object con"),
        (f"experiments/{NAME}/shadow/share", 0, f"{EXPERIMENT}.shadow.share: 0;"),
        (f"experiments/{NAME}/forced", {"": "control"}, f"{EXPERIMENT}.forced.: Expected"),
        (f"experiments/{NAME}/forced", {"x" * 513: "control"}, "unit id of 513 bytes"),
        (f"experiments/{NAME}/primary", [], f"{EXPERIMENT}.primary: Expected `array` of length"),
        (f"experiments/{NAME}/guardrails/latency_p95/margin", 0, "latency_p95.margin: 0;"),
        (f"experiments/{NAME}/guardrails/latency_p95/margin", float("nan"), "latency_p95.margin"),
        (f"experiments/{NAME}/guardrails/latency_p95/margin", float("inf"), "latency_p95.margin"),
    ],
)
def test_a_mistake_is_told_with_its_place(
    path: Path, place: str, value: object, message: str
) -> None:
    assert message in refused(path, yaml.safe_dump(with_value(place, value), sort_keys=False))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file: None; Expected `object`, got `null`"),
        ("- 1", "the file: Expected `object`, got `array`"),
        ("a: 1\na: 2", "key 'a' is there twice; want it once"),
        ("a: {b: 1, c: 2, b: 3}", "line 1, column 17"),
        ("on: 1", "key 'on' is no text; quote it"),
        ("1: 1", "key '1' is no text; quote it"),
        ("<<: {a: 1}", "key '<<' is no text"),
        ("a: &x 1\nb: *x", "an alias; want the text itself"),
        ("a: &x [*x]", "an alias"),
        ("a: [1", "line 1, column 6"),
        ("a: !!python/name:os.system x", "could not determine a constructor"),
        ("a: !!bool x", ""),
        ("a: !!timestamp x", ""),
        ("a: 2026-13-45", "month must be in 1..12"),
        ("a: " + "[" * 5_000, "nested too deep"),
        ("---\na: 1\n---\nb: 1", "expected a single document"),
        (b"\xff\xfe", ""),
        (b"a: \xe9", "utf-8"),
    ],
)
def test_what_is_no_strict_yaml_is_refused(path: Path, content: str | bytes, message: str) -> None:
    assert message in refused(path, content)


def test_a_date_without_a_zone_is_refused(path: Path) -> None:
    text = PATH.read_text()
    assert "timezone" in refused(path, text.replace("00+01:00", "00"))
    assert "got `date`" in refused(path, text.replace("T00:00:00+01:00", ""))


def test_a_file_with_faults_is_read_but_not_loaded(path: Path) -> None:
    tree = with_value(f"experiments/{NAME}/variants/treatment/weight", 0.47)
    tree["champion"] = "nobody"
    message = refused(path, yaml.safe_dump(tree, sort_keys=False))
    assert "champion: no scorer 'nobody'; the file has bert, ei-src, ei-src-v2; " in message
    assert "weights sum to 0.97, want 1 (control 0.5, treatment 0.47)" in message
    assert isinstance(read_experiments(path), Experiments)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_experiments(tmp_path / "none.yaml")


def values(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from([*TREE, *TREE["experiments"][NAME], "x", "*", "<<"])
    return st.recursive(
        leaf,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=8,
    )


LEAF = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.binary(max_size=4)
)


def places(tree: Any, above: tuple[str, ...] = ()) -> list[str]:
    if isinstance(tree, dict):
        inner = tree.items()
    elif isinstance(tree, list):
        inner = [(str(index), value) for index, value in enumerate(tree)]
    else:
        return ["/".join(above)]
    here = ["/".join(above)] if above else []
    return here + [place for key, value in inner for place in places(value, (*above, key))]


@settings(max_examples=100, deadline=None)
@given(place=st.sampled_from(places(lists(TREE))), value=values(LEAF))
def test_a_file_with_anything_anywhere_is_loaded_or_refused(
    path: Path, place: str, value: Any
) -> None:
    path.write_text(yaml.dump(with_value(place, value), allow_unicode=True), encoding="utf-8")
    assert outcome(path).startswith(f"{path}: ")


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, len(PATH.read_bytes())), text=st.binary(max_size=6))
def test_a_file_with_damage_is_loaded_or_refused(path: Path, at: int, text: bytes) -> None:
    content = PATH.read_bytes()
    path.write_bytes(content[:at] + text + content[at + len(text) :])
    assert outcome(path).startswith(f"{path}: ")
