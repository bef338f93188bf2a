from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

from abtest import report_words as words
from abtest.model_links import model_link
from abtest.report import markdown, report, report_name, table
from abtest.report_index import application
from abtest.report_page import page
from abtest.result import Definition, Gate, Result, read_result
from abtest.rule import Rule
from tests.abtest.results import DEFINITIONS, HOSTILE, effect, result


class Reader(HTMLParser):
    """What a browser would make of a page: elements, and text by itself."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).replace(words.GAP, " ").split())


def renamed(found: Result, name: str) -> Result:
    """All names that come from outside are this one."""
    text = msgspec.json.encode(found).decode()
    for old in ("ei-src-vs-bert", "ctr", "shop-ios", "shop/0", "client_id", "arm-b"):
        text = text.replace(old, msgspec.json.encode(name).decode()[1:-1])
    return msgspec.json.decode(text, type=Result)


def test_a_page_says_what_the_result_says() -> None:
    found = result()
    text = Reader(page(found)).text
    assert "Ship treatment: ctr rose by 3.1%" in text
    assert "Log quality: look at it" in text
    assert "5.21 % 5.37 % +3.10 % +0.162 percentage points" in text
    assert "7.43 EUR" in text
    for definition in DEFINITIONS.values():
        assert definition.text in text
    for step in found.funnel:
        assert f"{step.count:,}" in text
        assert step.text in text
    assert found.provenance.command in text
    assert found.provenance.data_sha256 in text
    assert "shop/1: 412,003 exposures" in text


def test_thresholds_are_told_and_so_is_what_is_not_the_default() -> None:
    rule = Rule(alpha=0.1, min_sample_ratio_pvalue=0.01)
    text = Reader(page(result(rule=rule))).text
    assert "Chance of a false alarm, for each family of tests 10 % (default 5 %)" in text
    assert "Full days, at least 7 p of the sample ratio, at least 0.01 (default 0.001)" in text
    assert "below 0.01 something is broken" in text


def test_models_are_linked_to_their_version_in_the_registry() -> None:
    known, other = "0123456789abcdef", "unknown"
    versions = {"control": {other: 7}, "treatment": {known: 8}}
    found = result(provenance=msgspec.structs.replace(result().provenance, model_versions=versions))
    links = {known: model_link("http://mlflow.test/ml", "a b/../c", "12")}
    url = "http://mlflow.test/ml/#/models/a%20b%2F..%2Fc/versions/12"
    html = page(found, links)
    assert "<dd>unknown: 7 exposures</dd>" in html
    assert f'<a href="{url}">a b/../c version 12</a>, {known}: 8 exposures' in html
    told = report(found, links)
    (markdown,) = (text for name, text in told.items() if name.endswith(".md"))
    assert f"version 12]({url}), {known}, 8 exposures" in markdown
    assert "model of control: unknown, 7 exposures" in markdown


def test_days_that_decide_nothing_are_not_said_to() -> None:
    looks = tuple(msgspec.structs.replace(it, critical=None) for it in result().looks)
    early = Reader(page(result(looks=looks))).text
    assert "No day here decides: the first planned look is to come." in early
    once = {"ctr": {"treatment": effect("ctr", method="fixed")}}
    assert "Only the last day decides" in Reader(page(result(looks=looks, metrics=once))).text
    assert "In the shaded area it may be chance" in Reader(page(result())).text


def test_days_without_users_have_no_share() -> None:
    nobody = msgspec.structs.replace(
        result().exposures[0], new={"control": 0, "treatment": 0}, total={}
    )
    html = page(result(exposures=(nobody, *result().exposures[1:])))
    assert "2 Nov: nobody yet" in html


def test_elements_are_closed_and_ids_are_used_once() -> None:
    reader = Reader(page(result(("control", "a", "b"))))
    assert not reader.open
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    labels = {attributes.get("aria-labelledby") for _, attributes in reader.elements} - {None}
    assert labels <= set(ids)


def test_a_page_refers_to_nothing_outside_itself() -> None:
    html = page(result())
    assert not re.search(r"https?:|//|@import|url\(", re.sub(r"<pre>.*?</pre>", "", html))
    names = {name for name, _ in Reader(html).elements}
    assert not names & {"script", "img", "iframe", "object", "form", "base", "a"}
    attributes = {key for _, found in Reader(html).elements for key in found}
    assert not {it for it in attributes if it.startswith("on") or it in ("style", "src")}


def test_hostile_names_are_text_and_nothing_else() -> None:
    reader = Reader(page(renamed(result(("arm-a", "arm-b")), HOSTILE)))
    plain = Reader(page(renamed(result(("arm-a", "arm-b")), "plain")))
    assert [name for name, _ in reader.elements] == [name for name, _ in plain.elements]
    assert [sorted(it) for _, it in reader.elements] == [sorted(it) for _, it in plain.elements]
    assert not reader.open
    assert HOSTILE in "".join(reader.texts)


def test_hostile_names_do_not_leave_their_cell_in_markdown_and_csv() -> None:
    found = renamed(result(("arm-a", "arm-b")), HOSTILE + "\n=1+1|x")
    lines = markdown(found).splitlines()
    start = lines.index("## Metrics")
    header, _, *rows = [line for line in lines[start:] if line.startswith("|")][:8]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in [header, *rows]} == {9}
    assert not re.search(r"(?<!\\)<|(?<!\\)\[", "\n".join(lines))
    formula = renamed(result(("arm-a", "arm-b")), "=cmd()")
    values = {value for row in csv.reader(io.StringIO(table(formula))) for value in row}
    assert "'=cmd()" in values
    assert "=cmd()" not in values


def test_a_report_is_named_by_experiment_and_phase() -> None:
    assert list(report(result())) == [
        f"ei-src-vs-bert-phase-1.{ending}" for ending in ("html", "md", "csv", "json")
    ]
    bad = msgspec.structs.replace(result().subject, name="../../etc/passwd\0", phase=None)
    assert report_name(result(subject=bad)) == "etc-passwd-"


def test_the_json_is_the_result_again(tmp_path: Path) -> None:
    found = result()
    path = tmp_path / "result.json"
    path.write_text(report(found)["ei-src-vs-bert-phase-1.json"])
    assert read_result(path) == found


def test_the_csv_has_a_row_for_each_effect() -> None:
    found = result(("control", "a", "b"))
    rows = list(csv.DictReader(io.StringIO(table(found))))
    assert len(rows) == 2 * len(DEFINITIONS) + len(found.segments)
    assert float(rows[0]["effect"]) == found.metrics["ctr"]["a"].effect
    assert {row["variant"] for row in rows} == {"a", "b"}


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": {}, "looks": (), "segments": (), "since_exposure": (), "exposures": ()},
        {"verdict": None, "gates": (), "funnel": ()},
        {"metrics": {"ctr": {"treatment": effect("ctr", rel_effect=None, rel_ci_low=None)}}},
        {"exposures": result().exposures[:1], "looks": result().looks[:1]},
        {"looks": (msgspec.structs.replace(result().looks[0], effect=0.0, se=0.0),)},
    ],
)
@pytest.mark.parametrize("form", [page, markdown, table])
def test_what_is_unknown_is_left_out(changes: Any, form: Callable[[Result], str]) -> None:
    made = form(result(**changes))
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", made)


def test_a_gate_that_stops_says_so() -> None:
    gate = Gate(name="sample_ratio", status="stop", message="51 % in treatment")
    text = Reader(page(result(gates=(gate,)))).text
    assert "1 forbids a decision" in text
    assert "Sample ratio: stops the decision" in text


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (words.relative(0.0312), "+3.12 %"),
        (words.relative_tick(10.0), "+1,000 %"),
        (words.relative_tick(-0.025), "−2.5 %"),
        (words.relative_tick(0.0), "0"),
        (words.relative(-0.312), "−31.2 %"),
        (words.relative(-0.00001), "0.00 %"),
        (words.relative(None), "–"),
        (words.pvalue(0.0), "< 0.0001"),
        (words.pvalue(0.0312), "0.031"),
        (words.points(-0.0012), "−0.12 percentage points"),
    ],
)
def test_numbers_in_words(made: str, said: str) -> None:
    assert made.replace(words.GAP, " ") == said


@pytest.mark.parametrize(
    ("denominator", "unit", "said"),
    [
        ("impressions", "", "+0.250"),
        ("impressions", "clicks per impression", "+25.00 percentage points"),
        ("queries", "share of queries", "+25.00 percentage points"),
        ("impressions", "EUR per 1,000 impressions", "+0.250 EUR"),
        ("impressions", "money per 1,000 impressions", "+0.250"),
        (None, "EUR", "+0.250 EUR"),
        (None, "milliseconds", "+0.250 ms"),
        (None, "", "+0.250"),
        (None, "impressions per user", "+0.250"),
    ],
)
def test_only_shares_are_percentages(denominator: str | None, unit: str, said: str) -> None:
    metric = Definition(role="primary", numerator="x", denominator=denominator, unit=unit, text="")
    assert words.scale(metric, 0.5).difference(0.25).replace(words.GAP, " ") == said


def test_what_is_above_1_is_no_share() -> None:
    metric = Definition(role="primary", numerator="x", denominator="y", text="")
    assert words.scale(metric, 1.5).value(1.5) == "1.50"


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    for name, text in report(result()).items():
        (tmp_path / name).write_text(text)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / ".hidden.json").write_text("{}")
    (tmp_path / "link.json").symlink_to("/etc/hostname")
    (tmp_path / "broken.html").symlink_to("/etc/hostname")
    return tmp_path


def test_the_index_lists_reports_and_what_cannot_be_read(reports: Path) -> None:
    client = TestClient(application(reports), base_url="http://127.0.0.1:8090")
    text = Reader(client.get("/").text).text
    assert text.index("Ship treatment") < text.index("Cannot be read")
    assert "hidden" not in text
    for ending in ("html", "json", "csv", "md"):
        answer = client.get(f"/ei-src-vs-bert-phase-1.{ending}")
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    ["/secret.txt", "/.hidden.json", "/link.json", "/broken.html", "/..%2fsecret.txt", "/x.html"],
)
def test_the_index_gives_nothing_else(reports: Path, path: str) -> None:
    client = TestClient(application(reports), base_url="http://127.0.0.1:8090")
    assert client.get(path).status_code == 404
    assert client.post("/").status_code == 405


def test_the_index_answers_to_no_other_name(reports: Path) -> None:
    client = TestClient(application(reports), base_url="http://evil.test")
    assert client.get("/").status_code == 400


def test_an_empty_directory_says_what_to_do(tmp_path: Path) -> None:
    client = TestClient(application(tmp_path), base_url="http://localhost:8090")
    assert "No report is here yet" in client.get("/").text
