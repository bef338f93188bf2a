"""The analysis of logs that simulated shoppers made, whose effect is known."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import msgspec
import numpy as np
import pytest

from abtest.aggregates import Aggregates
from abtest.experiment import Experiments
from abtest.log_analysis import Request, analyse_log, choose
from abtest.log_history import history
from abtest.result import Result, to_json
from abtest.shop import Shop
from abtest.shopper_plan import Dirt, Simulation
from abtest.shoppers import Effect, Shoppers
from querylift.commands.shoppers import write_log
from tests.abtest.made_logs import experiments_content
from tests.serving.test_object_store import s3

START = datetime(2026, 11, 2, tzinfo=UTC)
DAYS = 8


def an_experiment(**changes: Any) -> Experiments:
    given = {"phase": 2, "guardrails": {"latency_p95": {"margin": 0.5}}, **changes}
    return msgspec.convert(experiments_content("new", START, DAYS, **given), Experiments)


def a_shop() -> Shop:
    drawn = np.random.default_rng(5).integers(4, size=(20, 24))
    query, _ = np.nonzero(drawn >= 0)
    count = len(query)
    return Shop.of(
        [f"query {number}" for number in range(len(drawn))],
        1.0 + np.arange(len(drawn)),
        [f"item-{number}" for number in range(count)],
        [f"Title {number}" for number in range(count)],
        (query, np.arange(count), drawn.ravel()),
    )


def a_store(directory: Path, **changes: Any) -> Path:
    write_log(
        Simulation(
            **{
                "experiments": an_experiment(),
                "experiment_id": "new",
                "begin": START - timedelta(days=2),
                "days": DAYS + 2,
                "users": 1_000,
                "seed": 2,
                "habits": Shoppers(),
                **changes,
            }
        ),
        a_shop(),
        directory / "store",
    )
    return directory / "store"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_store(tmp_path_factory.mktemp("log"), effect=Effect(click=1.25))


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


def analysed(
    directory: Path, store: str | Path, experiments: Experiments | None = None, **given: Any
) -> Result:
    experiments = experiments or an_experiment()
    file = directory / "experiments.yaml"
    file.write_bytes(msgspec.yaml.encode(experiments))
    until = given.pop("until", START + timedelta(days=60))
    return analyse_log(Request(experiments, file, "new", store, until, "command", **given))


@pytest.fixture(scope="module")
def result(store: Path, state: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return analysed(tmp_path_factory.mktemp("run"), store, state=state, pre_days=2)


def test_the_planted_effect_is_found_and_ships(result: Result) -> None:
    ctr = result.metrics["ctr"]["treatment"]
    assert ctr.is_better
    assert ctr.rel_ci_low is not None
    assert ctr.rel_ci_high is not None
    # accidental clicks do not grow, so a little less than a quarter
    assert ctr.rel_ci_low < 0.22 < ctr.rel_ci_high
    assert ctr.cuped is not None
    assert result.verdict is not None
    assert (result.verdict.decision, result.verdict.variant) == ("ship", "treatment")


def test_checks_pass_and_what_is_constant_is_told(result: Result) -> None:
    special = ("metric", "effective_units")
    assert {gate.status for gate in result.gates if gate.name not in special} == {"pass"}
    # a few hundred users, of whom some pay
    (few,) = [gate for gate in result.gates if gate.name == "effective_units"]
    assert few.message.startswith("pay is that of few users")
    names = "arms sample_ratio crossover days freshness log_quality config"
    assert set(names.split()) <= {gate.name for gate in result.gates}
    assert any("'refunds'" in g.message for g in result.gates if g.status == "warn")


def test_roles_and_methods_are_those_of_the_file(result: Result) -> None:
    methods = {metric: found["treatment"].method for metric, found in result.metrics.items()}
    assert methods["ctr"] == methods["cvr"] == "group-sequential"
    assert methods["latency_p95"] == "confidence-sequence"
    assert list(result.metrics)[:3] == ["ctr", "pay", "latency_p95"]
    guardrail = result.metrics["latency_p95"]["treatment"].non_inferior
    assert guardrail is not None
    assert guardrail.margin == 0.5


def test_the_last_day_of_a_series_is_the_result(result: Result) -> None:
    of_ctr = [look for look in result.looks if look.metric == "ctr"]
    assert len(of_ctr) == DAYS
    assert [look.critical is None for look in of_ctr] == [True] * 6 + [False] * 2
    last, effect = of_ctr[-1], result.metrics["ctr"]["treatment"]
    assert (last.effect, last.se) == pytest.approx((effect.effect, effect.se))
    assert last.ci_low == pytest.approx(effect.ci_low)
    assert last.n_control == effect.n_control


def test_on_their_first_day_all_users_are_there(result: Result) -> None:
    days = [one for one in result.since_exposure if one.metric == "pay"]
    assert [one.days_since for one in days] == list(range(len(days)))
    assert days[0].n_control == result.metrics["pay"]["treatment"].n_control
    users = [one.n_control for one in days]
    assert users == sorted(users, reverse=True)


def test_users_come_day_by_day(result: Result) -> None:
    assert result.exposures[-1].total == result.sample_ratio.counts
    new = [sum(day.new.values()) for day in result.exposures]
    assert sum(new) == sum(result.sample_ratio.counts.values())
    assert result.sample_ratio.sequential_pvalue == result.exposures[-1].sample_ratio_pvalue


def test_a_result_says_what_it_was_made_of(result: Result) -> None:
    made = result.provenance
    assert (made.config_version, made.command) == (3, "command")
    assert "NaN" not in to_json(result)
    assert len(made.data_sha256) == len(made.config_sha256 or "") == 64
    assert set(made.model_versions) == {"control", "treatment"}
    read, kept = (next(d for d in result.funnel if d.step == s) for s in ("read", "kept"))
    dropped = [d for d in result.funnel if d.unit == "events" and d.step not in ("read", "kept")]
    assert read.count == kept.count + sum(drop.count for drop in dropped)


@contextlib.contextmanager
def memory() -> Iterator[str]:
    """A place that is no directory."""
    yield f"memory://{uuid4().hex}"


@pytest.mark.parametrize("place", [memory, s3])
def test_a_store_elsewhere_gives_the_same_result(
    store: Path, result: Result, tmp_path: Path, place: Callable[[], AbstractContextManager[str]]
) -> None:
    with place() as url:
        fsspec.core.url_to_fs(url)[0].put(f"{store}/", f"{url}/log/", recursive=True)
        found = analysed(tmp_path, f"{url}/log", pre_days=2)
        past = history(f"{url}/log", ["ctr"], 5)
    assert found.funnel == result.funnel
    assert found.provenance.data_sha256 == result.provenance.data_sha256
    for metric, effects in result.metrics.items():
        one, other = effects["treatment"], found.metrics[metric]["treatment"]
        # sums are not always added up in the same order
        assert (other.effect, other.se) == pytest.approx((one.effect, one.se))
    assert len(past.columns["clicks"]) == len(history(store, ["ctr"], 5).columns["clicks"])


def test_before_a_week_it_goes_on(store: Path, state: Path, tmp_path: Path) -> None:
    early = analysed(
        tmp_path, store, state=state, pre_days=2, until=START + timedelta(days=3, hours=7)
    )
    assert early.subject.days == 3
    assert early.verdict is not None
    assert (early.verdict.decision, early.verdict.days_left) == ("extend", DAYS - 3)
    assert early.metrics["ctr"]["treatment"].method == "confidence-sequence"
    assert early.metrics["ctr"]["treatment"].n_control < 400
    assert [gate.name for gate in early.gates if gate.status == "stop"] == ["days"]


def test_what_does_not_fit_the_log_stops(store: Path, tmp_path: Path) -> None:
    weights = {
        "control": {"weight": 0.7, "scorer": "bert"},
        "treatment": {"weight": 0.3, "scorer": "ei-src"},
    }
    other = an_experiment(variants=weights, end=START + timedelta(days=20))
    found = analysed(tmp_path, store, msgspec.structs.replace(other, version=2), is_fixed=True)
    assert {one.method for each in found.metrics.values() for one in each.values()} == {"fixed"}
    stopping = {gate.name: gate.message for gate in found.gates if gate.status == "stop"}
    assert set(stopping) == {"sample_ratio", "freshness", "config"}
    assert "--until" in stopping["freshness"]
    assert found.verdict is not None
    assert (found.verdict.decision, found.verdict.variant) == ("hold", None)


def test_users_of_several_or_of_unknown_variants_stop(tmp_path: Path) -> None:
    store = a_store(tmp_path, dirt=Dirt(crossovers=0.1), days=9, users=400)
    names = {
        "control": {"weight": 0.5, "scorer": "bert"},
        "renamed": {"weight": 0.5, "scorer": "ei-src"},
    }
    until = START + timedelta(days=7)
    found = analysed(tmp_path, store, an_experiment(variants=names), until=until)
    stopping = {gate.name for gate in found.gates if gate.status == "stop"}
    assert {"variants", "arms", "crossover"} <= stopping
    assert found.metrics == {}


def test_questions_that_have_no_answer_are_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"new/9: no exposures in the log, which has new/2"):
        analysed(tmp_path, store, an_experiment(phase=9))
    with pytest.raises(ValueError, match="no day of it is over"):
        analysed(tmp_path, store, until=START)
    with pytest.raises(ValueError, match="metric 'clicks': unknown; there are ctr"):
        analysed(tmp_path, store, an_experiment(primary=["clicks"]))
    with pytest.raises(ValueError, match="primary and guardrail at once"):
        analysed(tmp_path, store, an_experiment(guardrails={"ctr": {"margin": 0.1}}))
    with pytest.raises(FileNotFoundError, match="nothing from"):
        analysed(tmp_path, tmp_path / "nowhere")


def test_an_experiment_is_chosen_by_name_or_because_it_is_the_only_one() -> None:
    assert choose(an_experiment(), None) == choose(an_experiment(), "new") == "new"
    with pytest.raises(ValueError, match="no experiment 'old'; the file has new"):
        choose(an_experiment(), "old")


def test_a_log_is_a_history_to_plan_from(store: Path) -> None:
    end = (START + timedelta(days=5)).date()
    past = history(store, ["ctr", "pay", "pay_capped"], 5, until=end, pre_days=2)
    users = len(past.columns["clicks"])
    assert sum(past.new_users_by_day) == users
    assert past.new_users_by_day[0] == max(past.new_users_by_day)
    arm = Aggregates.from_arrays(past.columns)
    assert 0.05 < arm.mean("clicks") / arm.mean("impressions") < 0.5
    assert past.definitions["ctr"].covariates == ("pre_clicks/pre_impressions",)
    assert past.columns["amount_capped"].max() == past.definitions["pay_capped"].cap
    assert set(np.unique(past.columns["was_there"])) == {0.0, 1.0}
    with pytest.raises(ValueError, match="of rows, not of users"):
        history(store, ["latency_p95"], 5)
