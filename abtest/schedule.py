"""When one looks at a running experiment, and how much of the planned information is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

from abtest.assignment import range_reached
from abtest.effects import Looks
from abtest.experiment import Experiment

_A_DAY = timedelta(days=1)
MIN_STEP = 0.005
"""Of the planned information between two looks. Nearer ones say the same, and their bounds take
seconds each; a day that brings less is no look of its own."""


def last_look(experiment: Experiment, at: datetime) -> datetime:
    """The end of the last day in UTC, or that of the experiment.

    Raises:
        ValueError: There is no such day yet.
    """
    if at >= experiment.end:
        return experiment.end
    midnight = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if midnight <= experiment.start:
        raise ValueError(
            f"nothing to look at: the experiment starts at {experiment.start.isoformat()}, and no "
            f"day of it is over at {at.isoformat()}"
        )
    return midnight


def look_days(experiment: Experiment, until: datetime) -> dict[date, datetime]:
    """Days in UTC, each with the moment of its end, up to ``until``."""
    day = experiment.start.astimezone(UTC).date()
    found: dict[date, datetime] = {}
    while True:
        end = datetime(day.year, day.month, day.day, tzinfo=UTC) + _A_DAY
        if end >= until:
            return {**found, day: until}
        found[day] = end
        day += _A_DAY


def full_days(experiment: Experiment, until: datetime) -> int:
    """Since the start."""
    return (until - experiment.start) // _A_DAY


def exposure_time(experiment: Experiment, until: datetime) -> float:
    """Days since the start, each counted by the share of the layer that is in."""
    moments = [experiment.start, *(step.at for step in experiment.ramp), until]
    moments = sorted(moment for moment in moments if experiment.start <= moment <= until)
    total = 0.0
    for first, end in pairwise(moments):
        buckets = range_reached(experiment, first)
        total += (buckets[1] - buckets[0]) * ((end - first) / _A_DAY)
    return total


def planned_looks(
    experiment: Experiment,
    days: Mapping[date, datetime],
    users_by_day: Sequence[int],
    min_days: int,
    planned_users: int | None,
) -> tuple[Looks, dict[date, float]]:
    """The looks so far, and the fraction of the planned information at each.

    A look is the end of a day on which a decision is possible. The fraction goes by the calendar,
    a day weighing as much as the share of the layer that was in. Where users were planned it is
    never more than their share: most come early, but what they do goes on, and by their share
    alone users who come back reject 7 to 8 % instead of 5.

    Args:
        experiment: The plan.
        days: Those looked at, with their ends.
        users_by_day: Users exposed by the end of each.
        min_days: Before so many full days nothing is decided.
        planned_users: Of the whole experiment.
    """
    whole = exposure_time(experiment, experiment.end)
    fractions: dict[date, float] = {}
    now = max(days)
    fraction = 0.0
    for (day, end), users in zip(days.items(), users_by_day, strict=True):
        time = exposure_time(experiment, end) / whole if whole else 0.0
        fraction = min(time, users / planned_users) if planned_users else time
        if full_days(experiment, end) < min_days or not fraction:
            continue
        # what is beyond the plan is no look but the last one
        if day == now or (fraction < 1 and fraction >= _last(fractions) + MIN_STEP):
            fractions[day] = fraction
    *earlier, _ = fractions or [now]
    if earlier and fractions[now] - fractions[earlier[-1]] < MIN_STEP:
        del fractions[earlier[-1]]
    units = users_by_day[-1]
    tuned = planned_users or (round(units / fraction) if fraction else units)
    is_final = days[now] >= experiment.end or fraction >= 1
    return Looks(tuple(fractions.values()), max(tuned, 1), is_final), fractions


def _last(fractions: Mapping[date, float]) -> float:
    return max(fractions.values(), default=0.0)
