"""An experiment day by day: who came, the effect so far, and the effect on a user's n-th day."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import ibis

from abtest import confidence_sequences
from abtest.effects import Arms, Looks, comparisons
from abtest.group_sequential import bounds
from abtest.result import Definition, ExposureDay, Look, SinceExposure, number
from abtest.sample_ratio import sequential_sample_ratio
from abtest.stats import Comparison, intervals, student_bound
from abtest.user_days import COUNTED, Days

MAX_SINCE = 14
"""Days since exposure that are looked at."""


def until_day(days: Days, last: Any) -> Days:
    """What was known at the end of a day in UTC."""
    totals, deeds = days.totals, days.deeds
    return days._replace(
        totals=totals.filter(totals.day <= last), deeds=deeds.filter(deeds.at.date() <= last)
    )


def nth_day(days: Days, seen: Any, n: Any) -> Days:
    """What each user did on its n-th day, 0 that of the first exposure."""
    first = seen.select("client_id", "first_day")
    totals = days.totals.inner_join(first, "client_id")
    since = totals.day.delta(totals.first_day, unit="day")
    # the day of the exposure says who is in; what was done on it is of another day
    totals = totals.filter(~totals.is_pre, (since == 0) | (since == n))
    is_other = (totals.day == totals.first_day) & (n > 0)
    gone = {f"{name}_since": ibis.ifelse(is_other, 0, totals[f"{name}_since"]) for name in COUNTED}
    deeds = days.deeds.inner_join(first, "client_id")
    deeds = deeds.filter(deeds.at.date().delta(deeds.first_day, unit="day") == n)
    return days._replace(
        totals=totals.mutate(**gone).drop("first_day"), deeds=deeds.drop("first_day")
    )


def exposure_days(
    rows: Any, days: Sequence[date], weights: Mapping[str, float]
) -> tuple[ExposureDay, ...]:
    """Users who came on each day, and the sample ratio so far."""
    came = rows.group_by(day=rows.first_exposure_at.date(), variant=rows.variant).aggregate(
        users=rows.count()
    )
    new = {(row["day"], row["variant"]): row["users"] for row in came.to_pyarrow().to_pylist()}
    total = dict.fromkeys(weights, 0)
    counts, found = [], []
    for day in days:
        today = {variant: int(new.get((day, variant), 0)) for variant in weights}
        total = {variant: total[variant] + today[variant] for variant in weights}
        counts.append(total)
        found.append((day, today))
    tested = [variant for variant, weight in weights.items() if weight > 0]
    pvalues = sequential_sample_ratio(
        [[each[variant] for variant in tested] for each in counts],
        [weights[variant] for variant in tested],
    )
    return tuple(
        ExposureDay(day=day, new=today, total=each, sample_ratio_pvalue=float(pvalue))
        for (day, today), each, pvalue in zip(found, counts, pvalues, strict=True)
    )


def looks_over_time(
    arms_by_day: Mapping[date, Arms],
    definitions: Mapping[str, Definition],
    alpha: float,
    looks: Looks | None,
    fractions: Mapping[date, float],
) -> tuple[Look, ...]:
    """The effect so far at the end of each day, with the boundary of that day's look."""
    limits = {}
    if looks is not None and fractions:
        found = bounds(tuple(fractions.values()), alpha, is_final=looks.is_final)
        limits = dict(zip(fractions, found, strict=True))
    return tuple(
        look
        for metric, definition in definitions.items()
        for day, arms in arms_by_day.items()
        for look in _looks_of_day(metric, definition, day, arms, alpha, looks, limits, fractions)
    )


def _looks_of_day(
    metric: str,
    definition: Definition,
    day: date,
    arms: Arms,
    alpha: float,
    looks: Looks | None,
    limits: Mapping[date, float],
    fractions: Mapping[date, float],
) -> Iterator[Look]:
    try:
        compared = comparisons(metric, definition, arms, alpha)
    except ValueError:
        return  # too few users yet, or nobody has bought
    for variant, one in compared.items():
        units = one.control.units + one.treatment.units
        bound = limits.get(day)
        if looks is not None and definition.role == "guardrail":
            bound = confidence_sequences.critical(units, looks.tuned_units, alpha)
        reach = None if bound is None else intervals(one.control, one.treatment, bound)
        yield Look(
            day=day,
            metric=metric,
            variant=variant,
            fraction=fractions.get(day),
            effect=one.effect,
            se=one.std_error,
            ci_low=reach and reach.ci_low,
            ci_high=reach and reach.ci_high,
            rel_effect=number(one.rel_effect),
            rel_ci_low=reach and number(reach.rel_ci_low),
            rel_ci_high=reach and number(reach.rel_ci_high),
            critical=None if bound is None else student_bound(bound, one.df),
            n_control=one.control.units,
            n_treatment=one.treatment.units,
        )


def effects_since(
    arms_by_days: Mapping[int, Arms], definitions: Mapping[str, Definition], alpha: float
) -> tuple[SinceExposure, ...]:
    """The effect on each day of a user's, for primary metrics.

    Attributed orders are left out: what they are attributed to may be of the day before.

    Args:
        arms_by_days: n -> users who have been in for more than n days, and their n-th day.
        definitions: Of the metrics.
        alpha: Of each interval.
    """
    found = []
    for metric, definition in definitions.items():
        if definition.role != "primary" or "attributed" in definition.numerator:
            continue
        for n, arms in arms_by_days.items():
            with contextlib.suppress(ValueError):  # nobody has bought on this day
                compared = comparisons(metric, definition, arms, alpha)
                found += [_since(metric, n, variant, one) for variant, one in compared.items()]
    return tuple(sorted(found, key=lambda one: (one.metric, one.variant, one.days_since)))


def _since(metric: str, n: int, variant: str, one: Comparison) -> SinceExposure:
    return SinceExposure(
        days_since=n,
        metric=metric,
        variant=variant,
        effect=one.effect,
        se=one.std_error,
        ci_low=one.ci_low,
        ci_high=one.ci_high,
        rel_effect=number(one.rel_effect),
        rel_ci_low=number(one.rel_ci_low),
        rel_ci_high=number(one.rel_ci_high),
        n_control=one.control.units,
        n_treatment=one.treatment.units,
    )
