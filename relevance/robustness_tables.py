"""Robustness in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from relevance.configs import EvaluationConfig
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
            *(_cell(found["transformations"][row["name"]]) for found in models.values()),
        ]
        for row in result["transformations"]
    ]
    rows += [
        [
            f"all of {suite}",
            suite,
            "",
            f"{about['pairs']}",
            *(_cell(found["suites"][suite]) for found in models.values()),
        ]
        for suite, about in result["suites"].items()
    ]
    rows.append(
        [
            OVERALL,
            "",
            "",
            f"{result['changed']}",
            *(_cell(found[OVERALL]) for found in models.values()),
        ]
    )
    return _markdown(["transformation", "suite", "score", "pairs", *models], rows)


def definitions_table() -> str:
    """Markdown table of the transformations, for the guide."""
    return _markdown(
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
            *(_cell(shares[name][key]) for name in models),
            *(_cell(less[name][key], "+") for name in less),
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
    return _markdown(["transformation", *models, *(f"{name} − {reference}" for name in less)], rows)


def _cell(result: Mapping[str, Any], sign: str = "") -> str:
    if result["value"] is None:
        return "–"
    value = f"{result['value']:{sign}.3f}"
    if result["low"] is None:
        return value
    return f"{value} [{result['low']:{sign}.3f}, {result['high']:{sign}.3f}]"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (header, rule, *rows)
    )
