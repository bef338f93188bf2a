from __future__ import annotations

from pathlib import Path

import ibis
import numpy as np
import pytest

from abtest.aggregates import Aggregates, pooled_cap
from abtest.events import Log, Study, Windows
from abtest.metrics import METRICS, PRE_COLUMNS, metric
from abtest.moments import cap, columns_of, latencies, moments
from abtest.quantiles import quantile_estimate, quantile_of_rows
from abtest.stats import Ratio
from abtest.user_rows import USER_COLUMNS
from tests.abtest.slow_rules import utc

RNG = np.random.default_rng(0)
USERS = 400
TABLE = {
    "client_id": [f"client-{n}" for n in range(USERS)],
    "variant": ["control", "treatment"] * (USERS // 2),
    "first_exposure_at": [utc(2026, 11, 2).replace(tzinfo=None)] * USERS,
    "impressions": RNG.poisson(20, USERS).tolist(),
    "clicks": RNG.poisson(2, USERS).tolist(),
    "amount": np.round(RNG.lognormal(3, 1, USERS), 2).tolist(),
}
ROWS = ibis.memtable(TABLE)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_of_columns_that_user_rows_have(name: str) -> None:
    if METRICS[name].quantile is None:
        assert {c.removesuffix("_capped") for c in METRICS[name].columns} <= USER_COLUMNS
    assert METRICS[name].definition
    assert METRICS[name].unit


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_documented(name: str) -> None:
    docs = Path(__file__).parents[2] / "docs" / "user-rows.md"
    assert f"| `{name}` | {METRICS[name].definition} |" in docs.read_text()


def test_covariates_are_of_columns_that_user_rows_have() -> None:
    found = {c for m in METRICS.values() for r in m.covariates for c in r if c}
    assert found <= USER_COLUMNS
    assert PRE_COLUMNS <= USER_COLUMNS


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("ctr", (Ratio("pre_clicks", "pre_impressions"),)),
        ("cvr", (Ratio("pre_orders", "pre_clicks"),)),
        ("pay_capped", (Ratio("pre_amount"), Ratio("was_there"))),
        ("pay_attributed", (Ratio("pre_amount"), Ratio("was_there"))),
        ("refunds", ()),
        ("latency_p95", ()),
    ],
)
def test_covariates_are_the_same_from_before(name: str, before: tuple[Ratio, ...]) -> None:
    assert METRICS[name].covariates == before


def test_an_unknown_metric_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"metric 'ctrr': unknown; there are ctr, "):
        metric("ctrr")


def test_columns_of_metrics_are_named_once() -> None:
    assert columns_of(["ctr", "pay", "earnings_rate"]) == ["clicks", "impressions", "amount"]
    with_pre = columns_of(["ctr", "pay"], has_pre=True)
    assert with_pre[-2:] == ["pre_amount", "was_there"]


def test_moments_equal_those_of_arrays() -> None:
    names = ["clicks", "impressions", "amount"]
    found = moments(ROWS, names)
    assert list(found) == ["control", "treatment"]
    for place, variant in enumerate(found):
        arm = Aggregates.from_arrays({name: TABLE[name][place::2] for name in names})
        assert found[variant].count == arm.count
        np.testing.assert_allclose(found[variant].means, arm.means, rtol=1e-12)
        np.testing.assert_allclose(found[variant].comoments, arm.comoments, rtol=1e-9)


def test_the_cap_is_of_all_arms_together() -> None:
    expected = pooled_cap({"all": TABLE["amount"]})
    assert cap(ROWS, "amount") == pytest.approx(expected)
    (control, _) = moments(ROWS, ["amount_capped"]).values()
    assert control.mean("amount_capped") == pytest.approx(
        np.minimum(TABLE["amount"][::2], expected).mean()
    )


def test_moments_by_another_column_have_its_values() -> None:
    rows = ROWS.mutate(application=ibis.ifelse(ROWS.impressions > 20, "app", "web"))
    assert list(moments(rows, ["clicks"], by="application")) == ["app", "web"]


def test_moments_of_nobody_raise() -> None:
    with pytest.raises(ValueError, match="user rows: none"):
        moments(ROWS.filter(ROWS.impressions < 0), ["clicks"])


def test_latency_quantiles_equal_those_of_the_rows() -> None:
    owners = RNG.integers(0, USERS, 20_000)
    waits = np.round(RNG.lognormal(3, 0.5, len(owners)), 3)
    at = utc(2026, 11, 3).replace(tzinfo=None)
    queries = ibis.memtable(
        {
            "at": [at] * len(owners),
            "client_id": [f"client-{n}" for n in owners],
            "latency_ms": waits.tolist(),
        }
    )
    study = Study("ei", 1, Windows(utc(2026, 11, 2), utc(2026, 11, 9)))
    found = latencies(Log(ROWS, queries), ROWS, study, 0.95)
    for place, variant in enumerate(("control", "treatment")):
        mine = owners % 2 == place
        expected = quantile_of_rows(waits[mine], owners[mine], 0.95)
        got = quantile_estimate(
            found[variant].arm, METRICS["latency_p95"].ratio, 0.95, found[variant].quantile
        )
        assert got.value == pytest.approx(expected.value, rel=1e-3)
        assert got.squared_error == pytest.approx(expected.squared_error, rel=0.05)
