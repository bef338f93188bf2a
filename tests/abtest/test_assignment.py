import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from scipy.stats import chi2_contingency, chisquare

from abtest.assignment import Assignment, Split, check_unit_id, scorer_of
from abtest.experiment import Experiments, Holdout, Step, load_experiments

HERE = Path(__file__).parent
CASES = json.loads((HERE.parent / "fixtures" / "assignment_cases.json").read_text())
FILE = load_experiments(HERE / "experiments.yaml")
DURING = datetime(2026, 11, 6, tzinfo=UTC)
RAMPED = "ei-src-vs-bert"


def changed(name: str, **changes: object) -> Experiments:
    """The file with another ``name``."""
    one = replace(FILE.experiments[name], **changes)
    return replace(FILE, experiments={**FILE.experiments, name: one})


def variants_of(split: Split, name: str, count: int = 20_000) -> dict[str, str]:
    """Of sequential ids, the variants of those that an experiment has drawn."""
    return {
        unit_id: assignment.variant
        for unit_id in map(str, range(count))
        for assignment in split.assign(unit_id)
        if assignment.experiment_id == name
    }


def murmur3(data: bytes) -> int:
    """Murmur3-32 with seed 0, after Appleby's MurmurHash3.cpp (public domain)."""

    def rotated(value: int, bits: int) -> int:
        return (value << bits | value >> (32 - bits)) & 0xFFFFFFFF

    def mixed(value: int) -> int:
        return rotated(value * 0xCC9E2D51 & 0xFFFFFFFF, 15) * 0x1B873593 & 0xFFFFFFFF

    whole = len(data) // 4 * 4
    state = 0
    for start in range(0, whole, 4):
        state ^= mixed(int.from_bytes(data[start : start + 4], "little"))
        state = (rotated(state, 13) * 5 + 0xE6546B64) & 0xFFFFFFFF
    state ^= mixed(int.from_bytes(data[whole:], "little")) ^ len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        state = (state ^ state >> shift) * factor & 0xFFFFFFFF
    return state


def bucket(salt: str, unit_id: str) -> int:
    return murmur3(f"{salt}:{unit_id}".encode()) * 10_000 >> 32


def test_the_test_has_the_published_murmur3() -> None:
    # the values of the hash's Wikipedia article
    assert murmur3(b"") == 0
    assert murmur3(b"test") == 0xBA6BD213
    assert murmur3(b"Hello, world!") == 0xC0363E43
    assert murmur3(b"The quick brown fox jumps over the lazy dog") == 0x2E4FF723


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: ascii(case["unit_id"])[:20])
def test_frozen_assignments_stay(case: dict[str, list[list[object]]]) -> None:
    experiments = msgspec.convert(CASES["experiments"], Experiments)
    split = Split.of(experiments, datetime.fromisoformat(CASES["at"]))
    assert [list(one) for one in split.assign(str(case["unit_id"]))] == case["assignments"]


def test_frozen_assignments_follow_the_rules_by_another_murmur3() -> None:
    at = datetime.fromisoformat(CASES["at"])
    file = msgspec.convert(CASES["experiments"], Experiments)
    assert file.holdout
    seen: Counter[str] = Counter()
    for case in CASES["cases"]:
        unit_id = case["unit_id"]
        if any(unit_id in experiment.forced for experiment in file.experiments.values()):
            continue
        expected: list[Assignment] = []
        is_held = bucket(file.holdout.salt, unit_id) < file.holdout.range[1]
        for name, one in file.experiments.items():
            own = bucket(file.layers[one.layer].salt, unit_id)
            first, end = [one.range, *(s.range for s in one.ramp if s.at <= at)][-1]
            variant = None
            if not is_held and first <= own < end:
                weights = [settings.weight for settings in one.variants.values()]
                bounds = np.round(np.cumsum(weights) * 10_000)
                place = int(np.argmax(bucket(one.salt, unit_id) < bounds))
                variant, settings = list(one.variants.items())[place]
                expected.append(
                    Assignment(name, one.layer, one.phase, variant, own, settings.scorer, False)
                )
            seen[f"{name} {variant}"] += 1
        seen["held"] += is_held
        assert [list(found) for found in expected] == case["assignments"]
    assert len(seen) == 11
    assert min(seen.values()) >= 1


def test_sequential_ids_fall_evenly_into_buckets() -> None:
    split = Split.of(changed("wide-titles", range=(0, 10_000)), DURING)
    counts = np.zeros(10_000)
    for number in range(200_000):
        for assignment in split.assign(f"client-{number}"):
            if assignment.layer == "page":
                counts[assignment.bucket] += 1
    assert chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("form", ["{}", "client-{}", "{:012d}", "{}@example.com"])
def test_sequential_ids_are_divided_by_the_weights(form: str) -> None:
    split = Split.of(FILE, DURING)
    drawn = [split.assign(form.format(number)) for number in range(40_000)]
    for name, experiment in FILE.experiments.items():
        counts = Counter(a.variant for all_ in drawn for a in all_ if a.experiment_id == name)
        weights = [variant.weight for variant in experiment.variants.values()]
        observed = [counts[variant] for variant in experiment.variants]
        expected = np.array(weights) * sum(observed)
        assert chisquare(observed, expected).pvalue > 0.0001


def independent(pairs: list[tuple[object, object]]) -> float:
    table = Counter(pairs)
    rows, columns = ({pair[side] for pair in table} for side in (0, 1))
    counts = [[table[row, column] for column in columns] for row in rows]
    return float(chi2_contingency(counts).pvalue)


def test_layers_are_independent() -> None:
    split = Split.of(FILE, DURING)
    both = [a for number in range(100_000) if len(a := split.assign(str(number))) == 2]
    assert len(both) > 50_000
    assert independent([(a.variant, b.variant) for a, b in both]) > 0.0001
    assert independent([(a.bucket // 1_000, b.bucket // 1_000) for a, b in both]) > 0.0001


def test_variants_do_not_depend_on_buckets() -> None:
    split = Split.of(FILE, DURING)
    found = [a for number in range(100_000) for a in split.assign(str(number))]
    for name in FILE.experiments:
        pairs = [(a.bucket // 500, a.variant) for a in found if a.experiment_id == name]
        assert independent(list(pairs)) > 0.0001


def test_experiments_with_the_same_weights_are_independent_of_each_other() -> None:
    renamed = Split.of(changed("wide-titles", salt="another"), DURING)
    before, after = (variants_of(s, "wide-titles") for s in (Split.of(FILE, DURING), renamed))
    assert before.keys() == after.keys()
    assert independent([(before[unit_id], after[unit_id]) for unit_id in before]) > 0.0001


def test_a_ramp_moves_nobody_and_changes_no_variant() -> None:
    start = FILE.experiments[RAMPED].start
    ramp = tuple(
        Step(at=start + timedelta(days=day), range=(0, end))
        for day, end in ((1, 5_000), (2, 10_000))
    )
    file = changed(RAMPED, range=(0, 500), ramp=ramp)
    file = replace(file, experiments={RAMPED: file.experiments[RAMPED]})
    shares = []
    before: dict[str, str] = {}
    for day in (0, 1, 2):
        now = variants_of(Split.of(file, start + timedelta(days=day)), RAMPED, 70_000)
        assert before.items() <= now.items()
        shares.append(len(now) / 70_000)
        before = now
    assert shares == pytest.approx([0.05 * 0.98, 0.5 * 0.98, 0.98], abs=0.005)


def test_experiments_of_a_layer_exclude_one_another() -> None:
    split = Split.of(FILE, DURING)
    for number in range(5_000):
        layers = [assignment.layer for assignment in split.assign(str(number))]
        assert len(layers) == len(set(layers))


def test_assignments_come_in_the_order_of_the_file() -> None:
    backwards = replace(FILE, experiments=dict(reversed(FILE.experiments.items())))
    one, other = Split.of(FILE, DURING), Split.of(backwards, DURING)
    for unit_id in ("qa-unit-1", "client-1", "client-2"):
        assert other.assign(unit_id) == one.assign(unit_id)[::-1] != ()


def everybody_held(**changes: object) -> Experiments:
    return replace(changed(RAMPED, **changes), holdout=Holdout(salt="all", range=(0, 10_000)))


def test_a_held_unit_is_in_nothing() -> None:
    split = Split.of(everybody_held(), DURING)
    assert not any(split.assign(str(number)) for number in range(100))


def test_force_comes_before_the_holdout_and_takes_its_own_experiment_only() -> None:
    (found,) = Split.of(everybody_held(), DURING).assign("qa-unit-1")
    assert (found.experiment_id, found.variant, found.is_forced) == (RAMPED, "treatment", True)


def test_the_kill_switch_comes_before_force() -> None:
    assert Split.of(everybody_held(killed=True), DURING).assign("qa-unit-1") == ()
    assert variants_of(Split.of(changed(RAMPED, killed=True), DURING), RAMPED, 1_000) == {}


def test_a_forced_unit_leaves_the_other_experiments_of_the_layer() -> None:
    name = "ei-src-three-ways"
    unit_id = next(iter(variants_of(Split.of(FILE, DURING), name)))
    file = changed(RAMPED, forced={unit_id: "control"})
    found = Split.of(file, DURING).assign(unit_id)
    assert next((a.experiment_id, a.is_forced) for a in found) == (RAMPED, True)
    assert name not in [a.experiment_id for a in found]
    drawn = {a.layer: a.bucket for a in Split.of(FILE, DURING).assign(unit_id)}
    assert {a.layer: a.bucket for a in found} == drawn


def test_an_experiment_runs_from_its_start_to_before_its_end() -> None:
    one = FILE.experiments[RAMPED]
    tick = timedelta(microseconds=1)

    def is_in(at: datetime) -> bool:
        return bool(Split.of(everybody_held(), at).assign("qa-unit-1"))

    assert [is_in(at) for at in (one.start - tick, one.start, one.end - tick, one.end)] == [
        False,
        True,
        True,
        False,
    ]


def test_a_split_holds_until_the_next_start_step_or_end() -> None:
    at = FILE.experiments["wide-titles"].start - timedelta(days=1)
    seen = []
    while (until := Split.of(FILE, at).until) is not None:
        before, after = Split.of(FILE, until - timedelta(microseconds=1)), Split.of(FILE, until)
        assert before.until == until
        assert before.assign("qa-unit-1") != after.assign("qa-unit-1") or any(
            before.assign(str(n)) != after.assign(str(n)) for n in range(1_000)
        )
        seen.append(f"{until:%d.%m}")
        at = until
    assert seen == ["01.11", "02.11", "05.11", "08.11", "30.11", "01.12"]


def test_a_killed_experiment_changes_no_split() -> None:
    killed = {n: replace(one, killed=True) for n, one in FILE.experiments.items()}
    assert Split.of(replace(FILE, experiments=killed), DURING).until is None


def test_a_step_before_the_start_waits_for_it() -> None:
    one = FILE.experiments[RAMPED]
    step = Step(at=one.start - timedelta(days=3), range=(0, 1_000))
    file = replace(FILE, experiments={RAMPED: replace(one, ramp=(step,))})
    split = Split.of(file, one.start - timedelta(days=4))
    assert split.until == one.start
    buckets = [a.bucket for n in range(5_000) for a in Split.of(file, one.start).assign(str(n))]
    assert 500 < max(buckets) < 1_000


def test_the_instant_is_one_whatever_its_zone() -> None:
    at = FILE.experiments[RAMPED].ramp[0].at
    assert Split.of(FILE, at) == Split.of(FILE, at.astimezone(UTC))


def test_an_instant_without_a_zone_raises() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        Split.of(FILE, datetime(2026, 11, 6))


def test_the_version_of_the_file_is_that_of_the_split() -> None:
    assert Split.of(FILE, DURING).config_version == FILE.version == 7


@pytest.mark.parametrize("check", [check_unit_id, Split.of(FILE, DURING).assign])
@pytest.mark.parametrize("unit_id", ["", "x" * 513, "é" * 257, "\ud800"])
def test_an_impossible_unit_id_raises(check: Callable[[str], object], unit_id: str) -> None:
    with pytest.raises(ValueError, match=r"1 to 512|surrogates"):
        check(unit_id)


@given(st.text(min_size=1, max_size=128, alphabet=st.characters(codec="utf-8")))
def test_any_other_unit_id_is_assigned_and_always_alike(unit_id: str) -> None:
    first, again = (Split.of(FILE, DURING).assign(unit_id) for _ in range(2))
    assert first == again
    assert all(0 <= assignment.bucket < 10_000 for assignment in first)


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6).filter(lambda w: sum(w) > 0))
def test_every_draw_has_a_variant_whatever_the_weights(weights: list[float]) -> None:
    control = FILE.experiments["wide-titles"].variants["control"]
    variants = {f"v{n}": replace(control, weight=w / sum(weights)) for n, w in enumerate(weights)}
    split = Split.of(changed("wide-titles", variants=variants), DURING)
    found = variants_of(split, "wide-titles", 200)
    assert found
    assert all(variants[name].weight > 0 for name in found.values())


def test_the_scorer_that_answers_is_the_one_that_is_chosen() -> None:
    one = Assignment("a", "page", 1, "control", 0, "bert", False)
    other = one._replace(layer="ranking", scorer="ei-src")
    assert scorer_of((), "bert") == scorer_of((one,), "bert") == "bert"
    assert scorer_of((one, other), "bert") == scorer_of((other, one), "bert") == "ei-src"
