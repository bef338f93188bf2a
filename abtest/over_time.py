"""An experiment day by day: who came, the effect so far, and the effect on a user's n-th day."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import ibis

from abtest import confidence_sequences
from abtest.effects import Arms, Looks, comparisons
from abtest.group_sequential import bounds
from abtest.result import Definition, ExposureDay, Look, SinceExposure, number
from abtest.sample_ratio import sequential_sample_ratio
from abtest.stats import intervals
from abtest.user_days import COUNTED, Days

MAX_SINCE = 14
"""Days since exposure that are looked at."""


def nth_day(days: Days, seen: Any, n: int) -> Days:
    """What each user did on its n-th day, 0 that of the first exposure."""
    first = seen.select("client_id", "first_day")
    totals = days.totals.inner_join(first, "client_id")
    is_first = totals.day == totals.first_day
    is_nth = totals.day == totals.first_day + ibis.interval(days=n)
    # the day of the exposure says who is in; what was done on it is of another day
    totals = totals.filter(~totals.is_pre & (is_first | is_nth))
    if n:
        gone = {f"{name}_since": ibis.literal(0) for name in COUNTED}
        is_first = totals.day == totals.first_day
        totals = totals.mutate(
            **{name: ibis.ifelse(is_first, zero, totals[name]) for name, zero in gone.items()}
        )
    deeds = days.deeds.inner_join(first, "client_id")
    deeds = deeds.filter(deeds.at.date() == deeds.first_day + ibis.interval(days=n))
    return days._replace(totals=totals.drop("first_day"), deeds=deeds.drop("first_day"))


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
        critical = limits.get(day)
        if looks is not None and definition.role == "guardrail":
            critical = confidence_sequences.critical(units, looks.tuned_units, alpha)
        reach = None if critical is None else intervals(one.control, one.treatment, critical)
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
            critical=critical,
            n_control=one.control.units,
            n_treatment=one.treatment.units,
        )


def effects_since(
    arms_of_day: Callable[[int], Arms],
    days: int,
    definitions: Mapping[str, Definition],
    alpha: float,
) -> tuple[SinceExposure, ...]:
    """The effect on each day of a user's, for primary metrics.

    Attributed orders are left out: what they are attributed to may be of the day before.

    Args:
        arms_of_day: n -> users who have been in for more than n days, and their n-th day.
        days: In all.
        definitions: Of the metrics.
        alpha: Of each interval.
    """
    looked_at = {
        metric: definition
        for metric, definition in definitions.items()
        if definition.role == "primary" and "attributed" not in definition.numerator
    }
    found = []
    for n in range(min(days, MAX_SINCE) if looked_at else 0):
        arms = arms_of_day(n)
        for metric, definition in looked_at.items():
            try:
                compared = comparisons(metric, definition, arms, alpha)
            except ValueError:
                continue
            found += [
                SinceExposure(
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
                for variant, one in compared.items()
            ]
    return tuple(sorted(found, key=lambda one: (one.metric, one.variant, one.days_since)))
