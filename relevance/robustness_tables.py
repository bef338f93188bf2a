"""Robustness in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from relevance.configs import EvaluationConfig
from relevance.evaluation import interval_cell, markdown_table
from relevance.robustness import KEYS, OVERALL, over_seeds
from relevance.transformations import SUITES, TRANSFORMATIONS


def format_table(result: Mapping[str, Any]) -> str:
    """Markdown table: a row per transformation, then suites and overall; a column per model."""
    models = result["models"]
    rows = [
        [
            row["name"],
            row["suite"],
            row["direction"],
            f"{row['pairs']}",
            *(interval_cell(found["transformations"][row["name"]]) for found in models.values()),
        ]
        for row in result["transformations"]
    ]
    rows += [
        [
            f"all of {suite}",
            suite,
            "",
            f"{about['pairs']}",
            *(interval_cell(found["suites"][suite]) for found in models.values()),
        ]
        for suite, about in result["suites"].items()
    ]
    rows.append(
        [
            OVERALL,
            "",
            "",
            f"{result['changed']}",
            *(interval_cell(found[OVERALL]) for found in models.values()),
        ]
    )
    return markdown_table(["transformation", "suite", "score", "pairs", *models], rows)


def definitions_table() -> str:
    """Markdown table of the transformations, for the guide."""
    return markdown_table(
        ["transformation", "suite", "score", "change"],
        [[row.name, row.suite, row.direction, row.meaning] for row in TRANSFORMATIONS],
    )


def robustness_table(
    config: EvaluationConfig,
    cases: pd.DataFrame,
    models: Mapping[str, Sequence[str]],
    reference: str,
) -> str:
    """Markdown rows of ``relevance.robustness.over_seeds``, which says what is given.

    How far seeds differ is what the last row shows.
    """
    found = over_seeds(config, cases, models, reference)
    shares, less = found["shares"], found["less_reference"]
    rows = [
        [
            f"all of {key}" if key in SUITES else key,
            *(interval_cell(shares[name][key]) for name in models),
            *(interval_cell(less[name][key], "+") for name in less),
        ]
        for key in KEYS
    ]
    each = [
        ", ".join(
            "–" if value is None else f"{value:.3f}" for value in shares[name][OVERALL]["seeds"]
        )
        for name in models
    ]
    rows.append([f"{OVERALL}, each seed", *each, *[""] * len(less)])
    return markdown_table(
        ["transformation", *models, *(f"{name} − {reference}" for name in less)], rows
    )
