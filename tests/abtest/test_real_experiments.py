"""Real experiments, where their data is here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.asos import judged, points, ratios


@pytest.fixture(scope="module")
def checkpoints(shared_data: Callable[[str], Path]) -> pd.DataFrame:
    return pd.read_parquet(shared_data("asos_experiments") / "checkpoints.parquet")


def test_planned_looks_call_less_than_peeking_does(checkpoints: pd.DataFrame) -> None:
    some = checkpoints[(checkpoints.metric_id == 1) & (checkpoints.variant_id == 1)]
    found = [
        judged(series)
        for _, rows in list(some.groupby("experiment_id"))[:12]
        if (series := points(rows))
    ]
    assert len(found) == 12
    peeking, planned = (
        sum(getattr(one, name) for one in found)
        for name in ("is_at_some_peek", "is_by_planned_looks")
    )
    assert planned <= peeking
    assert sum(one.is_by_sequence for one in found) <= peeking


def test_arms_that_are_not_alike_are_listed(checkpoints: pd.DataFrame) -> None:
    listed = dict(ratios(checkpoints))
    assert "54a85a, variant 0" in listed
    assert all(min(facts["pvalue"], facts["always"]) < 0.001 for facts in listed.values())
    assert len(listed) < checkpoints.groupby(["experiment_id", "variant_id"]).ngroups / 2
