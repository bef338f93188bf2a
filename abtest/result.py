"""The result of an analysis: what ``querylift ab analyze --json`` prints and the report shows.

Numbers that cannot be given are null, never NaN: an interval that would mislead, a relative effect
over a control of 0. Fields are added, and none changes its meaning, while ``schema_version`` stays.
"""

from __future__ import annotations

import math
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from abtest.rule import Rule

SCHEMA_VERSION: Literal[1] = 1

Number = float | None
Role = Literal["primary", "guardrail", "other"]
Method = Literal["fixed", "group-sequential", "confidence-sequence"]
Decision = Literal["ship", "extend", "hold", "stop"]


class Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all parts share: strictness."""


class Subject(Part, frozen=True, kw_only=True):
    """What was analysed."""

    name: str
    """Of the experiment; of a table the name of its file."""
    phase: int | None = None
    unit: str
    """What was randomised; all counts of users are of it."""
    control: str
    weights: dict[str, float]
    """Configured share of each variant, control first."""
    start: datetime | None = None
    until: datetime | None = None
    """The first moment that is not looked at: the last full day's end."""
    end: datetime | None = None
    """As planned."""
    days: int | None = None
    """Full days looked at."""
    planned_days: int | None = None


class Definition(Part, frozen=True, kw_only=True):
    """What a metric is."""

    role: Role
    numerator: str
    """Column of the user table, or what the rows of a quantile are."""
    denominator: str | None = None
    """None: the mean per user."""
    scale: float = 1.0
    """Values are the ratio times this, as 1,000 of an amount per 1,000 impressions."""
    cap: Number = None
    """Highest total of a user that counts; None: all of it."""
    probability: Number = None
    """Of a quantile of rows, as 0.95."""
    unit: str = ""
    """Of the value, as ``EUR per user``, ``clicks per impression`` or ``milliseconds``; empty:
    nobody said, so it is shown as a plain number."""
    is_higher_better: bool = True
    text: str
    """In words, as it is computed."""
    margin: Number = None
    """Of a guardrail: largest harm accepted, relative to the control."""
    covariates: tuple[str, ...] = ()
    """From before the experiment, as ``pre_clicks/pre_impressions``: noise taken out (CUPED)."""


class NonInferior(Part, frozen=True, kw_only=True):
    """Whether a guardrail got worse by less than its margin."""

    margin: float
    """Relative to the control."""
    is_non_inferior: bool
    pvalue: Number
    """One-sided, of one look; ``is_non_inferior`` allows for all looks."""


class Cuped(Part, frozen=True, kw_only=True):
    """What the covariates changed."""

    variance_saved: float
    """Share; 0.3 is as if there were 1 / 0.7 times the users."""
    effect: Number
    """Without them."""
    se: Number
    pvalue: Number


class Effect(Part, frozen=True, kw_only=True):
    """A treatment against the control, in one metric."""

    control: float
    """Value of the metric."""
    treatment: float
    effect: float
    """Treatment minus control, in the metric's unit."""
    se: float
    """Standard error of the effect."""
    pvalue: float
    """Two-sided, of no effect; it allows for the looks of ``method``, not for other metrics."""
    ci_low: float
    """The interval holds with 1 - alpha; it excludes 0 exactly where pvalue is at most alpha."""
    ci_high: float
    rel_effect: Number
    """Effect over the size of the control's value: 0.02 is 2 % more."""
    rel_ci_low: Number
    rel_ci_high: Number
    n_control: int
    """Users."""
    n_treatment: int
    method: Method
    critical: float
    """Standard errors that the interval reaches to each side."""
    adjusted_pvalue: Number = None
    """With its family: Holm over primaries, Benjamini and Hochberg over segments."""
    is_significant: bool
    """adjusted_pvalue, where there is one, else pvalue, is at most alpha."""
    is_better: bool
    """Significant, to the better."""
    is_worse: bool
    """Significant, to the worse."""
    mde: Number = None
    """Smallest relative effect found with a chance of 80 % by so many users at one look."""
    non_inferior: NonInferior | None = None
    cuped: Cuped | None = None


class Segment(Part, frozen=True, kw_only=True):
    """One metric among some of the users."""

    segment: str
    """Column, as ``application``."""
    value: str
    metric: str
    variant: str
    effect: Effect


class Gate(Part, frozen=True, kw_only=True):
    """A condition of believing the numbers."""

    name: str
    """In one word, for machines; ``docs/analyze.md`` lists them."""
    status: Literal["pass", "warn", "stop"]
    """``warn``: look at it; ``stop``: decide nothing on these numbers."""
    message: str
    """What was found and what is wanted."""
    value: Number = None
    threshold: Number = None


class SampleRatio(Part, frozen=True, kw_only=True):
    """Users of every variant against the configured weights."""

    counts: dict[str, int]
    expected: dict[str, float]
    statistic: Number
    pvalue: Number
    """Chi-square, of one look."""
    sequential_pvalue: Number = None
    """Smallest so far, of looking every day."""


class Look(Part, frozen=True, kw_only=True):
    """The cumulative effect at the end of a day."""

    day: date
    metric: str
    variant: str
    fraction: Number
    """Of the planned information; None where the looks are not planned."""
    effect: float
    se: float
    ci_low: Number
    """At the boundary: None before the first planned look."""
    ci_high: Number
    rel_effect: Number
    rel_ci_low: Number
    rel_ci_high: Number
    critical: Number
    """Bound of this look, in standard errors."""
    n_control: int
    n_treatment: int


class SinceExposure(Part, frozen=True, kw_only=True):
    """The effect on the n-th day of a user, of those who have been in for so long.

    Where it falls with the days, the treatment's novelty wears off.
    """

    days_since: int
    """0: the day of the first exposure, in UTC."""
    metric: str
    variant: str
    effect: float
    se: float
    ci_low: float
    """Of one look at this one day, at alpha."""
    ci_high: float
    rel_effect: Number
    rel_ci_low: Number
    rel_ci_high: Number
    n_control: int
    n_treatment: int


class ExposureDay(Part, frozen=True, kw_only=True):
    """Users who came on a day."""

    day: date
    new: dict[str, int]
    """First exposed on this day, by variant."""
    total: dict[str, int]
    """Exposed so far."""
    sample_ratio_pvalue: Number
    """Sequential, so far."""


class Drop(Part, frozen=True, kw_only=True):
    """A step of the way from the log to the user table."""

    step: str
    """In one word, for machines."""
    count: int
    unit: Literal["events", "users"]
    text: str
    """What was left out, or what was left, and why."""


class Verdict(Part, frozen=True, kw_only=True):
    """What to do."""

    decision: Decision
    variant: str | None
    """The treatment that this is about; None: all of them."""
    sentence: str
    """One sentence that a product manager understands."""
    reasons: tuple[str, ...]
    """Each a sentence; the one that decided first."""
    days_left: int | None = None
    """Of the plan, where the decision is to extend."""


class Provenance(Part, frozen=True, kw_only=True):
    """What the result was made of, and by what."""

    command: str
    """That makes it again."""
    made_at: datetime
    config_version: int | None = None
    config_sha256: str | None = None
    """Of the experiment file."""
    data: str
    """The store or the table."""
    data_sha256: str
    """Of the table's bytes; of a store, of its files' names and sizes."""
    versions: dict[str, str]
    """Of packages."""
    model_versions: dict[str, dict[str, int]] = {}
    """Variant to the models that answered and their exposures."""


class Result(Part, frozen=True, kw_only=True):
    """All of it."""

    schema_version: Literal[1] = SCHEMA_VERSION
    subject: Subject
    alpha: float
    """Two-sided, of each family of tests."""
    rule: Rule = Rule()
    """All thresholds: the experiment file's ``decision``."""
    verdict: Verdict | None
    """None: of a table, nobody said what decides."""
    gates: tuple[Gate, ...]
    sample_ratio: SampleRatio
    metrics: dict[str, dict[str, Effect]]
    """Metric to treatment to effect; primaries first, then guardrails."""
    definitions: dict[str, Definition]
    """Of every metric here."""
    segments: tuple[Segment, ...] = ()
    looks: tuple[Look, ...] = ()
    """By metric, treatment and day."""
    since_exposure: tuple[SinceExposure, ...] = ()
    exposures: tuple[ExposureDay, ...] = ()
    funnel: tuple[Drop, ...] = ()
    provenance: Provenance


def number(value: float) -> Number:
    """The value; None if it is not finite."""
    return value if math.isfinite(value) else None


def to_json(result: Result) -> str:
    """As indented JSON, one form for one result."""
    return msgspec.json.format(msgspec.json.encode(result)).decode()


def read_result(path: Path) -> Result:
    """The result in a file.

    Raises:
        ValueError: It is none.
        OSError: It cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Result)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path}: no result of an analysis: {error}") from None


def schema() -> dict[str, Any]:
    """JSON Schema of the result."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **msgspec.json.schema(Result),
    }
