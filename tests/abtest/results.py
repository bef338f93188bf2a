"""Results to make reports of: numbers that agree with one another, not those of a shop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any

from abtest.group_sequential import bounds
from abtest.result import (
    Cuped,
    Definition,
    Drop,
    Effect,
    ExposureDay,
    Gate,
    Look,
    NonInferior,
    Provenance,
    Result,
    SampleRatio,
    Segment,
    SinceExposure,
    Subject,
    Verdict,
    number,
)
from abtest.stats import Comparison, Estimate, compare

START = datetime(2026, 11, 2, tzinfo=UTC)
DAYS = 28
USERS = 61_240
HOSTILE = "<img src=//evil.test/x onerror=alert(1)>\"'&|`[x](javascript:alert(1))"

DEFINITIONS = {
    "ctr": Definition(
        role="primary",
        numerator="clicks",
        denominator="impressions",
        unit="clicks per impression",
        text="Clicks per impression: clicks that follow an impression of the same item in the same "
        "search by at most 30 minutes, over all impressions.",
        covariates=("pre_clicks/pre_impressions",),
    ),
    "pay": Definition(
        role="primary",
        numerator="amount",
        cap=1_840.0,
        unit="EUR per user",
        text="Amount paid per exposed user, refunds apart, capped at the 99.9th percentile of all "
        "variants together.",
    ),
    "latency_p95": Definition(
        role="guardrail",
        numerator="latency_ms",
        probability=0.95,
        unit="milliseconds",
        is_higher_better=False,
        text="95th percentile of the time that a search took.",
        margin=0.1,
    ),
    "zero_results": Definition(
        role="guardrail",
        numerator="zero_result_queries",
        denominator="queries",
        is_higher_better=False,
        text="Share of searches without any item.",
        margin=0.05,
    ),
    "impressions_per_user": Definition(
        role="guardrail",
        numerator="impressions",
        unit="impressions per user",
        text="Impressions per exposed user.",
        margin=0.02,
    ),
    "cvr": Definition(
        role="other",
        numerator="attributed_orders",
        denominator="clicks",
        text="Orders within 24 hours of a click on the same item, over clicks.",
    ),
}
# value of the control, its standard deviation between users, relative effect
_MOMENTS = {
    "ctr": (0.0521, 0.081, 0.031),
    "pay": (7.43, 96.0, 0.012),
    "latency_p95": (84.2, 190.0, 0.021),
    "zero_results": (0.0312, 0.09, -0.004),
    "impressions_per_user": (41.7, 48.0, 0.002),
    "cvr": (0.0184, 0.19, 0.008),
}


def compared(
    metric: str, users: float, effect: float | None = None, alpha: float = 0.05
) -> Comparison:
    value, deviation, usual = _MOMENTS[metric]
    treated = value * (1 + (usual if effect is None else effect))
    arms = (Estimate(it, deviation**2, round(users)) for it in (value, treated))
    return compare(*arms, alpha)


def effect(metric: str, users: float = USERS, **changes: Any) -> Effect:
    found = compared(metric, users, changes.pop("effect", None))
    definition = DEFINITIONS[metric]
    is_shown = found.pvalue <= 0.05
    is_up = (found.effect > 0) == definition.is_higher_better
    harm = -found.rel_ci_low if definition.is_higher_better else found.rel_ci_high
    margin = definition.margin
    fields: dict[str, Any] = {
        "control": found.control.value,
        "treatment": found.treatment.value,
        "effect": found.effect,
        "se": found.std_error,
        "pvalue": found.pvalue,
        **{name: getattr(found, name) for name in ("ci_low", "ci_high")},
        **{
            name: number(getattr(found, name))
            for name in ("rel_effect", "rel_ci_low", "rel_ci_high")
        },
        "n_control": found.control.units,
        "n_treatment": found.treatment.units,
        "method": "confidence-sequence" if margin else "group-sequential",
        "critical": 1.96,
        "adjusted_pvalue": min(2 * found.pvalue, 1.0) if definition.role == "primary" else None,
        "is_significant": is_shown,
        "is_better": is_shown and is_up,
        "is_worse": is_shown and not is_up,
        "mde": 2.8 * found.std_error / abs(found.control.value),
        "non_inferior": margin
        and NonInferior(margin=margin, is_non_inferior=harm < margin, pvalue=0.001),
        "cuped": Cuped(variance_saved=0.31, effect=found.effect, se=found.std_error, pvalue=0.01)
        if definition.covariates
        else None,
    }
    return Effect(**{**fields, **changes})


@cache
def planned_bounds() -> tuple[float, ...]:
    return bounds([day / DAYS for day in range(7, DAYS + 1)])


def looks(variant: str) -> Iterator[Look]:
    planned = planned_bounds()
    for metric in ("ctr", "pay", "cvr"):
        for day in range(1, DAYS + 1):
            # noise that dies away, the same in every run
            wobble = 0.09 * math.sin(0.9 * day) / day
            users = USERS * (day / DAYS) ** 0.7
            found = compared(metric, users, _MOMENTS[metric][2] + wobble)
            critical = None if day < 7 else planned[day - 7]
            half = None if critical is None else critical * found.std_error
            yield Look(
                day=(START + timedelta(days=day - 1)).date(),
                metric=metric,
                variant=variant,
                fraction=None if critical is None else day / DAYS,
                effect=found.effect,
                se=found.std_error,
                ci_low=None if half is None else found.effect - half,
                ci_high=None if half is None else found.effect + half,
                rel_effect=found.rel_effect,
                rel_ci_low=found.rel_ci_low,
                rel_ci_high=found.rel_ci_high,
                critical=critical,
                n_control=round(users),
                n_treatment=round(users),
            )


def since_exposure(variant: str) -> Iterator[SinceExposure]:
    for metric in ("ctr", "pay"):
        for days in range(10):
            users = USERS * 0.8**days
            found = compared(metric, users, _MOMENTS[metric][2] * (1.4 - 0.08 * days))
            names = ("effect", "ci_low", "ci_high", "rel_effect", "rel_ci_low", "rel_ci_high")
            yield SinceExposure(
                days_since=days,
                metric=metric,
                variant=variant,
                se=found.std_error,
                n_control=found.control.units,
                n_treatment=found.treatment.units,
                **{name: getattr(found, name) for name in names},
            )


def segments(variant: str) -> Iterator[Segment]:
    parts = {"shop-android": (0.4, 0.05), "shop-ios": (0.25, 0.02), "shop-web": (0.35, -0.003)}
    for metric in ("ctr", "pay"):
        for value, (part, gain) in parts.items():
            found = effect(metric, USERS * part, effect=gain)
            yield Segment(
                segment="application", value=value, metric=metric, variant=variant, effect=found
            )


def exposures(variants: tuple[str, ...]) -> Iterator[ExposureDay]:
    total = dict.fromkeys(variants, 0)
    for day in range(DAYS):
        come = USERS * (((day + 1) / DAYS) ** 0.7 - (day / DAYS) ** 0.7)
        new = {
            name: round(come * (1 + 0.01 * math.sin(7.0 * day + 2.0 * place)))
            for place, name in enumerate(variants)
        }
        total = {name: total[name] + new[name] for name in variants}
        yield ExposureDay(
            day=date(2026, 11, 2) + timedelta(days=day),
            new=new,
            total=total,
            sample_ratio_pvalue=0.62,
        )


_GATES = (
    ("sample_ratio", "pass", "50.02 % in treatment, 50 % configured; p = 0.81, want over 0.001"),
    ("days", "pass", "28 full days, want 7 or more"),
    ("crossover", "pass", "0.12 % of users met two variants, want 1 % or less"),
    ("freshness", "pass", "the last event is 2 hours before the end, want 24 or less"),
    ("log_quality", "warn", "1.4 % of events were dropped, want 1 % or less"),
)
_DROPS = (
    ("rows", 9_412_003, "events", "in the log of these days"),
    ("duplicates", 61_201, "events", "sent again under the same id: the first received counts"),
    ("bots", 70_551, "events", "of clients with more than 1,000 events a minute"),
    ("late", 412, "events", "received more than 3 days after the end"),
    ("before_exposure", 1_203_881, "events", "before the user's first exposure"),
    ("exposed", 122_627, "users", "met a variant"),
    ("crossover", 147, "users", "met more than one variant and are left out"),
    ("counted", 122_480, "users", "are the users of the metrics"),
)


def result(variants: tuple[str, ...] = ("control", "treatment"), **changes: Any) -> Result:
    """A result in which all there can be is."""
    treatments = variants[1:]
    fields: dict[str, Any] = {
        "subject": Subject(
            name="ei-src-vs-bert",
            phase=1,
            unit="client_id",
            control=variants[0],
            weights=dict.fromkeys(variants, 1 / len(variants)),
            start=START,
            until=START + timedelta(days=DAYS),
            end=START + timedelta(days=DAYS),
            days=DAYS,
            planned_days=DAYS,
        ),
        "alpha": 0.05,
        "verdict": Verdict(
            decision="ship",
            variant=treatments[0],
            sentence=f"Ship {treatments[0]}: ctr rose by 3.1% (1.4% to 4.9%), and every guardrail "
            "is within its margin.",
            reasons=("ctr rose by 3.1% (1.4% to 4.9%): better",),
        ),
        "gates": tuple(Gate(name=n, status=s, message=m) for n, s, m in _GATES),
        "sample_ratio": SampleRatio(
            counts=dict.fromkeys(variants, USERS),
            expected=dict.fromkeys(variants, float(USERS)),
            statistic=0.06,
            pvalue=0.81,
            sequential_pvalue=0.62,
        ),
        "metrics": {name: {v: effect(name) for v in treatments} for name in DEFINITIONS},
        "definitions": DEFINITIONS,
        "segments": tuple(it for v in treatments for it in segments(v)),
        "looks": tuple(it for v in treatments for it in looks(v)),
        "since_exposure": tuple(it for v in treatments for it in since_exposure(v)),
        "exposures": tuple(exposures(variants)),
        "funnel": tuple(Drop(step=s, count=n, unit=u, text=t) for s, n, u, t in _DROPS),
        "provenance": Provenance(
            command="querylift ab report --experiment shop.yaml --events store --out reports",
            made_at=datetime(2026, 12, 3, 9, 30, tzinfo=UTC),
            config_version=7,
            config_sha256="5f3b2c" + "0" * 58,
            data="store",
            data_sha256="a71e9d" + "0" * 58,
            versions={"querylift": "0.1.0", "scipy": "1.16.3"},
            model_versions={v: {f"shop/{place}": 412_003} for place, v in enumerate(variants)},
        ),
    }
    return Result(**{**fields, **changes})
