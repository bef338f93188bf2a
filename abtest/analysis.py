"""The analysis of a table of users: what differs between variants, and whether to believe it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from abtest.checks import shares
from abtest.effects import Arms, Looks, effects, ratio_of, segments
from abtest.gates import (
    arm_gates,
    effective_units_gates,
    few_units,
    metric_gates,
    sample_ratio_gate,
    sample_ratio_of,
)
from abtest.result import Definition, Gate, Provenance, Result, Subject
from abtest.rule import Rule
from abtest.user_file import Users, arms_of, parts_of, read_users, sha256_of, with_known

PACKAGES = ("querylift", "numpy", "scipy", "pyarrow", "duckdb", "ibis-framework")


@dataclass(frozen=True)
class Table:
    """A file of one row a user, and what its columns are."""

    path: Path
    metrics: Mapping[str, str]
    """Name to ``COLUMN`` (a mean per user) or ``COLUMN/COLUMN`` (a ratio of sums)."""
    variant_column: str = "variant"
    control: str | None = None
    """None: the first by name, or the one called so."""
    weights: Mapping[str, float] | None = None
    """Configured share of each variant; None: all alike."""
    covariates: Mapping[str, tuple[str, ...]] | None = None
    """Metric to columns from before the experiment, as of ``metrics``."""
    lower_is_better: Sequence[str] = ()
    """Metrics that are."""
    segments: Sequence[str] = ()
    unit_column: str | None = None


def analyse_table(
    table: Table,
    *,
    command: str,
    rule: Rule | None = None,
    fractions: tuple[float, ...] = (),
) -> Result:
    """Compare the variants of a table, each with the control.

    Args:
        table: What is read.
        command: That makes the result again.
        rule: Thresholds; the defaults if none.
        fractions: Of the planned users, at each look so far, the last one now. Empty: this is the
            only look.

    Raises:
        ValueError: What ``read_users`` refuses; a control, weight or covariate of something that
            the table does not have.
        OSError: The table cannot be read.
    """
    rule = rule or Rule()
    definitions = definitions_of(table)
    users = read_users(
        table.path,
        definitions,
        variant_column=table.variant_column,
        segments=table.segments,
        unit_column=table.unit_column,
    )
    definitions = with_known(definitions, users)
    weights = _weights(table, users)
    arms = Arms(arms_of(users, weights))
    ratio = sample_ratio_of(arms.counts, weights)
    unit = table.unit_column or "row"
    gates = arm_gates(_counts(users), weights, rule, unit)
    gates = [*gates, sample_ratio_gate(ratio, rule), *_below_zero(users, definitions)]
    looks = (
        Looks(fractions, tuned_units=round(len(users.variants) / fractions[-1]))
        if fractions
        else None
    )
    is_empty = min(arms.counts.values()) < 2
    found = effects(arms, {} if is_empty else definitions, rule.alpha, looks)
    few = few_units(found.effective_units, definitions, rule)
    parts = {} if is_empty else parts_of(users, weights)
    return Result(
        subject=Subject(
            name=table.path.name, unit=unit, control=arms.control, weights=dict(weights)
        ),
        alpha=rule.alpha,
        rule=rule,
        verdict=None,
        gates=(
            *gates,
            *effective_units_gates(few, rule),
            *metric_gates(found.refused, definitions, found.constant),
        ),
        sample_ratio=ratio,
        metrics=found.effects,
        definitions=dict(definitions),
        segments=segments(parts, definitions, rule.alpha, looks),
        provenance=Provenance(
            command=command,
            made_at=datetime.now(UTC),
            data=str(table.path),
            data_sha256=sha256_of(table.path),
            versions=versions(),
        ),
    )


def stops(result: Result) -> list[Gate]:
    """The gates that say: decide nothing on these numbers."""
    return [gate for gate in result.gates if gate.status == "stop"]


def versions() -> dict[str, str]:
    """Of the packages that numbers depend on, those that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def definitions_of(table: Table) -> dict[str, Definition]:
    """The metrics of a table; all of them are primary."""
    covariates = table.covariates or {}
    for kind, names in (("covariate", covariates), ("lower is better", table.lower_is_better)):
        for name in names:
            if name not in table.metrics:
                there = ", ".join(table.metrics) or "none"
                raise ValueError(f"{kind}: no metric {name!r}; there are {there}")
    return {
        metric: _definition(
            text,
            tuple(covariates.get(metric, ())),
            is_higher_better=metric not in table.lower_is_better,
        )
        for metric, text in table.metrics.items()
    }


def _definition(text: str, covariates: tuple[str, ...], *, is_higher_better: bool) -> Definition:
    numerator, denominator = ratio_of(text)
    words = f"{numerator} per user" if denominator is None else f"{numerator} over {denominator}"
    return Definition(
        role="primary",
        numerator=numerator,
        denominator=denominator,
        is_higher_better=is_higher_better,
        text=words if denominator is None else f"{words}, sums of all users",
        covariates=covariates,
    )


def _counts(users: Users) -> dict[str, int]:
    return {
        variant: int((users.variants == variant).sum())
        for variant in dict.fromkeys(users.variants.tolist())
    }


def _weights(table: Table, users: Users) -> dict[str, float]:
    """Share of each variant, control first."""
    there = sorted(_counts(users))
    names = list(table.weights or there)
    control = table.control or ("control" if "control" in names else names[0] if names else "")
    if control not in names:
        raise ValueError(f"control {control!r}: no such variant; there are {', '.join(names)}")
    names.sort(key=lambda name: name != control)
    given = table.weights or dict.fromkeys(names, 1 / len(names))
    if len(names) < 2:
        raise ValueError(f"{table.path}: one variant, {control!r}; want two or more")
    shares("weights", [given[name] for name in names])
    return {name: given[name] for name in names}


def _below_zero(users: Users, definitions: Mapping[str, Definition]) -> list[Gate]:
    """Amounts below 0 are mostly refunds that want a column of their own."""
    found = []
    for name in dict.fromkeys(definition.numerator for definition in definitions.values()):
        count = int((users.columns[name] < 0).sum())
        if count:
            message = f"column {name!r} is below 0 for {count:,} users"
            found.append(Gate(name="below_zero", status="warn", message=message, value=count))
    return found
