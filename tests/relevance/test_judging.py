"""Several seeds side by side: means, intervals and differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from relevance.bootstrap import resample_counts
from relevance.configs import EvaluationConfig
from relevance.judging import judge
from relevance.metrics import roc_auc

CONFIG = EvaluationConfig(resamples=200, seed=7)


@pytest.fixture(scope="module")
def judged() -> pd.DataFrame:
    """30 queries of source ``a``, whose pairs are many, and 12 of ``b``."""
    rng = np.random.default_rng(3)
    rows = [
        (f"{source}{query:02}", f"p{item}", source, float(rng.integers(4)))
        for source, queries, items in (("a", 30, 9), ("b", 12, 5))
        for query in range(queries)
        for item in range(items)
    ]
    frame = pd.DataFrame(rows, columns=["query_id", "item_id", "source", "grade"])
    return frame.assign(query="q", category=None, searches=None)


@pytest.fixture(scope="module")
def scores(judged: pd.DataFrame) -> Mapping[str, list[np.ndarray]]:
    rng = np.random.default_rng(4)
    grade = judged["grade"].to_numpy()

    def noisy(noise: float) -> np.ndarray:
        return np.asarray(grade + noise * rng.normal(size=len(grade)))

    return {
        "bm25": [noisy(5)],
        "base": [noisy(3), noisy(3.5), noisy(4)],
        "better": [noisy(2), noisy(2), noisy(2.5)],
        "best": [noisy(1), noisy(1.2), noisy(1.1)],
    }


@pytest.fixture(scope="module")
def found(judged: pd.DataFrame, scores: Mapping[str, list[np.ndarray]]) -> dict[str, Any]:
    return judge(CONFIG, judged, scores, "base")


def part(found: Mapping[str, Any], by: str, name: str = "") -> Mapping[str, Any]:
    return next(part for part in found["parts"] if (part["by"], part["name"]) == (by, name))


def direct(
    judged: pd.DataFrame, runs: list[np.ndarray], source: str | None = None
) -> tuple[float, np.ndarray]:
    """Mean ROC-AUC over runs, plain and on each resample, pair by repeated pair."""
    code, ids = pd.factorize(judged["query_id"], sort=True)
    strata = np.array([0 if query.startswith("a") else 1 for query in ids])
    rows = np.ones(len(judged), bool) if source is None else (judged["source"] == source).to_numpy()

    def area(counts: np.ndarray) -> float:
        chosen = np.repeat(np.flatnonzero(rows), counts[code[rows]].astype(int))
        relevant = judged["grade"].to_numpy()[chosen] >= 3
        return float(np.mean([roc_auc(relevant, run[chosen]) for run in runs]))

    blocks = resample_counts(strata, resamples=CONFIG.resamples, seed=CONFIG.seed)
    return area(np.ones(len(ids))), np.array([area(row) for block in blocks for row in block])


def assert_interval(result: Mapping[str, Any], value: float, resampled: np.ndarray) -> None:
    low, high = np.quantile(resampled, [0.025, 0.975])
    got = [result["value"], result["low"], result["high"]]
    np.testing.assert_allclose(got, [value, low, high], rtol=1e-12)


def test_a_value_is_the_mean_over_seeds_and_so_is_its_interval(
    found: dict[str, Any], judged: pd.DataFrame, scores: Mapping[str, list[np.ndarray]]
) -> None:
    result = part(found, "all")["models"]["better"]["roc_auc"]
    assert_interval(result, *direct(judged, scores["better"]))
    relevant = judged["grade"] >= 3
    areas = [roc_auc(relevant, run) for run in scores["better"]]
    np.testing.assert_allclose(result["seeds"], areas)
    assert result["sd"] == pytest.approx(np.std(areas, ddof=1))
    assert part(found, "all")["models"]["bm25"]["roc_auc"]["sd"] is None


def test_differences_are_paired_with_the_reference_and_with_the_row_above(
    found: dict[str, Any], judged: pd.DataFrame, scores: Mapping[str, list[np.ndarray]]
) -> None:
    best, better, base = (direct(judged, scores[name]) for name in ("best", "better", "base"))
    whole = part(found, "all")
    less_base = whole["less_reference"]["best"]["roc_auc"]
    assert_interval(less_base, best[0] - base[0], best[1] - base[1])
    less_better = whole["less_previous"]["best"]["roc_auc"]
    assert_interval(less_better, best[0] - better[0], best[1] - better[1])
    assert_interval(whole["share_of_reference"]["best"], best[0] / base[0], best[1] / base[1])
    assert set(whole["less_reference"]) == {"bm25", "better", "best"}
    assert found["previous"] == {"better": "base", "best": "better"}


def test_pooled_is_the_mean_over_sources_on_the_same_resamples(
    found: dict[str, Any], judged: pd.DataFrame, scores: Mapping[str, list[np.ndarray]]
) -> None:
    sides = [
        [direct(judged, scores[name], source) for source in ("a", "b")] for name in ("best", "base")
    ]
    (best, best_drawn), (base, base_drawn) = (
        (np.mean([value for value, _ in side]), np.mean([drawn for _, drawn in side], axis=0))
        for side in sides
    )
    pooled = part(found, "pooled")
    assert_interval(pooled["models"]["best"]["roc_auc"], float(best), best_drawn)
    less = pooled["less_reference"]["best"]["roc_auc"]
    assert_interval(less, float(best - base), best_drawn - base_drawn)
    assert_interval(part(found, "source", "a")["models"]["best"]["roc_auc"], *sides[0][0])
    assert [(p["by"], p["name"]) for p in found["parts"]] == [
        ("pooled", ""),
        ("all", ""),
        ("source", "a"),
        ("source", "b"),
    ]


def test_pooled_has_no_interval_where_a_source_has_too_few_queries(
    judged: pd.DataFrame, scores: Mapping[str, list[np.ndarray]]
) -> None:
    few = (judged["source"] == "a") | judged["query_id"].isin(["b00", "b01"])
    rows = few.to_numpy()
    kept = {name: [run[rows] for run in runs] for name, runs in scores.items()}
    found = judge(CONFIG, judged[rows], kept, "base")
    assert part(found, "pooled")["models"]["best"]["roc_auc"]["low"] is None
    assert part(found, "all")["models"]["best"]["roc_auc"]["low"] is not None


def test_calibration_is_judged_by_what_the_rows_serve(
    judged: pd.DataFrame, scores: Mapping[str, list[np.ndarray]], found: dict[str, Any]
) -> None:
    relevant = (judged["grade"] >= 3).to_numpy()
    # one bin alone: its error is the distance of two means
    served = {"best": [np.full(len(judged), p) for p in (0.95, 0.92, 0.99)]}
    again = judge(CONFIG, judged, scores, "base", served)
    ece = part(again, "all")["models"]["best"]["ece"]
    np.testing.assert_allclose(ece["seeds"], np.array([0.95, 0.92, 0.99]) - relevant.mean())
    for row in ("bm25", "base", "better"):
        assert part(again, "all")["models"][row] == part(found, "all")["models"][row]
    area = part(again, "all")["models"]["best"]["roc_auc"]
    assert area == part(found, "all")["models"]["best"]["roc_auc"]
    assert any("those that best serve" in note for note in again["notes"])
