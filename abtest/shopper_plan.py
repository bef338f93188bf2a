"""Who of the simulated shoppers comes when, and what each meets: as numbers, all at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from abtest.assignment import Assignment, Split
from abtest.experiment import Experiments
from abtest.shop import Floats, Shop
from abtest.shopper_tables import NONE, Searches
from abtest.shoppers import Effect, Shoppers

DAY_MS = 86_400_000
_BOT_SEARCHES = 150
"""Of a bot, in one minute of the clock: 1,500 impressions, each of them clicked."""


@dataclass(frozen=True)
class Dirt:
    """What is wrong with a log, as shares, so that the rules that clean it are seen to matter.

    Raises:
        ValueError: A share is not within 0 to 1.
    """

    duplicates: float = 0.0
    """Of what browsers send: there twice, the second time received 5 s later."""
    late: float = 0.0
    """Of what browsers send: received 4 to 9 days after the end."""
    second_clicks: float = 0.0
    """Of clicks: done again within 2 s."""
    refunds: float = 0.0
    """Of payments: taken back within two days."""
    bots: float = 0.0
    """Of shoppers: so many more, each for a minute, that click all they are shown."""
    crossovers: float = 0.0
    """Of shoppers with two searches in the experiment or more: their last is on a device that is in
    another variant."""
    unexposed: float = 0.0
    """Of the same: the experiment missed their first search, so it is before their exposure."""

    def __post_init__(self) -> None:
        for one in fields(self):
            if not 0 <= getattr(self, one.name) <= 1:
                raise ValueError(f"{one.name}: {getattr(self, one.name)}; want 0 to 1")
        if self.crossovers + self.unexposed > 1:
            raise ValueError("crossovers and unexposed: nobody is both; want 1 at most together")


@dataclass(frozen=True)
class Simulation:
    """Shoppers of an experiment.

    Raises:
        ValueError: A number is not positive, ``begin`` has no zone, or there is no such experiment.
    """

    experiments: Experiments
    experiment_id: str
    """Whose variants the effect is of, all but the first."""
    begin: datetime
    """Of the log. Before the experiment's start nobody is exposed."""
    days: float
    users: int
    """Who search at least once; bots come on top."""
    seed: int = 0
    """The same gives the same bytes."""
    habits: Shoppers = field(default_factory=Shoppers)
    effect: Effect = field(default_factory=Effect)
    dirt: Dirt = field(default_factory=Dirt)

    def __post_init__(self) -> None:
        if self.experiment_id not in self.experiments.experiments:
            known = ", ".join(self.experiments.experiments)
            raise ValueError(f"no experiment {self.experiment_id!r}; the file has {known}")
        if self.begin.tzinfo is None:
            raise ValueError(f"begin: {self.begin} has no zone")
        for name, least in (("days", 0.01), ("users", 1), ("seed", 0)):
            value = getattr(self, name)
            if not least <= value < 2**31:
                raise ValueError(f"{name}: {value}; want {least} or more")

    @property
    def end(self) -> datetime:
        """Of the searches; what follows the last of them is a little later."""
        return self.begin + timedelta(days=self.days)

    @property
    def control(self) -> str:
        """The variant without the effect."""
        return next(iter(self.experiments.experiments[self.experiment_id].variants))

    @property
    def bots(self) -> int:
        """Numbered after the users."""
        return round(self.dirt.bots * self.users)

    def unit_id(self, shopper: int) -> str:
        """What a shopper's requests carry."""
        return f"shopper-{self.seed}-{shopper}"

    def rng(self, *stage: int) -> np.random.Generator:
        """Luck of one stage of the simulation."""
        return np.random.default_rng((self.seed, *stage))


@dataclass(frozen=True, eq=False)
class People:
    """What is each one's own, bots included."""

    patience: Floats
    price_level: Floats
    """1 on average."""

    @classmethod
    def of(cls, simulation: Simulation) -> People:
        """Draw them."""
        rng, habits = simulation.rng(2), simulation.habits
        count, spread = simulation.users + simulation.bots, habits.price_level
        return cls(
            rng.choice(habits.patience, count),
            np.exp(spread * rng.normal(size=count) - spread**2 / 2),
        )


def searches_of(simulation: Simulation, shop: Shop) -> Searches:
    """Who searches what and when, in order of time; what they meet is not known yet."""
    rng, habits, users = simulation.rng(1), simulation.habits, simulation.users
    chance = habits.activity / (habits.activity + habits.searches_a_day * simulation.days)
    counts = np.zeros(users, np.int64)
    # only those are users who come at all
    while len(idle := np.flatnonzero(counts == 0)):
        counts[idle] = rng.negative_binomial(habits.activity, chance, len(idle))
    length_ms = math.ceil(simulation.days * DAY_MS)
    minute = rng.integers(math.ceil(length_ms / 60_000), size=simulation.bots)
    burst_ms = np.repeat(60_000 * minute, _BOT_SEARCHES)
    time_ms = np.concatenate(
        [
            rng.integers(length_ms, size=counts.sum()),
            burst_ms + rng.integers(50_000, size=len(burst_ms)),
        ]
    )
    shopper = np.concatenate(
        [
            np.repeat(np.arange(users, dtype=np.int32), counts),
            np.repeat(users + np.arange(simulation.bots, dtype=np.int32), _BOT_SEARCHES),
        ]
    )
    order = np.argsort(time_ms, kind="stable")
    ends = np.cumsum(shop.popularity)
    query = np.searchsorted(ends, rng.random(len(order)) * ends[-1], side="right")
    return Searches(
        time_ms=milliseconds(simulation.begin) + time_ms[order],
        bits=rng.integers(2**64, size=len(order), dtype=np.uint64),
        shopper=shopper[order],
        query=query.astype(np.int32),
        met=np.full((len(order), 0), NONE, np.int16),
        bucket=np.zeros((len(order), 0), np.int16),
    )


def all_met(simulation: Simulation) -> tuple[Assignment, ...]:
    """Whatever a unit may be in; buckets mean nothing."""
    return tuple(
        Assignment(name, one.layer, one.phase, variant, 0, settings.scorer, is_forced)
        for name, one in simulation.experiments.experiments.items()
        for is_forced in (False, True)
        for variant, settings in one.variants.items()
    )


def assigned(simulation: Simulation, searches: Searches) -> Searches:
    """Searches with what each meets, as a splitter assigns it."""
    met_by_all = all_met(simulation)
    layers = list(dict.fromkeys(one.layer for one in met_by_all))
    numbers = {one[:4] + one[5:]: number for number, one in enumerate(met_by_all)}
    met = np.full((len(searches), len(layers)), NONE, np.int16)
    bucket = np.zeros(met.shape, np.int16)
    instant = simulation.begin
    while instant < simulation.end:
        split = Split.of(simulation.experiments, instant)
        until = min(split.until or simulation.end, simulation.end)
        first, last = np.searchsorted(
            searches.time_ms, [milliseconds(instant), milliseconds(until)]
        ).tolist()
        people, place = np.unique(searches.shopper[first:last], return_inverse=True)
        of_people = np.full((2, len(people), len(layers)), NONE, np.int16)
        for row, person in enumerate(people.tolist()):
            for one in split.assign(simulation.unit_id(person)):
                number = numbers[one[:4] + one[5:]]
                of_people[:, row, layers.index(one.layer)] = number, one.bucket
        met[first:last], bucket[first:last] = of_people[:, place]
        instant = until
    return replace(searches, met=met, bucket=bucket)


def spoiled(simulation: Simulation, searches: Searches) -> tuple[Searches, dict[str, int]]:
    """Searches of which the experiment missed some first ones, and crossed some last ones.

    Returns:
        The searches, and how many shoppers have one of each.
    """
    every, met, rng = all_met(simulation), searches.met.copy(), simulation.rng(4)
    other = np.array([_other(every, number) for number in range(len(every))], np.int16)
    is_in = _is_in(simulation, met)
    rows = np.flatnonzero(is_in.any(axis=1) & (searches.shopper < simulation.users))
    shopper = searches.shopper[rows]
    first, counts = np.unique(shopper, return_index=True, return_counts=True)[1:]
    last = len(rows) - 1 - np.unique(shopper[::-1], return_index=True)[1]
    often = rng.permutation(np.flatnonzero(counts > 1))
    ends = np.cumsum([simulation.dirt.unexposed, simulation.dirt.crossovers])
    missed, crossed, _ = np.split(often, np.round(ends * len(often)).astype(int))
    met[rows[first[missed]]] = NONE
    there = rows[last[crossed]]
    met[there] = np.where(is_in[there], other[met[there]], met[there])
    return replace(searches, met=met), {"unexposed": len(missed), "crossovers": len(crossed)}


def is_treated(simulation: Simulation, searches: Searches) -> NDArray[np.bool_]:
    """Whether a search has the effect. [searches]"""
    return np.asarray(_is_in(simulation, searches.met, but=simulation.control).any(axis=1))


def milliseconds(moment: datetime) -> int:
    """Since 1970."""
    return round(moment.timestamp() * 1_000)


def _is_in(
    simulation: Simulation, met: NDArray[np.int16], but: str | None = None
) -> NDArray[np.bool_]:
    """Where ``met`` is a variant of the experiment that is looked at, and not the one given."""
    ours = [
        number
        for number, one in enumerate(all_met(simulation))
        if one.experiment_id == simulation.experiment_id and one.variant != but
    ]
    return np.isin(met, ours)


def _other(every: tuple[Assignment, ...], number: int) -> int:
    """The next variant of the same experiment, and after the last the first."""
    one = every[number]
    same = [
        n
        for n, other in enumerate(every)
        if (other.experiment_id, other.is_forced) == (one.experiment_id, one.is_forced)
    ]
    return same[(same.index(number) + 1) % len(same)]
