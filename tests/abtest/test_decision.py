from __future__ import annotations

from typing import Any

import pytest

from abtest.decision import decide
from abtest.result import Definition, Effect, Gate, NonInferior, Role, Verdict
from abtest.rule import Rule


def effect(
    gain: float, half: float = 0.02, *, within: bool | None = None, is_higher_better: bool = True
) -> Effect:
    """Relative gain give or take half, over a control of 1."""
    is_significant = abs(gain) > half
    is_up = (gain > 0) == is_higher_better
    return Effect(
        control=1.0,
        treatment=1 + gain,
        effect=gain,
        se=half / 2,
        pvalue=0.01 if is_significant else 0.5,
        ci_low=gain - half,
        ci_high=gain + half,
        rel_effect=gain,
        rel_ci_low=gain - half,
        rel_ci_high=gain + half,
        n_control=1_000,
        n_treatment=1_000,
        method="fixed",
        critical=2.0,
        is_significant=is_significant,
        is_better=is_significant and is_up,
        is_worse=is_significant and not is_up,
        non_inferior=None
        if within is None
        else NonInferior(margin=0.1, is_non_inferior=within, pvalue=0.5),
    )


ROLES: dict[str, Role] = {
    "ctr": "primary",
    "pay": "primary",
    "latency": "guardrail",
    "contacts": "other",
}


def verdict(
    days_left: int = 0, gates: tuple[Gate, ...] = (), few: tuple[str, ...] = (), **effects: Any
) -> Verdict:
    definitions = {
        metric: Definition(
            role=role, numerator=metric, text=metric, is_higher_better=metric != "latency"
        )
        for metric, role in ROLES.items()
    }
    defaults = {
        "ctr": effect(0.0),
        "pay": effect(0.0),
        "latency": effect(0.0, within=True, is_higher_better=False),
        "contacts": effect(0.0),
    }
    found = {
        metric: one if isinstance(one, dict) else {"new": one}
        for metric, one in (defaults | effects).items()
    }
    return decide(found, definitions, gates, days_left, few)


def gate(name: str) -> Gate:
    return Gate(name=name, status="stop", message=f"{name} is wrong")


def test_one_better_primary_within_all_margins_ships() -> None:
    found = verdict(ctr=effect(0.05))
    assert (found.decision, found.variant, found.days_left) == ("ship", "new", None)
    assert found.sentence == (
        "Ship new: ctr rose by 5.0% (+3.0% to +7.0%), and every guardrail is within its margin."
    )


def test_it_ships_before_the_planned_end_too() -> None:
    assert verdict(days_left=9, ctr=effect(0.05)).decision == "ship"


def test_a_guardrail_that_is_not_shown_to_be_within_its_margin_waits_then_holds() -> None:
    open_ = effect(0.0, 0.2, within=False, is_higher_better=False)
    waits = verdict(days_left=5, ctr=effect(0.05), latency=open_)
    assert (waits.decision, waits.days_left) == ("extend", 5)
    assert "5 more days" in waits.sentence
    assert "latency" in waits.sentence
    assert verdict(ctr=effect(0.05), latency=open_).decision == "hold"


def test_harm_within_the_margin_is_what_the_margin_accepts() -> None:
    slower = effect(0.05, within=True, is_higher_better=False)
    assert slower.is_worse
    assert verdict(ctr=effect(0.05), latency=slower).decision == "ship"


def test_harm_beyond_the_margin_stops() -> None:
    slow = effect(0.3, within=False, is_higher_better=False)
    found = verdict(days_left=20, latency=slow)
    assert found.decision == "stop"
    assert found.sentence == "Stop new: latency rose by 30.0% (+28.0% to +32.0%)."


def test_a_worse_primary_stops() -> None:
    assert verdict(days_left=20, pay=effect(-0.05)).decision == "stop"


def test_gain_and_harm_together_are_for_people() -> None:
    for harm in ({"pay": effect(-0.05)}, {"contacts": effect(-0.05)}):
        found = verdict(days_left=9, ctr=effect(0.05), **harm)
        assert found.decision == "hold"
        assert "weighing" in found.sentence


def test_nothing_found_goes_on_and_in_the_end_keeps_the_control() -> None:
    assert verdict(days_left=1).sentence.startswith("Go on for 1 more day: no primary metric")
    found = verdict(days_left=0)
    assert found.decision == "hold"
    assert found.sentence.startswith("Keep the control")


def test_another_metric_that_got_better_ships_nothing() -> None:
    assert verdict(contacts=effect(0.3)).decision == "hold"


@pytest.mark.parametrize("name", ["sample_ratio", "crossover", "freshness", "metric"])
def test_a_gate_that_stops_decides_alone(name: str) -> None:
    found = verdict(days_left=9, gates=(gate(name),), ctr=effect(0.05))
    assert (found.decision, found.variant) == ("hold", None)
    assert found.sentence == f"Decide nothing on these numbers: {name} is wrong."


def test_a_warning_stops_nothing() -> None:
    warning = Gate(name="log_quality", status="warn", message="a few bots")
    assert verdict(gates=(warning,), ctr=effect(0.05)).decision == "ship"


def test_too_few_days_go_on_unless_there_is_harm() -> None:
    early = (gate("days"),)
    found = verdict(days_left=9, gates=early, ctr=effect(0.05))
    assert (found.decision, found.days_left) == ("extend", 9)
    slow = effect(0.3, within=False, is_higher_better=False)
    assert verdict(days_left=9, gates=early, latency=slow).decision == "stop"
    assert verdict(days_left=9, gates=early, ctr=effect(0.1), latency=slow).decision == "stop"


def test_harm_of_too_few_users_stops_nothing() -> None:
    def judged(days_left: int, gates: tuple[Gate, ...] = (), **effects: Effect) -> Verdict:
        return verdict(days_left, gates, few=("pay", "latency"), **effects)

    poor, slow = effect(-0.3), effect(0.3, within=False, is_higher_better=False)
    assert judged(9, (gate("days"),), pay=poor).decision == "extend"
    found = judged(9, pay=poor)
    assert (found.decision, found.days_left) == ("extend", 9)
    assert "pay fell by 30.0% (-32.0% to -28.0%), but of too few users to believe it" in (
        found.sentence
    )
    assert found.reasons[0].endswith("worse so far, of few users")
    assert judged(0, latency=slow).decision == "hold"
    assert judged(9, ctr=effect(0.05), pay=poor).decision == "hold"
    assert judged(9, ctr=effect(-0.05), pay=poor).decision == "stop"


def test_of_several_treatments_the_best_one_ships() -> None:
    both = {"small": effect(0.05), "large": effect(0.08), "none": effect(0.0)}
    rest = {
        metric: dict.fromkeys(both, one)
        for metric, one in {
            "pay": effect(0.0),
            "latency": effect(0.0, within=True, is_higher_better=False),
            "contacts": effect(0.0),
        }.items()
    }
    found = verdict(ctr=both, **rest)
    assert (found.decision, found.variant) == ("ship", "large")
    assert any(reason.startswith("small: ctr rose") for reason in found.reasons)


def test_a_verdict_on_all_treatments_names_none() -> None:
    same = {"one": effect(0.0), "other": effect(0.0)}
    found = verdict(
        ctr=same,
        pay=same,
        contacts=same,
        latency=dict.fromkeys(same, effect(0.0, within=True, is_higher_better=False)),
    )
    assert (found.decision, found.variant) == ("hold", None)


def test_nothing_to_compare_is_held() -> None:
    assert decide({}, {}, [], 5).decision == "hold"


def test_an_effect_without_a_relative_interval_is_told_in_its_own_unit() -> None:
    from msgspec.structs import replace

    from abtest.decision import told_effect

    told = told_effect("refunds", replace(effect(-0.5, 0.25), rel_ci_low=None, rel_ci_high=None))
    assert told == "refunds fell by 0.5 (-0.75 to -0.25)"


def test_the_defaults_are_those_of_the_guide() -> None:
    rule = Rule()
    assert (rule.alpha, rule.min_days, rule.min_sample_ratio_pvalue) == (0.05, 7, 0.001)
    assert (rule.max_crossover, rule.max_stale_hours) == (0.01, 24)
