from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest

from abtest.experiment import Experiment
from abtest.schedule import exposure_time, full_days, last_look, look_days, planned_looks

START = datetime(2026, 11, 2, tzinfo=UTC)
END = START + timedelta(days=14)


def an_experiment(**changes: Any) -> Experiment:
    return msgspec.convert(
        {
            "layer": "ranking",
            "salt": "new",
            "phase": 1,
            "range": [0, 10_000],
            "start": START,
            "end": END,
            "variants": {
                "control": {"weight": 0.5, "scorer": "a"},
                "treatment": {"weight": 0.5, "scorer": "b"},
            },
            "primary": ["ctr"],
            **changes,
        },
        Experiment,
    )


def looks(experiment: Experiment, days: int, users: int | None = None, grow: int = 100) -> Any:
    ends = look_days(experiment, START + timedelta(days=days))
    by_day = [grow * (n + 1) for n in range(len(ends))]
    return planned_looks(experiment, ends, by_day, 7, users)


def test_only_days_that_are_over_are_looked_at() -> None:
    experiment = an_experiment()
    assert last_look(experiment, START + timedelta(days=3, hours=5)) == START + timedelta(days=3)
    assert last_look(experiment, END + timedelta(days=5)) == END
    with pytest.raises(ValueError, match="no day of it is over"):
        last_look(experiment, START + timedelta(hours=23))


def test_days_are_of_utc_and_a_start_within_one_makes_it_short() -> None:
    experiment = an_experiment(start=START - timedelta(hours=1))
    ends = look_days(experiment, START + timedelta(days=2))
    assert list(ends) == [date(2026, 11, 1), date(2026, 11, 2), date(2026, 11, 3)]
    assert ends[date(2026, 11, 1)] == START
    assert full_days(experiment, START) == 0
    assert full_days(experiment, START + timedelta(hours=23)) == 1


def test_before_a_week_there_is_no_planned_look() -> None:
    for days in (1, 6):
        found, fractions = looks(an_experiment(), days)
        assert (found.fractions, fractions, found.is_final) == ((), {}, False)


def test_by_the_calendar_each_day_is_a_look_and_the_last_one_is_final() -> None:
    found, fractions = looks(an_experiment(), 10)
    assert found.fractions == pytest.approx([n / 14 for n in (7, 8, 9, 10)])
    assert list(fractions)[-1] == date(2026, 11, 11)
    assert found.tuned_units == 1_400
    assert not found.is_final
    found, _ = looks(an_experiment(), 14)
    assert found.fractions[-1] == pytest.approx(1)
    assert found.is_final


def test_a_day_weighs_as_much_as_was_ramped() -> None:
    ramp = [{"at": START + timedelta(days=7), "range": [0, 10_000]}]
    experiment = an_experiment(range=[0, 1_000], ramp=ramp)
    assert exposure_time(experiment, START + timedelta(days=7)) == pytest.approx(7_000)
    assert exposure_time(experiment, END) == pytest.approx(77_000)
    found, _ = looks(experiment, 8)
    assert found.fractions == pytest.approx([7 / 77, 17 / 77])


def test_a_killed_experiment_can_still_be_looked_at() -> None:
    assert looks(an_experiment(killed=True), 9)[0].fractions


def test_fewer_users_than_planned_are_less_information() -> None:
    found, _ = looks(an_experiment(), 9, users=2_000)
    assert found.fractions == pytest.approx([0.35, 0.4, 0.45])
    assert (found.tuned_units, found.is_final) == (2_000, False)


def test_users_who_came_early_are_no_more_information_than_their_days() -> None:
    found, _ = looks(an_experiment(), 12, users=900)
    assert found.fractions == pytest.approx([days / 14 for days in range(7, 13)])
    assert (found.tuned_units, found.is_final) == (900, False)
    assert looks(an_experiment(), 14, users=2_000)[0].is_final


def test_a_day_that_brings_hardly_anybody_is_no_look() -> None:
    experiment = an_experiment()
    ends = look_days(experiment, START + timedelta(days=10))
    by_day = [100, 200, 300, 400, 500, 600, 700, 700, 701, 702]
    found, fractions = planned_looks(experiment, ends, by_day, 7, 2_000)
    assert found.fractions == pytest.approx([0.351])
    assert list(fractions) == [date(2026, 11, 11)]
