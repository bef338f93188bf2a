"""Bad input to ``ab analyze``: a finding or an error that names it, never a misleading number."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
import yaml
from typer.testing import CliRunner

from querylift.commands.analysis import analyze
from querylift.commands.planning import plan
from relevance.errors import Finding
from tests.abtest.made_logs import Row, event, experiments_content, exposure, write_store

START = datetime(2026, 11, 2, tzinfo=UTC)
DAYS = 8
USERS = 240

app = typer.Typer()
app.command()(analyze)
app.command()(plan)


def shopper(number: int, **changes: Any) -> list[Row]:
    """A user's one visit: ten impressions, a few clicks, now and then a payment."""
    at = START + timedelta(days=number % DAYS, hours=8, seconds=number)
    given = {"variant": ("control", "treatment")[number % 2], "currency": "EUR", **changes}
    client, where = f"client-{number}", {"query_id": "q", "item_id": "i"}
    rows = [exposure(at, client, given["variant"])]
    rows += [event("impression", at, client, query_id="q", item_id=f"i{n}") for n in range(9)]
    rows += [event("impression", at, client, **where)]
    rows += [event("click", at + timedelta(seconds=n), client, **where) for n in range(number % 4)]
    if number % 3 == 0:
        amount = given.get("amount", 10.0 + number % 7)
        money = {"order_id": f"o{number}", "amount": amount, "currency": given["currency"]}
        rows.append(event("pay", at + timedelta(minutes=5), client, **money))
    return rows


def log(numbers: Iterable[int] = range(USERS), **changes: Any) -> list[Row]:
    return [row for number in numbers for row in shopper(number, **changes)]


def experiment_file(directory: Path, **changes: Any) -> Path:
    path = directory / "experiments.yaml"
    content = experiments_content("ei", START, DAYS, **changes)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


class Told:
    """What a command line answered."""

    def __init__(self, *arguments: object) -> None:
        done = CliRunner().invoke(app, ["analyze", *map(str, arguments), "--json"])
        self.error = done.exception
        self.result = json.loads(done.stdout) if done.stdout.startswith("{") else {}

    @property
    def metrics(self) -> set[str]:
        return set(self.result["metrics"])

    def gate(self, name: str) -> tuple[str, str]:
        """Status and message of the only check of a name."""
        (found,) = [gate for gate in self.result["gates"] if gate["name"] == name]
        return found["status"], found["message"]


@pytest.fixture
def of_log(tmp_path: Path) -> Callable[..., Told]:
    def analysed(events: list[Row], *options: object, **changes: Any) -> Told:
        write_store(tmp_path / "store", events, [])
        file = experiment_file(tmp_path, **changes)
        return Told("--experiment", file, "--events", tmp_path / "store", *options)

    return analysed


@pytest.fixture
def of_table(tmp_path: Path) -> Callable[..., Told]:
    def analysed(rows: list[dict[str, Any]], *options: object) -> Told:
        with (tmp_path / "users.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return Told("--users", tmp_path / "users.csv", *options)

    return analysed


def users(**columns: Callable[[int], Any]) -> list[dict[str, Any]]:
    """A table of 400 users; a column is what it says of the user's number."""
    usual: dict[str, Callable[[int], Any]] = {
        "variant": lambda n: ("control", "treatment")[n % 2],
        "clicks": lambda n: n % 4,
        "impressions": lambda n: 10 + n % 5,
        "amount": lambda n: (n * 7) % 23,
    }
    return [{name: of(n) for name, of in (usual | columns).items()} for n in range(400)]


CTR = ("--metric", "ctr=clicks/impressions")
PAY = ("--metric", "pay=amount")


def test_a_log_without_faults_ships_what_is_better(of_log: Callable[..., Told]) -> None:
    told = of_log(log())
    assert told.error is None
    assert {"ctr", "pay"} <= told.metrics
    assert told.result["verdict"]["decision"] == "ship"
    assert told.gate("currency") == ("pass", "amounts are in EUR")
    units = {name: one["unit"] for name, one in told.result["definitions"].items()}
    assert (units["pay"], units["earnings_rate"]) == ("EUR per user", "EUR per 1,000 impressions")


def test_an_empty_arm_is_a_finding_without_numbers(of_log: Callable[..., Told]) -> None:
    told = of_log(log(range(0, USERS, 2)))
    assert isinstance(told.error, Finding)
    assert told.metrics == set()
    assert told.gate("arms") == (
        "stop",
        "treatment has 0 users (by client_id), want 100 or more",
    )
    assert told.result["verdict"]["decision"] == "hold"


def test_an_empty_arm_of_a_table_is_a_finding(of_table: Callable[..., Told]) -> None:
    shares = "control=0.4,treatment=0.4,new=0.2"
    told = of_table(users(), *CTR, "--weights", shares)
    assert isinstance(told.error, Finding)
    assert "new has 0 users" in str(told.error)
    assert told.metrics == set()


def test_a_denominator_of_zero_is_a_finding(of_log: Callable[..., Told]) -> None:
    told = of_log([row for row in log() if row["action"] in ("exposure", "pay")])
    assert isinstance(told.error, Finding)
    assert str(told.error) == (
        "no numbers of 'ctr': denominator 'impressions' sums to 0 over 120 units"
    )
    assert "ctr" not in told.metrics


def test_a_denominator_of_zero_in_a_table_is_a_finding(of_table: Callable[..., Told]) -> None:
    told = of_table(users(impressions=lambda n: 0), *CTR, *PAY)
    assert isinstance(told.error, Finding)
    assert "denominator 'impressions' sums to 0" in str(told.error)
    assert told.metrics == {"pay"}


@pytest.mark.parametrize("amount", [-5.0, float("inf"), float("nan")])
def test_payments_that_are_negative_or_infinite_are_refused(
    of_log: Callable[..., Told], amount: float
) -> None:
    told = of_log([*log(), *shopper(USERS, amount=amount)])
    assert isinstance(told.error, ValueError)
    assert str(told.error) == "1 amounts of pay: want finite numbers, 0 or more"
    assert told.result == {}


def test_infinite_amounts_of_a_table_are_refused(of_table: Callable[..., Told]) -> None:
    told = of_table(users(amount=lambda n: "inf" if n == 7 else 1.5), *PAY)
    assert isinstance(told.error, ValueError)
    assert "column 'amount': 1 values are not finite" in str(told.error)


def test_negative_amounts_of_a_table_are_worth_a_look(of_table: Callable[..., Told]) -> None:
    told = of_table(users(amount=lambda n: n % 7 - 1), *PAY)
    assert told.error is None
    status, message = told.gate("below_zero")
    assert (status, message) == ("warn", "column 'amount' is below 0 for 58 users")


def test_a_metric_that_is_the_same_for_all_is_a_finding(of_log: Callable[..., Told]) -> None:
    # sums of 0.1 keep a trace of a variance
    events = [row for n in range(USERS) for row in shopper(n) if row["action"] != "pay"]
    at = START + timedelta(days=DAYS) - timedelta(hours=1)
    events += [
        event("pay", at, f"client-{n}", order_id=f"o{n}", amount=0.1, currency="EUR")
        for n in range(USERS)
    ]
    told = of_log(events)
    assert isinstance(told.error, Finding)
    assert (
        str(told.error) == "no numbers of 'pay': 0.1 for all users of all variants: nothing to test"
    )
    assert "pay" not in told.metrics


def test_a_ratio_that_is_the_same_for_all_is_a_finding(of_table: Callable[..., Told]) -> None:
    told = of_table(users(clicks=lambda n: 0.1 * (10 + n % 5)), *CTR, *PAY)
    assert isinstance(told.error, Finding)
    assert "no numbers of 'ctr': 0.1 for all users" in str(told.error)
    assert told.metrics == {"pay"}


def test_a_guardrail_that_is_the_same_for_all_stops_nothing(of_log: Callable[..., Told]) -> None:
    told = of_log(log(), guardrails={"impressions_per_user": {"margin": 0.02}})
    assert told.error is None
    assert "impressions_per_user" not in told.metrics
    assert told.result["verdict"]["decision"] == "ship"


def test_users_who_were_not_there_before_have_a_covariate_that_says_so(
    of_log: Callable[..., Told],
) -> None:
    before = START - timedelta(days=1)
    earlier = [event("impression", before, f"client-{n}", query_id="q") for n in range(0, USERS, 3)]
    told = of_log([*log(), *earlier], "--pre-days", 2)
    assert told.error is None
    assert told.result["definitions"]["pay"]["covariates"] == ["pre_amount", "was_there"]
    assert told.result["metrics"]["pay"]["treatment"]["cuped"]["variance_saved"] >= 0


def test_users_of_a_table_without_a_covariate_stay_in(of_table: Callable[..., Told]) -> None:
    rows = users(pre_amount=lambda n: "" if n % 3 == 0 else (n * 7) % 23 + n % 2)
    told = of_table(rows, *PAY, "--cuped", "pay=pre_amount")
    assert told.error is None
    effect = told.result["metrics"]["pay"]["treatment"]
    assert effect["n_control"] + effect["n_treatment"] == 400
    assert told.result["definitions"]["pay"]["covariates"] == ["pre_amount", "has_pre_amount"]


def test_a_file_whose_weights_are_not_those_of_the_log_is_a_finding(
    of_log: Callable[..., Told],
) -> None:
    shares = {"control": 0.8, "treatment": 0.2}
    variants = {name: {"weight": share, "scorer": "bert"} for name, share in shares.items()}
    told = of_log(log(), variants=variants)
    assert isinstance(told.error, Finding)
    assert told.gate("sample_ratio")[1].startswith(
        "users are not as the weights say (control 120 of 192 expected, treatment 120 of 48"
    )
    assert told.result["verdict"]["decision"] == "hold"


def test_zones_of_a_file_may_differ_and_the_result_does_not(of_log: Callable[..., Told]) -> None:
    in_utc = of_log(log())
    elsewhere = of_log(log(), start="2026-11-02T01:00:00+01:00", end="2026-11-09T19:00:00-05:00")
    assert elsewhere.error is None
    assert elsewhere.result["metrics"] == in_utc.result["metrics"]


def test_a_file_without_a_zone_is_refused(of_log: Callable[..., Told]) -> None:
    told = of_log(log(range(2)), start="2026-11-02T01:00:00")
    assert isinstance(told.error, ValueError)
    assert "experiments.ei.start: '2026-11-02T01:00:00'" in str(told.error)


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_moments_of_another_zone_are_the_same_and_those_of_none_are_refused(
    tmp_path: Path, zone: str | None
) -> None:
    write_store(tmp_path / "store", log(), [])
    file = sorted((tmp_path / "store" / "events").glob("date=*/*.parquet"))[3]
    rows = pq.read_table(file)
    for name in ("timestamp", "received_at"):
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, name, rows[name].cast(pa.timestamp("us", zone)))
    pq.write_table(rows, file)
    told = Told("--experiment", experiment_file(tmp_path), "--events", tmp_path / "store")
    if zone:
        assert told.error is None
        assert told.result["sample_ratio"]["counts"] == {"control": 120, "treatment": 120}
    else:
        assert isinstance(told.error, ValueError)
        assert f"{file}: moments without a zone, and so in 1 of 8 files; want UTC" == str(
            told.error
        )


def test_a_log_without_exposures_is_refused(of_log: Callable[..., Told]) -> None:
    told = of_log([row for row in log(range(9)) if row["action"] != "exposure"])
    assert isinstance(told.error, ValueError)
    assert str(told.error) == "experiment ei/1: no exposures in the log, which has none"


def test_fewer_than_seven_days_go_on(of_log: Callable[..., Told]) -> None:
    told = of_log(log(), "--until", "2026-11-05T00:00Z")
    assert isinstance(told.error, Finding)
    assert told.gate("days") == ("stop", "3 full days of data, want 7 or more")
    assert told.result["verdict"]["sentence"].startswith("Go on for 5 more days: 3 full days")


def test_fewer_days_are_enough_where_the_file_says_so(of_log: Callable[..., Told]) -> None:
    rule = {"min_days": 2, "min_users": 20, "alpha": 0.1}
    told = of_log(log(), "--until", "2026-11-06T00:00Z", decision=rule)
    assert told.error is None
    assert told.gate("days") == ("pass", "4 full days of data")
    assert told.result["alpha"] == 0.1
    assert told.result["rule"] | rule == told.result["rule"]
    assert {gate["status"] for gate in told.result["gates"] if gate["name"] == "arms"} == {"pass"}


def in_two_currencies() -> list[Row]:
    return [row for n in range(USERS) for row in shopper(n, currency=("EUR", "USD")[n % 2])]


def test_amounts_in_two_currencies_are_a_finding_and_never_a_sum(
    of_log: Callable[..., Told],
) -> None:
    told = of_log(in_two_currencies())
    assert isinstance(told.error, Finding)
    assert told.gate("currency") == (
        "stop",
        "amounts are in several currencies, which have no sum: EUR (40), USD (40); want one, or "
        "pay cannot be told",
    )
    assert told.metrics == {"ctr", "clicked"}
    assert not [m for m, one in told.result["definitions"].items() if "amount" in one["numerator"]]


def test_two_currencies_do_not_stop_what_is_not_about_money(of_log: Callable[..., Told]) -> None:
    told = of_log(in_two_currencies(), primary=["ctr"])
    assert told.error is None
    assert told.gate("currency")[0] == "warn"
    assert told.result["verdict"]["decision"] == "ship"


def test_two_currencies_are_no_history_to_plan_from(tmp_path: Path) -> None:
    write_store(tmp_path / "store", in_two_currencies(), [])
    asked = ["plan", "--events", str(tmp_path / "store"), "--days", "7"]
    found = CliRunner().invoke(app, [*asked, "--metric", "pay"])
    assert isinstance(found.exception, ValueError)
    assert str(found.exception) == "amounts in EUR, USD: they have no sum, want one currency"
    assert CliRunner().invoke(app, [*asked, "--metric", "ctr"]).exception is None


def test_a_currency_of_others_does_no_harm(of_log: Callable[..., Told]) -> None:
    abroad = [row for row in shopper(USERS, currency="USD") if row["action"] != "exposure"]
    told = of_log([*log(), *abroad])
    assert told.error is None
    assert told.gate("currency") == ("pass", "amounts are in EUR")
