"""``querylift ab`` as a shell sees it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from abtest import result
from abtest.experiment import schema

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "tests" / "abtest" / "experiments.yaml"
AT = ("--at", "2026-11-06T00:00Z")


def ab(*arguments: object, stdin: bytes = b"") -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    command = [sys.executable, "-m", "querylift", "ab", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False, input=stdin, cwd=ROOT)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def heavier(tmp_path: Path) -> Path:
    """A newer file whose treatment has another weight."""
    path = tmp_path / "heavier.yaml"
    text = FILE.read_text().replace("version: 7", "version: 8")
    path.write_text(text.replace("treatment: {weight: 0.5", "treatment: {weight: 0.6", 1))
    return path


def test_a_good_file_is_fine() -> None:
    assert ab("check", FILE, "--running", FILE, *AT) == (0, f"{FILE}: fine, version 7\n", "")


def test_findings_are_lines_and_exit_1(heavier: Path) -> None:
    code, out, err = ab("check", heavier, "--running", FILE, *AT)
    assert code == 1
    assert [line.partition(": ")[0] for line in out.splitlines()] == [
        "experiments.ei-src-vs-bert.variants"
    ] * 2
    assert "weights sum to 1.1, want 1 (control 0.5, treatment 0.6)" in out
    assert err == f"querylift: {heavier}: 2 findings\n"


def test_findings_are_one_json_object_too(heavier: Path) -> None:
    code, out, _ = ab("check", heavier, "--json", *AT)
    answer = json.loads(out)
    assert code == 1
    assert answer["version"] == 8
    assert answer["at"] == "2026-11-06T00:00:00Z"
    assert [finding["rule"] for finding in answer["findings"]] == ["weights"]
    assert set(answer["findings"][0]) == {"rule", "place", "message"}
    code, out, _ = ab("check", FILE, "--json", *AT)
    assert (code, json.loads(out)["findings"]) == (0, [])


def test_what_is_no_experiment_file_is_wrong_use(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("version: 1\nversion: 2\n")
    code, out, err = ab("check", path)
    assert (code, out) == (2, "")
    assert err.startswith(f"querylift: {path}: ")
    assert "'version' is there twice" in err
    assert err.count("\n") == 1
    assert ab("check", tmp_path / "none.yaml")[0] == 2


@pytest.mark.parametrize(
    ("at", "message"), [("soon", "no timestamp"), ("2026-11-06T00:00", "no time zone")]
)
def test_a_bad_instant_is_wrong_use(at: str, message: str) -> None:
    code, out, err = ab("check", FILE, "--at", at)
    assert (code, out) == (2, "")
    assert message in err


def test_the_schemas_are_json() -> None:
    for options, wanted in (((), schema()), (("--of", "result"), result.schema())):
        code, out, _ = ab("schema", *options)
        assert code == 0
        assert json.loads(out) == json.loads(json.dumps(wanted))
    code, _, err = ab("schema", "--of", "reports")
    assert code == 2
    assert "'experiments', 'result'" in err


def test_assignments_are_lines_with_tabs() -> None:
    ids = "client-1\nqa-unit-1\r\nclient-8\nZoë".encode()
    code, out, err = ab("assign", "--experiments", FILE, *AT, stdin=ids)
    assert (code, err) == (0, "")
    lines = [line.split("\t") for line in out.splitlines()]
    assert lines == [
        "unit_id experiment_id layer phase variant bucket scorer is_forced".split(),
        "client-1 ei-src-vs-bert ranking 1 control 804 bert false".split(),
        "client-1 wide-titles page 1 control 1329 bert false".split(),
        "qa-unit-1 ei-src-vs-bert ranking 1 treatment 9495 ei-src true".split(),
        "qa-unit-1 wide-titles page 1 wide 2050 bert false".split(),
        ["client-8", *[""] * 7],
        "Zoë ei-src-vs-bert ranking 1 control 2904 bert false".split(),
        "Zoë wide-titles page 1 control 7403 bert false".split(),
    ]


def test_assignments_are_json_objects_too() -> None:
    ids = "client-8\na\tb\n客户-1\n".encode()
    code, out, _ = ab("assign", "--experiments", FILE, "--json", *AT, stdin=ids)
    assert code == 0
    held, tab, other = map(json.loads, out.splitlines())
    assert held == {"unit_id": "client-8", "assignments": []}
    assert tab["unit_id"] == "a\tb"
    assert other["assignments"] == [
        {
            "experiment_id": "wide-titles",
            "layer": "page",
            "phase": 1,
            "variant": "wide",
            "bucket": 4974,
            "scorer": "bert",
            "is_forced": False,
        }
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "line 2: unit id of 0 bytes; want 1 to 512"),
        (b"x" * 513, "line 2: unit id of 513 bytes"),
        (b"\xff", "line 2: no UTF-8"),
        (b"a\tb", "line 2: unit id 'a\\tb' has a tab; want --json"),
    ],
)
def test_a_bad_line_is_named(line: bytes, message: str) -> None:
    code, out, err = ab("assign", "--experiments", FILE, *AT, stdin=b"1\n" + line + b"\n2\n")
    assert code == 2
    assert err.startswith("querylift: ")
    assert message in err
    assert out.splitlines()[-1].startswith("1\t")
