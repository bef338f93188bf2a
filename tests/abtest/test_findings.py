"""Every way in which a file is wrong has one finding, and a good file has none."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from abtest.assignment import Split
from abtest.experiment import (
    Experiment,
    Experiments,
    Guardrail,
    Holdout,
    Layer,
    Shadow,
    Step,
    load_experiments,
)
from abtest.findings import faults, findings, moves
from abtest.rule import Rule

FILE = load_experiments(Path(__file__).parent / "experiments.yaml")
DURING = datetime(2026, 11, 6, tzinfo=UTC)
NAME = "ei-src-vs-bert"
PLACE = f"experiments.{NAME}"
ONE = FILE.experiments[NAME]
DAY = timedelta(days=1)


def changed(name: str = NAME, **changes: object) -> Experiments:
    one = replace(FILE.experiments[name], **changes)
    return replace(FILE, experiments={**FILE.experiments, name: one})


def added(**changes: object) -> Experiments:
    """The file with a fourth experiment, which would have none of the others' units."""
    other: dict[str, object] = {"salt": "fourth", "forced": {}, "ramp": (), "range": (0, 0)}
    return replace(
        FILE, experiments={**FILE.experiments, "fourth": replace(ONE, **(other | changes))}
    )


def weighed(*weights: float) -> dict[str, object]:
    names = ("control", "treatment")
    return {
        name: replace(ONE.variants[name], weight=weight)
        for name, weight in zip(names, weights, strict=True)
    }


def test_a_good_file_has_no_findings_alone_or_beside_itself() -> None:
    assert findings(FILE, None, DURING) == findings(FILE, FILE, DURING) == []


AT_FAULT: list[tuple[str, str, str, Experiments]] = [
    ("unknown", "champion", "no scorer 'x'", replace(FILE, champion="x")),
    ("unknown", f"{PLACE}.layer", "no layer 'x'; the file has ranking, page", changed(layer="x")),
    ("unknown", f"{PLACE}.forced.q", "no variant 'x'", changed(forced={"q": "x"})),
    ("unknown", f"{PLACE}.shadow.scorer", "no s", changed(shadow=Shadow(scorer="x", share=1))),
    (
        "unknown",
        f"{PLACE}.variants.control.scorer",
        "no scorer 'x'",
        changed(variants={**ONE.variants, "control": replace(ONE.variants["control"], scorer="x")}),
    ),
    (
        "salt",
        f"{PLACE}.salt",
        "'page-2026-10' is that of layers.page.salt",
        changed(salt="page-2026-10"),
    ),
    (
        "salt",
        "experiments.wide-titles.salt",
        f"'{NAME}' is that",
        changed("wide-titles", salt=NAME),
    ),
    (
        "salt",
        "layers.page.salt",
        "'holdout-2026' is that of holdout.salt already",
        replace(FILE, layers={**FILE.layers, "page": Layer(salt="holdout-2026")}),
    ),
    (
        "range",
        "holdout.range",
        "[9, 1] ends",
        replace(FILE, holdout=Holdout(salt="h", range=(9, 1))),
    ),
    ("range", f"{PLACE}.range", "[500, 0] ends before it begins", changed(range=(500, 0))),
    (
        "range",
        f"{PLACE}.ramp[0].range",
        "[9, 1]",
        changed(ramp=(replace(ONE.ramp[0], range=(9, 1)),)),
    ),
    ("variants", f"{PLACE}.variants", "0 given", changed(variants={}, forced={})),
    (
        "weights",
        f"{PLACE}.variants",
        "weights sum to 0.97, want 1 (control 0.5, treatment 0.47)",
        changed(variants=weighed(0.5, 0.47)),
    ),
    ("dates", f"{PLACE}.end", "is not after the start", changed(end=ONE.start)),
    (
        "dates",
        f"{PLACE}.ramp[1].at",
        "is not after the step before it",
        changed(ramp=(ONE.ramp[0], replace(ONE.ramp[1], at=ONE.ramp[0].at))),
    ),
    (
        "ramp",
        f"{PLACE}.ramp[0].range",
        "[1, 8000] leaves out units of [0, 500]",
        changed(ramp=(replace(ONE.ramp[0], range=(1, 8_000)),)),
    ),
    (
        "ramp",
        f"{PLACE}.ramp[0].range",
        "[0, 400] leaves out units of [0, 500]",
        changed(ramp=(replace(ONE.ramp[0], range=(0, 400)),)),
    ),
    (
        "overlap",
        "experiments.ei-src-three-ways.range",
        f"[7999, 10000] overlaps [0, 8000] of '{NAME}'",
        changed("ei-src-three-ways", range=(7_999, 10_000)),
    ),
    (
        "overlap",
        "experiments.fourth.range",
        f"[7000, 7001] overlaps [0, 8000] of '{NAME}' in layer "
        "'ranking' from 2026-11-08T08:00:00+01:00 on",
        added(range=(7_000, 7_001)),
    ),
    (
        "forced",
        "experiments.fourth.forced.qa-unit-1",
        f"forced by '{NAME}'",
        added(forced=ONE.forced),
    ),
    (
        "layers",
        "experiments.fourth.layer",
        "chooses scorers other than the champion, as",
        added(layer="page", end=FILE.experiments["wide-titles"].start + 2 * DAY),
    ),
]


@pytest.mark.parametrize(("rule", "place", "message", "file"), AT_FAULT)
def test_a_fault_is_found(rule: str, place: str, message: str, file: Experiments) -> None:
    found = [f for f in faults(file) if (f.rule, f.place) == (rule, place)]
    assert found
    assert message in str(found[0])
    assert found[0] in findings(file, None, DURING)


def test_experiments_of_a_layer_may_follow_one_another_on_the_same_range() -> None:
    later = {"range": (0, 8_000), "start": ONE.end, "end": ONE.end + DAY}
    assert faults(added(**later)) == []
    assert [f.rule for f in faults(added(**later | {"start": ONE.end - DAY}))] == ["overlap"]


def test_the_units_of_a_killed_experiment_are_free() -> None:
    file = added(range=(0, 8_000))
    killed = replace(ONE, killed=True)
    assert {f.rule for f in faults(file)} == {"overlap"}
    assert faults(replace(file, experiments={**file.experiments, NAME: killed})) == []


def test_two_layers_may_choose_scorers_one_after_the_other() -> None:
    end = FILE.experiments["wide-titles"].end + 2 * DAY
    later = {"layer": "page", "range": (0, 10_000), "start": end - DAY, "end": end}
    assert faults(added(**later)) == []


def test_weights_that_sum_to_one_but_for_rounding_are_fine() -> None:
    control = ONE.variants["control"]
    thirds = {name: replace(control, weight=0.333333) for name in ("control", "a", "b")}
    assert faults(changed(variants=thirds, forced={})) == []


@pytest.mark.parametrize(
    ("place", "message", "file"),
    [
        (f"{PLACE}.end", "is over; nobody is in", changed(end=DURING)),
        (f"{PLACE}.ramp[1].at", "is not before the end", changed(end=ONE.ramp[1].at)),
        (f"{PLACE}.variants.control", "weight 0 gets none", changed(variants=weighed(0.0, 1.0))),
        (f"{PLACE}.variants.control", "1e-05 gets none", changed(variants=weighed(1e-5, 0.99999))),
        (f"{PLACE}.variants.control", "range is empty", changed(range=(7, 7), ramp=())),
        (
            f"{PLACE}.variants.control",
            "everybody is in the holdout",
            replace(FILE, holdout=Holdout(salt="all", range=(0, 10_000))),
        ),
    ],
)
def test_a_variant_that_nobody_is_in_is_found(place: str, message: str, file: Experiments) -> None:
    assert faults(file) == []
    found = [f for f in findings(file, None, DURING) if f.place == place]
    assert [f.rule for f in found] == ["unreachable"]
    assert message in found[0].message


@pytest.mark.parametrize(
    "file",
    [
        changed(variants=weighed(1.0, 0.0)),  # the treatment has a forced unit
        changed(range=(0, 0)),  # until the ramp begins
        changed(killed=True),
        changed(start=DURING + DAY, ramp=()),
    ],
)
def test_what_is_meant_to_be_empty_is_no_finding(file: Experiments) -> None:
    assert findings(file, None, DURING) == []


SENSELESS = [
    ("metric", "primary", "no metric 'crt'; there are ctr, clicked", {"primary": ("crt",)}),
    ("metric", "primary", "'ctr' is there twice", {"primary": ("ctr", "pay", "ctr")}),
    (
        "metric",
        "guardrails",
        "no metric 'latency'",
        {"guardrails": {"latency": Guardrail(margin=0.1)}},
    ),
    (
        "metric",
        "guardrails",
        "'pay' is primary already",
        {"guardrails": {"pay": Guardrail(margin=0.1)}},
    ),
    (
        "decision",
        "decision.min_days",
        "29; the experiment has 28 full days, so nothing is decided",
        {"decision": Rule(min_days=29)},
    ),
    ("decision", "decision.alpha", "0.5; want at most 0.2", {"decision": Rule(alpha=0.5)}),
    (
        "decision",
        "decision.max_stale_hours",
        "200; want at most 168: a week without events",
        {"decision": Rule(max_stale_hours=200)},
    ),
]


@pytest.mark.parametrize(("rule", "place", "message", "changes"), SENSELESS)
def test_what_would_decide_nothing_or_anything_is_found_and_can_be_served(
    rule: str, place: str, message: str, changes: dict[str, Any]
) -> None:
    file = changed(**changes)
    assert faults(file) == []
    (found,) = findings(file, None, DURING)
    assert (found.rule, found.place) == (rule, f"{PLACE}.{place}")
    assert message in found.message


def newer(change: Callable[[Experiment], Experiment]) -> Experiments:
    file = changed(**{})
    return replace(file, version=8, experiments={**FILE.experiments, NAME: change(ONE)})


MOVING: list[tuple[str, str, str, Experiments]] = [
    (
        "moves",
        f"{PLACE}.salt",
        "'x'; 'ei-src-vs-bert' is running",
        newer(lambda e: replace(e, salt="x")),
    ),
    ("moves", f"{PLACE}.layer", "'page' with salt", newer(lambda e: replace(e, layer="page"))),
    (
        "moves",
        f"{PLACE}.layer",
        "'ranking' with salt 'x'; 'ranking' with salt 'ranking-2026-10' is",
        replace(FILE, version=8, layers={**FILE.layers, "ranking": Layer(salt="x")}),
    ),
    (
        "moves",
        f"{PLACE}.variants",
        "control 0.4 bert, treatment 0.6 ei-src; control 0.5",
        newer(lambda e: replace(e, variants=weighed(0.4, 0.6))),
    ),
    (
        "moves",
        f"{PLACE}.variants",
        "treatment 0.5 ei-src, control 0.5 bert; control",
        newer(lambda e: replace(e, variants=dict(reversed(e.variants.items())))),
    ),
    (
        "moves",
        f"{PLACE}.variants",
        "control 0.5 bert, other 0.5 ei-src; ",
        newer(
            lambda e: replace(
                e,
                forced={},
                variants=dict(zip(("control", "other"), e.variants.values(), strict=True)),
            )
        ),
    ),
    (
        "moves",
        f"{PLACE}.range",
        "[0, 4000] leaves out units of [0, 5000], which is running",
        newer(lambda e: replace(e, range=(0, 4_000), ramp=())),
    ),
    (
        "moves",
        f"{PLACE}.range",
        "[1, 8000] leaves out units of [0, 5000]",
        newer(lambda e: replace(e, range=(1, 8_000), ramp=())),
    ),
    ("moves", f"{PLACE}.start", "is to come", newer(lambda e: replace(e, start=DURING + DAY))),
    (
        "moves",
        "unit",
        "changed while units are in ei-src-vs-bert, ",
        replace(FILE, version=8, unit="session_id"),
    ),
    ("moves", "holdout", "changed while", replace(FILE, version=8, holdout=None)),
    (
        "moves",
        "holdout",
        "changed while",
        replace(FILE, version=8, holdout=Holdout(salt="holdout-2026", range=(0, 300))),
    ),
    ("phase", f"{PLACE}.phase", "1; 2 is running", FILE),
    (
        "removed",
        PLACE,
        "end it or kill it first",
        replace(FILE, version=8, experiments={"wide-titles": FILE.experiments["wide-titles"]}),
    ),
    ("version", "version", "6; 7 is running", replace(FILE, version=6)),
    (
        "version",
        "version",
        "7; 7 is running, want a higher one",
        replace(FILE, scorers={**FILE.scorers, "bert": FILE.scorers["ei-src"]}),
    ),
]


@pytest.mark.parametrize(("rule", "place", "message", "file"), MOVING)
def test_a_change_that_moves_units_is_found(
    rule: str, place: str, message: str, file: Experiments
) -> None:
    running = changed(phase=2) if rule == "phase" else FILE
    found = [f for f in findings(file, running, DURING) if (f.rule, f.place) == (rule, place)]
    assert len(found) == 1
    assert message in found[0].message


@pytest.mark.parametrize(
    "change",
    [
        lambda e: replace(e, phase=2, variants=weighed(0.4, 0.6)),
        lambda e: replace(e, phase=2, salt="another"),
        lambda e: replace(e, phase=2, range=(1_000, 4_000), ramp=()),
        lambda e: replace(e, range=(0, 6_000), ramp=()),
        lambda e: replace(e, ramp=(e.ramp[0],)),
        lambda e: replace(e, ramp=(e.ramp[0], Step(at=DURING, range=(0, 8_000)))),
        lambda e: replace(e, killed=True),
        lambda e: replace(e, end=DURING),
        lambda e: replace(e, end=e.end + DAY),
        lambda e: replace(e, forced={}, shadow=None, primary=("pay",), guardrails={}),
    ],
)
def test_a_change_that_moves_nobody_is_none(change: Callable[[Experiment], Experiment]) -> None:
    assert moves(newer(change), FILE, DURING) == []


LATER = ONE.start + 8 * DAY


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("primary", {"primary": ("pay",)}),
        ("guardrails", {"guardrails": {"latency_p95": Guardrail(margin=0.2)}}),
        ("guardrails", {"guardrails": {}}),
        ("decision", {"decision": Rule(alpha=0.1)}),
        ("end", {"end": ONE.end + DAY}),
    ],
)
def test_a_plan_that_changes_after_a_look_is_found_and_moves_nobody(
    field: str, change: dict[str, object]
) -> None:
    file = newer(lambda e: replace(e, **change))
    (found,) = findings(file, FILE, LATER)
    assert (found.rule, found.place) == ("plan", f"{PLACE}.{field}")
    assert found.message.endswith("want a new phase")
    assert moves(file, FILE, LATER) == []
    assert findings(newer(lambda e: replace(e, phase=2, **change)), FILE, LATER) == []


def test_a_plan_may_change_before_the_start_and_its_end_before_the_first_look() -> None:
    primary = newer(lambda e: replace(e, primary=("pay",)))
    start = min(one.start for one in FILE.experiments.values())
    assert findings(primary, FILE, start - DAY) == []
    longer = newer(lambda e: replace(e, end=e.end + DAY))
    assert findings(longer, FILE, ONE.start + 6 * DAY) == []
    again = [f for f in findings(longer, FILE, ONE.end) if f.rule == "plan"]
    assert [f.place for f in again] == [f"{PLACE}.end"]
    sooner = newer(lambda e: replace(e, end=e.end - DAY))
    assert findings(sooner, FILE, LATER) == []


def test_what_has_not_started_may_change_at_will() -> None:
    at = min(one.start for one in FILE.experiments.values()) - DAY
    file = replace(
        newer(lambda e: replace(e, salt="x", variants=weighed(0.1, 0.9), range=(7, 8), ramp=())),
        unit="session_id",
        holdout=None,
    )
    assert moves(file, FILE, at) == []


def test_what_is_killed_or_over_may_be_taken_out() -> None:
    rest = {n: one for n, one in FILE.experiments.items() if n != NAME}
    without = replace(FILE, version=8, experiments=rest)
    assert [f.rule for f in moves(without, FILE, DURING)] == ["removed"]
    assert moves(without, changed(killed=True), DURING) == []
    assert moves(without, FILE, ONE.end) == []


def test_a_kill_hides_no_change() -> None:
    file = newer(lambda e: replace(e, killed=True, variants=weighed(0.4, 0.6)))
    assert [f.place for f in moves(file, FILE, DURING)] == [f"{PLACE}.variants"]


@pytest.mark.parametrize("file", [file for *_, file in MOVING if not faults(file)])
def test_where_a_unit_does_move_there_is_a_finding(file: Experiments) -> None:
    """The rules against the thing itself: units do move where they say so, and else do not."""
    before, after = Split.of(FILE, DURING), Split.of(file, DURING)
    has_moved = any(
        not set(old) <= set(after.assign(unit_id))
        for unit_id in map(str, range(2_000))
        if (old := before.assign(unit_id))
    )
    said = {f.rule for f in moves(file, FILE, DURING)} & {"moves", "removed"}
    assert not has_moved or said
