"""``ab analyze``, ``ab plan`` and ``ab simulate`` as commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner, Result

from abtest.result import read_result, schema
from querylift.commands.analysis import analyze
from querylift.commands.planning import plan, simulate
from relevance.errors import Finding
from tests.abtest.test_simulate import users

app = typer.Typer()
for command in (analyze, plan, simulate):
    app.command(command.__name__)(command)


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    made = pd.DataFrame(users(2_000))
    made["group"] = np.where(np.random.default_rng(0).random(len(made)) < 0.5, "control", "new")
    made["clicks"] *= np.where(made.group == "new", 1.2, 1.0)
    made["id"] = np.arange(len(made))
    made["device"] = np.where(made.id % 3 == 0, "phone", "desktop")
    made.to_parquet(tmp_path / "users.parquet")
    return tmp_path / "users.parquet"


def test_analyze_prints_one_json_object_and_nothing_else(table: Path) -> None:
    found = run(
        *("analyze", "--users", table, "--variant-column", "group", "--unit-column", "id"),
        *("--metric", "ctr=clicks/impressions", "--metric", "pay=amount", "--json"),
        *("--cuped", "ctr=pre_clicks/pre_impressions", "--segment", "device"),
    )
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert set(told["metrics"]) == {"ctr", "pay"}
    assert told["metrics"]["ctr"]["new"]["cuped"]["variance_saved"] > 0.1
    assert told["subject"]["control"] == "control"
    assert len(told["segments"]) == 4


def test_the_json_is_what_the_schema_says(table: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    found = run(
        *("analyze", "--users", table, "--variant-column", "group", "--metric", "pay=amount"),
        *("--cuped", "pay=pre_amount", "--segment", "device", "--looks", "0.5,1", "--json"),
    )
    check = jsonschema.Draft202012Validator(schema())
    check.check_schema(schema())
    told = json.loads(found.stdout)
    assert list(check.iter_errors(told)) == []
    told["metrics"]["pay"]["new"]["pvalue"] = "small"
    assert not check.is_valid(told)


def test_analyze_tells_people_the_same(table: Path) -> None:
    found = run(
        *("analyze", "--users", table, "--variant-column", "group"),
        *("--metric", "ctr=clicks/impressions", "--looks", "0.5,1"),
    )
    assert found.exit_code == 0, found.output
    assert "users are as the weights say" in found.stdout
    assert "ctr: clicks over impressions" in found.stdout
    assert " better" in found.stdout


def test_analyze_ends_with_a_finding_where_a_check_stops(table: Path, tmp_path: Path) -> None:
    found = run(
        *("analyze", "--users", table, "--variant-column", "group", "--metric", "pay=amount"),
        *("--weights", "control=0.8,new=0.2", "--out", tmp_path / "out", "--json"),
    )
    assert isinstance(found.exception, Finding)
    assert "users are not as the weights say" in str(found.exception)
    written = read_result(tmp_path / "out" / "users.parquet.json")
    assert written.sample_ratio.pvalue == json.loads(found.stdout)["sample_ratio"]["pvalue"]


def test_analyze_overwrites_nothing(table: Path, tmp_path: Path) -> None:
    asked = ("analyze", "--users", table, "--variant-column", "group", "--metric", "pay=amount")
    assert run(*asked, "--out", tmp_path / "out").exit_code == 0
    before = (tmp_path / "out" / "users.parquet.json").read_bytes()
    assert isinstance(run(*asked, "--out", tmp_path / "out").exception, FileExistsError)
    assert (tmp_path / "out" / "users.parquet.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("analyze",), "want --experiment FILE with --events URL, or --users FILE"),
        (("analyze", "--users", "x.csv", "--events", "y"), "want --experiment FILE with"),
        (("analyze", "--events", "x"), "--events wants --experiment FILE beside it"),
        (("analyze", "--users", "x.csv"), "--users wants --metric NAME=COLUMN"),
        (("analyze", "--users", "x.csv", "--metric", "pay"), "'pay': want NAME=VALUE"),
        (
            ("analyze", "--users", "x.csv", "--metric", "a=b", "--metric", "a=c"),
            "one name twice in a, a",
        ),
        (
            ("analyze", "--users", "x.csv", "--metric", "a=b", "--weights", "a=half"),
            "--weights 'half': want a number",
        ),
        (("plan",), "want --users FILE or --events URL"),
        (("plan", "--mean", "1"), "--mean wants --sd"),
        (("plan", "--mean", "1", "--sd", "1", "--users", "x"), "not two"),
        (
            ("plan", "--mean", "1", "--sd", "1", "--denominator-mean", "2"),
            "--denominator-mean wants --denominator-sd",
        ),
        (("plan", "--events", "x", "--cuped", "a=b"), "with --events give --pre-days"),
        (("simulate", "--users", "x.csv", "--metric", "a=b", "--effect", "a"), "want NAME=VALUE"),
    ],
)
def test_wrong_use_is_told(arguments: tuple[str, ...], wanted: str) -> None:
    found = run(*arguments)
    assert isinstance(found.exception, ValueError)
    assert wanted in str(found.exception)


def test_plan_tells_users_days_and_the_effect_of_each_day(table: Path, tmp_path: Path) -> None:
    asked = (
        *("plan", "--users", table, "--metric", "ctr=clicks/impressions", "--effect", 0.1),
        *("--users-by-day", "900,700,600,500", "--cuped", "ctr=pre_clicks/pre_impressions"),
    )
    found = run(*asked, "--json", "--svg", tmp_path / "plan.svg")
    assert found.exit_code == 0, found.output
    plain, with_cuped = json.loads(found.stdout)
    assert with_cuped["users"] < plain["users"]
    assert [day["users"] for day in plain["by_day"]] == [900, 1_600, 2_200, 2_700]
    assert (tmp_path / "plan.svg").read_text().startswith("<svg")
    text = run(*asked).stdout
    assert "ctr with CUPED" in text
    assert "2,700" in text


def test_plan_takes_typed_in_moments() -> None:
    found = run(
        *("plan", "--mean", 0.4, "--sd", 1.2, "--denominator-mean", 8, "--denominator-sd", 10),
        *("--correlation", 0.6, "--effect", 0.02, "--json"),
    )
    (one,) = json.loads(found.stdout)
    assert one["value"] == pytest.approx(0.05)
    assert one["users"] > 100_000


def test_simulate_tells_rates_with_and_without_covariates(table: Path) -> None:
    asked = (
        *("simulate", "--users", table, "--metric", "ctr=clicks/impressions", "--runs", 200),
        *("--cuped", "ctr=pre_clicks/pre_impressions", "--effect", "ctr=0.2"),
    )
    rates = json.loads(run(*asked, "--json").stdout)
    assert [rate["is_cuped"] for rate in rates] == [False, True]
    assert rates[1]["rejected"] > rates[0]["rejected"]
    assert "95% intervals hold" in run(*asked).stdout
