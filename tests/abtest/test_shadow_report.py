from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from abtest.shadow_report import shadow_reports, top_overlap


def row(main: list[Any], shadow: list[Any], **changes: Any) -> dict[str, Any]:
    return {
        "experiment_id": "new-ranking",
        "main_scorer": "bert",
        "shadow_scorer": "ei-src",
        "main_scores": main,
        "shadow_scores": shadow,
        "main_ms": 10.0,
        "shadow_ms": 20.0,
        "failure": None,
        **changes,
    }


def test_numbers_are_those_of_scipy_averaged_over_queries() -> None:
    rng = np.random.default_rng(0)
    scores = [(rng.normal(size=30), rng.normal(size=30)) for _ in range(5)]
    (report,) = shadow_reports(row(a.tolist(), b.tolist()) for a, b in scores)
    assert report.copies == 5
    assert report.kendall == pytest.approx(np.mean([kendalltau(a, b)[0] for a, b in scores]))
    assert report.spearman == pytest.approx(np.mean([spearmanr(a, b)[0] for a, b in scores]))
    assert report.mean_difference == pytest.approx(np.mean([b - a for a, b in scores]))
    assert report.mean_abs_difference == pytest.approx(np.mean([abs(b - a) for a, b in scores]))
    assert (report.main_p50_ms, report.shadow_p99_ms) == (10.0, 20.0)


def test_failures_are_counted_and_no_part_of_the_comparison() -> None:
    rows = [row([3, 2, 1], [3, 2, 1]), row([3, 2, 1], [], failure="timeout", shadow_ms=2_000)]
    (report,) = shadow_reports(rows)
    assert (report.copies, report.failures) == (2, {"timeout": 1})
    assert (report.top_overlap, report.kendall) == (1.0, pytest.approx(1.0))
    assert report.shadow_p99_ms > 1_000


def test_an_item_that_one_of_them_left_out_is_in_no_correlation_but_in_the_overlap() -> None:
    (report,) = shadow_reports([row([4, 3, None], [4, None, 3])])
    assert report.top_overlap == 0.5
    assert report.kendall is None
    assert report.mean_difference == 0


def test_equal_scores_have_no_correlation_and_no_warning() -> None:
    (report,) = shadow_reports([row([1, 1, 1], [1, 2, 3])])
    assert report.kendall is None


def test_a_report_a_pair_of_scorers() -> None:
    rows = [row([1], [1]), row([1], [1], shadow_scorer="v2"), row([1], [1])]
    assert [report.copies for report in shadow_reports(rows)] == [2, 1]


def test_nothing_gives_no_report() -> None:
    assert shadow_reports([]) == []


def test_overlap_looks_at_the_first_alone() -> None:
    falling = np.arange(20.0)[::-1]
    assert top_overlap(falling, -falling) == 0
    assert top_overlap(falling, falling) == 1
