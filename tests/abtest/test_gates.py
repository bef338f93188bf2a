"""Checks of numbers that are at their edges: few users, many looks."""

from __future__ import annotations

import numpy as np
import pytest

from abtest.aggregates import Aggregates
from abtest.effects import Arms, effects
from abtest.gates import effective_units_gates, few_units, sample_ratio_gate, sample_ratio_of
from abtest.result import Definition, Role
from abtest.rule import Rule
from abtest.sample_ratio import sequential_sample_ratio
from abtest.stats import Ratio, effective_units

HALVES = {"control": 0.5, "treatment": 0.5}


def counts(control: int, treatment: int) -> dict[str, int]:
    return {"control": control, "treatment": treatment}


def test_one_look_goes_by_chi_square() -> None:
    found = sample_ratio_of(counts(560, 440), HALVES)
    gate = sample_ratio_gate(found, Rule())
    assert (gate.status, gate.value) == ("stop", found.pvalue)
    assert sample_ratio_gate(sample_ratio_of(counts(550, 450), HALVES), Rule()).status == "pass"


def test_where_one_looks_every_day_the_sequential_pvalue_is_heard() -> None:
    # a chi-square of 0.0003 is nothing once in a month of days
    noisy = sample_ratio_of(counts(5_180, 4_820), HALVES, sequential_pvalue=0.4)
    assert noisy.pvalue is not None
    assert noisy.pvalue < 0.001
    gate = sample_ratio_gate(noisy, Rule())
    assert gate.status == "pass"
    assert gate.value == pytest.approx(30 * noisy.pvalue)
    slow = sample_ratio_of(counts(5_000, 5_000), HALVES, sequential_pvalue=0.0002)
    assert (sample_ratio_gate(slow, Rule()).status, slow.pvalue) == ("stop", 1.0)


def test_a_daily_look_raises_few_false_alarms_and_still_catches_a_loss() -> None:
    rng, runs = np.random.default_rng(4), 1_500

    def stopped(share: float, users: int) -> float:
        weights = [0.5, 0.5]
        alarms = 0
        for days in rng.multinomial(users, [share, 1 - share], (runs, 28)).cumsum(axis=1):
            pvalues = sequential_sample_ratio(days, weights)
            chi2 = ((days - days.sum(axis=1, keepdims=True) / 2) ** 2).sum(axis=1)
            suspect = np.flatnonzero(chi2 / (days.sum(axis=1) / 2) > 12)
            alarms += any(
                sample_ratio_gate(
                    sample_ratio_of(counts(*map(int, days[day])), HALVES, pvalues[day]), Rule()
                ).status
                == "stop"
                for day in suspect
            )
        return alarms / runs

    assert stopped(0.5, 200) <= 0.002
    assert stopped(0.55, 200) > 0.95


def test_too_few_users_to_tell_are_said_to_be() -> None:
    weights = {"control": 0.99, "treatment": 0.01}
    few = sample_ratio_of(counts(495, 12), weights)
    assert few.pvalue is not None
    assert few.pvalue < 0.01
    gate = sample_ratio_gate(few, Rule())
    assert (gate.status, gate.value) == ("warn", 1.0)
    assert "too few to tell" in gate.message
    assert "treatment 12 of 5 expected" in gate.message
    # the sequential one holds at any count
    sure = sample_ratio_of(counts(0, 9), HALVES, sequential_pvalue=1e-5)
    assert sample_ratio_gate(sure, Rule()).status == "stop"
    idle = sample_ratio_of({**counts(500, 500), "off": 0}, {**HALVES, "off": 0.0})
    assert sample_ratio_gate(idle, Rule()).status == "pass"


def test_effective_units_are_those_that_share_a_total_alike() -> None:
    amounts = np.random.default_rng(0).lognormal(0, 1, 500) * (np.arange(500) < 100)
    arm = Aggregates.from_arrays({"amount": amounts, "visits": np.ones(500), "none": 0 * amounts})
    wanted = amounts.sum() ** 2 / (amounts**2).sum()
    assert effective_units(arm, Ratio("amount")) == pytest.approx(wanted)
    assert effective_units(arm, Ratio("visits")) == pytest.approx(500)
    assert effective_units(arm, Ratio("amount", "visits")) == pytest.approx(wanted)
    assert effective_units(arm, Ratio("visits", "amount")) == pytest.approx(wanted)
    assert effective_units(arm, Ratio("none")) == 0


def definition(role: Role, column: str) -> Definition:
    return Definition(role=role, numerator=column, text=column)


def test_metrics_of_few_users_are_told_where_they_decide() -> None:
    rng = np.random.default_rng(1)
    arms = {}
    for variant, users in (("control", 3_600), ("treatment", 400)):
        buys = rng.random(users) < 0.05
        amounts = np.where(buys, rng.lognormal(3, 1, users), 0.0)
        clicks = rng.poisson(2.0, users)
        arms[variant] = Aggregates.from_arrays({"amount": amounts, "clicks": clicks})
    definitions = {
        "pay": definition("primary", "amount"),
        "clicks": definition("guardrail", "clicks"),
        "more_pay": definition("other", "amount"),
    }
    found = effects(Arms(arms), definitions)
    assert set(found.effective_units) == set(definitions)
    few = few_units(found.effective_units, definitions, Rule())
    assert list(few) == ["pay"]
    assert few["pay"] == effective_units(arms["treatment"], Ratio("amount"))
    (gate,) = effective_units_gates(few, Rule())
    assert (gate.name, gate.status, gate.threshold) == ("effective_units", "warn", 100)
    assert gate.message.startswith("pay is that of few users: as of ")
    assert few_units(found.effective_units, definitions, Rule(min_effective_units=2)) == {}
    (gate,) = effective_units_gates({}, Rule())
    assert gate.status == "pass"
