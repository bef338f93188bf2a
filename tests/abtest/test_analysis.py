from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
import tea_tasting
from msgspec.structs import replace
from scipy import stats

from abtest.aggregates import Aggregates
from abtest.analysis import Table, analyse_table, stops
from abtest.confidence_sequences import critical
from abtest.effects import Arms, Looks, effects, segments
from abtest.group_sequential import bounds
from abtest.result import Definition, Result, read_result, schema, to_json
from tests.abtest.test_simulate import users

METRICS = {"ctr": "clicks/impressions", "pay": "amount"}


def frame(count: int = 4_000, gain: float = 1.0, seed: int = 1) -> pd.DataFrame:
    made = pd.DataFrame(users(count, seed))
    made["variant"] = np.where(np.random.default_rng(seed).random(count) < 0.5, "a", "b")
    made["amount"] *= np.where(made.variant == "b", gain, 1.0)
    made["id"] = np.arange(count)
    made["device"] = np.where(made.index % 3 == 0, "phone", "desktop")
    return made


def analysed(directory: Path, made: pd.DataFrame, **given: Any) -> Result:
    file = directory / f"users-{len(list(directory.iterdir()))}.parquet"
    made.to_parquet(file)
    looks = given.pop("fractions", ())
    return analyse_table(Table(file, **{"metrics": METRICS, **given}), command="x", fractions=looks)


def test_it_says_what_tea_tasting_says(tmp_path: Path) -> None:
    made = frame(gain=1.1)
    covariates = {"ctr": ("pre_clicks/pre_impressions",), "pay": ("pre_amount",)}
    for given in ({}, {"covariates": covariates}):
        found = analysed(tmp_path, made, **given)
        pre = {"covariate": "pre_amount"} if given else {}
        pres = {"numer_covariate": "pre_clicks", "denom_covariate": "pre_impressions"}
        wanted = tea_tasting.Experiment(
            ctr=tea_tasting.RatioOfMeans("clicks", "impressions", **(pres if given else {})),
            pay=tea_tasting.Mean("amount", **pre),
        ).analyze(made, control="a")
        for metric in METRICS:
            ours, theirs = found.metrics[metric]["b"], wanted[metric]
            for one, other in (
                (ours.effect, theirs.effect_size),
                (ours.pvalue, theirs.pvalue),
                (ours.ci_low, theirs.effect_size_ci_lower),
                (ours.ci_high, theirs.effect_size_ci_upper),
                (ours.rel_effect, theirs.rel_effect_size),
            ):
                assert one == pytest.approx(other, rel=1e-6)


def test_the_shape_is_the_documented_one(tmp_path: Path) -> None:
    made = frame().rename(columns={"amount": "pay"})
    found = analysed(tmp_path, made, metrics={"pay": "pay"}, control="a")
    told = msgspec.json.decode(to_json(found))
    effect = told["metrics"]["pay"]["b"]
    wanted = "control treatment effect se pvalue ci_low ci_high rel_effect rel_ci_low rel_ci_high"
    assert set(wanted.split()) | {"n_control", "n_treatment"} <= set(effect)
    assert 0 < told["sample_ratio"]["pvalue"] <= 1
    assert effect["control"] == made[made.variant == "a"].pay.mean()
    assert effect["n_control"] == (made.variant == "a").sum()


def test_a_result_survives_the_disk_and_the_schema(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    found = analysed(tmp_path, frame(), segments=("device",))
    file = tmp_path / "result.json"
    file.write_text(to_json(found))
    assert read_result(file) == found
    jsonschema.validate(msgspec.json.decode(to_json(found)), schema())
    file.write_text('{"schema_version": 1}')
    with pytest.raises(ValueError, match="no result of an analysis"):
        read_result(file)


def test_what_is_not_a_number_is_null(tmp_path: Path) -> None:
    made = frame()
    made["amount"] = np.where(made.variant == "a", 0.0, made.amount)
    effect = analysed(tmp_path, made).metrics["pay"]["b"]
    assert (effect.rel_effect, effect.rel_ci_low, effect.mde) == (None, None, None)
    assert "NaN" not in to_json(analysed(tmp_path, made))


def test_users_that_are_not_as_the_weights_say_stop(tmp_path: Path) -> None:
    made = frame().drop(index=range(0, 600, 2))
    made = pd.concat([made, made[made.variant == "a"].iloc[:400]])
    found = analysed(tmp_path, made)
    (gate,) = stops(found)
    assert gate.name == "sample_ratio"
    assert gate.value == found.sample_ratio.pvalue
    counts = [found.sample_ratio.counts[name] for name in "ab"]
    assert gate.value == pytest.approx(stats.chisquare(counts).pvalue)


def test_unequal_weights_are_no_mismatch(tmp_path: Path) -> None:
    made = frame()
    made["variant"] = np.where(np.arange(len(made)) % 10 == 0, "b", "a")
    assert stops(analysed(tmp_path, made))
    assert not stops(analysed(tmp_path, made, weights={"a": 0.9, "b": 0.1}))


def test_an_empty_arm_a_strange_one_and_a_small_one_are_told(tmp_path: Path) -> None:
    made = frame()
    weights = {"a": 0.4, "b": 0.4, "c": 0.2}
    found = analysed(tmp_path, made, weights=weights)
    assert found.metrics == {}
    assert any("c has 0 users" in gate.message for gate in stops(found))
    found = analysed(tmp_path, made.assign(variant=made.variant.replace("b", "z")), weights={
        "a": 0.5, "b": 0.5,
    })  # fmt: skip
    assert any(gate.name == "variants" and "z (" in gate.message for gate in stops(found))
    found = analysed(tmp_path, made.groupby("variant").head(30))
    assert {gate.status for gate in found.gates if gate.name == "arms"} == {"warn"}


def test_a_metric_that_cannot_be_computed_stops_and_gives_no_number(tmp_path: Path) -> None:
    made = frame().assign(amount=5.0)
    found = analysed(tmp_path, made)
    assert set(found.metrics) == {"ctr"}
    assert [gate.message for gate in stops(found)] == [
        "no numbers of 'pay': 5 for all users of all variants: nothing to test"
    ]
    found = analysed(tmp_path, frame().assign(impressions=0.0))
    assert "denominator 'impressions' sums to 0" in stops(found)[0].message


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda made: made.assign(amount=np.inf), "'amount': 4,000 values are not finite"),
        (lambda made: made.assign(amount=np.nan), "'amount': missing for 4,000 users"),
        (lambda made: made.assign(amount="5"), "'amount': string, want numbers"),
        (lambda made: made.assign(impressions=-1.0), "'impressions': -1, want 0 or more"),
        (lambda made: made.assign(variant=None), "users have no value"),
        (lambda made: made.drop(columns="amount"), "no column 'amount'; there are"),
        (lambda made: made[made.variant == "a"], "one variant, 'a'; want two"),
        (lambda made: made.assign(id=made.id // 2), "4,000 rows of 2,000 users by 'id'"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, change: Any, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        analysed(tmp_path, change(frame()), unit_column="id")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"control": "c"}, "control 'c': no such variant; there are a, b"),
        ({"weights": {"a": 0.5, "b": 0.4}}, "sum to 0.9, want 1"),
        ({"covariates": {"cvr": ("x",)}}, "covariate: no metric 'cvr'; there are ctr, pay"),
        ({"lower_is_better": ("x",)}, "lower is better: no metric 'x'"),
        ({"metrics": {"x": "a/b/c"}}, "want COLUMN or COLUMN/COLUMN"),
        ({"segments": ("id",)}, "segment 'id' has more than 50 values"),
    ],
)
def test_bad_questions_are_refused(tmp_path: Path, given: Any, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        analysed(tmp_path, frame(), **given)


def test_a_file_is_there_and_of_a_kind_that_is_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.parquet or \.csv"):
        analyse_table(Table(tmp_path / "x.xlsx", METRICS), command="")
    with pytest.raises(FileNotFoundError):
        analyse_table(Table(tmp_path / "x.csv", METRICS), command="")
    (tmp_path / "x.parquet").write_text("no table")
    with pytest.raises(ValueError, match="cannot be read"):
        analyse_table(Table(tmp_path / "x.parquet", METRICS), command="")


def test_csv_and_parquet_give_the_same(tmp_path: Path) -> None:
    made = frame(1_000)
    parquet = analysed(tmp_path, made)
    made.to_csv(tmp_path / "users.csv", index=False)
    csv = analyse_table(Table(tmp_path / "users.csv", METRICS), command="x")
    for metric, by_variant in csv.metrics.items():
        assert by_variant["b"].effect == pytest.approx(parquet.metrics[metric]["b"].effect)


def test_amounts_below_zero_are_worth_a_look(tmp_path: Path) -> None:
    made = frame()
    made.loc[:2, "amount"] = -5.0
    found = analysed(tmp_path, made)
    assert [g.message for g in found.gates if g.name == "below_zero"] == [
        "column 'amount' is below 0 for 3 users"
    ]
    assert not stops(found)


def test_users_without_a_covariate_are_not_taken_for_users_who_did_nothing(tmp_path: Path) -> None:
    made = frame(20_000)
    # new users spend more than old ones who spent nothing
    is_new = np.random.default_rng(3).random(len(made)) < 0.3
    made["amount"] += np.where(is_new, 80.0, made.pre_amount)
    made["pre_amount"] = made.pre_amount.where(~is_new)
    found = analysed(tmp_path, made, covariates={"pay": ("pre_amount",)})
    assert found.definitions["pay"].covariates == ("pre_amount", "has_pre_amount")
    known = analysed(
        tmp_path, made.fillna({"pre_amount": 0.0}), covariates={"pay": ("pre_amount",)}
    )
    noise, worse = (one.metrics["pay"]["b"].cuped for one in (found, known))
    assert noise is not None
    assert worse is not None
    assert noise.variance_saved > worse.variance_saved + 0.1
    assert found.metrics["pay"]["b"].se < noise.se


def test_segments_are_corrected_together(tmp_path: Path) -> None:
    found = analysed(tmp_path, frame(gain=1.3), segments=("device",))
    assert {(part.segment, part.value) for part in found.segments} == {
        ("device", "desktop"), ("device", "phone"),
    }  # fmt: skip
    raw = [part.effect.pvalue for part in found.segments]
    adjusted = [part.effect.adjusted_pvalue for part in found.segments]
    assert adjusted == pytest.approx(stats.false_discovery_control(raw))


DEFINITIONS = {
    "ctr": Definition(role="primary", numerator="clicks", denominator="impressions", text=""),
    "pay": Definition(role="primary", numerator="amount", text=""),
    "shown": Definition(
        role="guardrail", numerator="impressions", text="", margin=0.2, is_higher_better=True
    ),
    "orders": Definition(role="other", numerator="orders", text=""),
}


def arms(count: int = 4_000, gain: float = 1.0) -> Arms:
    made = frame(count, gain)
    columns = ["clicks", "impressions", "amount", "orders"]
    return Arms(
        {
            variant: Aggregates.from_arrays({name: rows[name] for name in columns})
            for variant, rows in made.groupby("variant")
        }
    )


def test_planned_looks_use_their_bound_and_guardrails_a_confidence_sequence() -> None:
    fractions = (0.5, 0.75)
    found = effects(arms(), DEFINITIONS, looks=Looks(fractions, 6_000)).effects
    ctr, shown = found["ctr"]["b"], found["shown"]["b"]
    # a little further out than the bound of a normal statistic
    assert (ctr.method, round(bounds(fractions)[-1], 4)) == ("group-sequential", 2.3590)
    assert ctr.critical == pytest.approx(2.3600, abs=5e-5)
    assert (ctr.ci_high - ctr.ci_low) / 2 == pytest.approx(ctr.critical * ctr.se)
    assert shown.method == "confidence-sequence"
    assert shown.critical == pytest.approx(critical(4_000, 6_000), rel=2e-3)
    assert shown.critical > critical(4_000, 6_000)
    early = effects(arms(), DEFINITIONS, looks=Looks((), 6_000)).effects["ctr"]["b"]
    assert early.method == "confidence-sequence"
    one = effects(arms(), DEFINITIONS).effects["ctr"]["b"]
    assert one.method == "fixed"
    assert one.ci_low > ctr.ci_low


@pytest.mark.parametrize("looks", [None, Looks((0.5, 1.0), 4_000, is_final=True), Looks((), 4_000)])
@pytest.mark.parametrize("gain", [1.0, 1.15, 1.5])
def test_interval_and_pvalue_never_contradict_each_other(looks: Looks | None, gain: float) -> None:
    for by_variant in effects(arms(gain=gain), DEFINITIONS, looks=looks).effects.values():
        for effect in by_variant.values():
            excludes = not effect.ci_low <= 0 <= effect.ci_high
            assert excludes == (effect.pvalue <= 0.05)
            if effect.rel_ci_low is not None and effect.rel_ci_high is not None:
                assert excludes == (not effect.rel_ci_low <= 0 <= effect.rel_ci_high)


def test_primaries_share_alpha_and_a_guardrail_stands_alone() -> None:
    found = effects(arms(gain=1.2), DEFINITIONS).effects
    raw = [found[metric]["b"].pvalue for metric in ("ctr", "pay")]
    low, high = sorted(raw)
    adjusted = sorted(found[metric]["b"].adjusted_pvalue or 0 for metric in ("ctr", "pay"))
    assert adjusted == pytest.approx([min(2 * low, 1), max(high, 2 * low)])
    assert found["orders"]["b"].adjusted_pvalue == found["orders"]["b"].pvalue
    assert found["shown"]["b"].adjusted_pvalue is None


def test_non_inferior_is_an_interval_that_ends_before_the_margin() -> None:
    shown = effects(arms(), DEFINITIONS, looks=Looks((0.5,), 8_000)).effects["shown"]["b"]
    assert shown.non_inferior is not None
    assert shown.rel_ci_low is not None
    assert shown.non_inferior.is_non_inferior == (shown.rel_ci_low > -0.2)
    tight = {"shown": replace(DEFINITIONS["shown"], margin=0.001)}
    shown = effects(arms(), tight).effects["shown"]["b"]
    assert shown.non_inferior is not None
    assert not shown.non_inferior.is_non_inferior


def test_lower_is_better_turns_the_words_and_not_the_numbers() -> None:
    up = effects(arms(gain=1.5), DEFINITIONS).effects["pay"]["b"]
    turned = {"pay": replace(DEFINITIONS["pay"], is_higher_better=False)}
    down = effects(arms(gain=1.5), turned).effects["pay"]["b"]
    assert (up.is_better, up.is_worse) == (True, False)
    assert (down.is_better, down.is_worse) == (False, True)
    assert up.effect == down.effect


def test_a_scale_multiplies_values_and_leaves_pvalues() -> None:
    plain = effects(arms(gain=1.1), DEFINITIONS).effects["pay"]["b"]
    scaled = {"pay": replace(DEFINITIONS["pay"], scale=1_000.0)}
    found = effects(arms(gain=1.1), scaled).effects["pay"]["b"]
    assert found.control == pytest.approx(1_000 * plain.control)
    assert found.se == pytest.approx(1_000 * plain.se)
    assert (found.pvalue, found.rel_effect) == pytest.approx((plain.pvalue, plain.rel_effect))


def test_what_is_the_same_for_all_is_told_from_sums_too() -> None:
    """Sums of 0.1 leave a trace of a variance, which is no variance."""
    shown = np.random.default_rng(0).integers(1, 50, 2_001).astype(float)
    columns = {"amount": np.full_like(shown, 0.1), "clicks": 0.1 * shown, "impressions": shown}
    pairs = [(a, b) for a in columns for b in columns]

    def summed(*users: slice) -> Aggregates:
        mine = {name: values[users] for name, values in columns.items()}
        sums = {name: float(values.sum()) for name, values in mine.items()}
        products = {(a, b): float((mine[a] * mine[b]).sum()) for a, b in pairs}
        return Aggregates.from_sums(len(mine["amount"]), sums, products)

    halves = Arms({"a": summed(slice(0, 1_003)), "b": summed(slice(1_003, None))})
    metrics = {name: DEFINITIONS[name] for name in ("ctr", "pay")}
    found = effects(halves, metrics)
    assert found.effects == {}
    assert found.constant == {"ctr", "pay"}
    assert set(found.refused.values()) == {"0.1 for all users of all variants: nothing to test"}


@pytest.mark.parametrize("looks", [Looks((0.1,), 10_000), Looks((), 1_000_000)])
def test_two_users_an_arm_give_wide_intervals_and_no_overflow(looks: Looks) -> None:
    two = {
        "a": Aggregates.from_arrays({"amount": [1.0, 1.1]}),
        "b": Aggregates.from_arrays({"amount": [900.0, 901.0]}),
    }
    pay = effects(Arms(two), {"pay": DEFINITIONS["pay"]}, looks=looks).effects["pay"]["b"]
    assert not pay.is_significant
    assert -np.inf < pay.ci_low < 0 < pay.ci_high < np.inf


def test_a_covariate_that_an_arm_has_nothing_of_is_left_out() -> None:
    made = pd.DataFrame(users(400))
    made.loc[:199, "pre_impressions"] = 0.0
    halves = Arms(
        {
            "a": Aggregates.from_arrays(dict(made[:200])),
            "b": Aggregates.from_arrays(dict(made[200:])),
        }
    )
    before = replace(DEFINITIONS["ctr"], covariates=("pre_clicks/pre_impressions",))
    found = effects(halves, {"ctr": before})
    assert found.refused == {}
    assert found.effects == effects(halves, {"ctr": DEFINITIONS["ctr"]}).effects


def test_no_segment_is_no_finding() -> None:
    assert segments({}, DEFINITIONS) == ()
