"""Who is in which experiment, and in which variant: a pure function of file, instant and unit id.

The order of the rules is kill switch, forced variant, holdout, the layer's bucket, the
experiment's range, variant. Changing a line here can move real shoppers:
``tests/fixtures/assignment_cases.json`` holds what must stay.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from mmh3 import mmh3_32_uintdigest

if TYPE_CHECKING:
    from abtest.experiment import Experiment, Experiments, Variant

BUCKETS = 10_000
MAX_UNIT_ID_BYTES = 512


class Assignment(NamedTuple):
    """The variant of one experiment that a unit is in."""

    experiment_id: str
    layer: str
    phase: int
    variant: str
    bucket: int
    """Of the layer, 0 to 9,999."""
    scorer: str
    is_forced: bool
    """By name, for QA: no part of the analysis."""


def check_unit_id(unit_id: str) -> bytes:
    """The UTF-8 bytes of ``unit_id``, which are what is hashed: no case or accents are folded.

    Raises:
        ValueError: It is empty, longer than ``MAX_UNIT_ID_BYTES``, or has a lone surrogate.
    """
    unit = unit_id.encode()
    if not 0 < len(unit) <= MAX_UNIT_ID_BYTES:
        raise ValueError(f"unit id of {len(unit)} bytes; want 1 to {MAX_UNIT_ID_BYTES}")
    return unit


def bounds_of(variants: Mapping[str, Variant]) -> list[int]:
    """First bucket beyond each variant: weights cumulate in the order of the file."""
    bounds = [round(share * BUCKETS) for share in accumulate(v.weight for v in variants.values())]
    # what rounding leaves over is the last one's
    return [*bounds[:-1], BUCKETS]


def range_at(experiment: Experiment, at: datetime) -> tuple[int, int] | None:
    """The buckets of its layer that an experiment has at an instant; none where it does not run."""
    if experiment.killed or not experiment.start <= at < experiment.end:
        return None
    return range_reached(experiment, at)


def range_reached(experiment: Experiment, at: datetime) -> tuple[int, int]:
    """The buckets that the ramp gives at an instant, whether the experiment runs or not."""
    steps = [step.range for step in experiment.ramp if step.at <= at]
    return steps[-1] if steps else experiment.range


def instants(*experiments: Experiment) -> list[datetime]:
    """When one of them starts, ends or takes a step of its ramp, in order."""
    return sorted(
        instant
        for experiment in experiments
        for instant in (experiment.start, experiment.end, *(step.at for step in experiment.ramp))
    )


def scorer_of(assignments: Iterable[Assignment], champion: str) -> str:
    """The scorer that answers: the first that is not the champion; one layer at most has such."""
    return next((a.scorer for a in assignments if a.scorer != champion), champion)


class _Holdout(NamedTuple):
    prefix: bytes
    first: int
    end: int


class _Running(NamedTuple):
    """An experiment at one instant."""

    experiment_id: str
    layer: str
    layer_prefix: bytes
    phase: int
    first: int
    end: int
    prefix: bytes
    bounds: list[int]
    variants: list[tuple[str, str]]
    """Name and scorer."""


@dataclass(frozen=True)
class Split:
    """The experiments of a file as they are at one instant."""

    config_version: int
    until: datetime | None
    """The next instant at which the split differs."""
    _holdout: _Holdout | None
    _running: list[_Running]
    _forced: Mapping[str, tuple[Assignment, ...]]
    """All assignments of the units that a running experiment names."""

    @classmethod
    def of(cls, experiments: Experiments, at: datetime) -> Split:
        """Resolve ramps, start and end, and the kill switch.

        Args:
            experiments: As ``load_experiments`` gives them.
            at: With a time zone.

        Raises:
            ValueError: ``at`` has no time zone.
        """
        if at.tzinfo is None:
            raise ValueError(f"{at.isoformat()}: no time zone; want one, as in 2026-11-05T08:00Z")
        kept = experiments.holdout
        holdout = None if kept is None else _Holdout(_prefix(kept.salt), *kept.range)
        running = [
            _running(name, experiment, experiments.layers[experiment.layer].salt, buckets)
            for name, experiment in experiments.experiments.items()
            if (buckets := range_at(experiment, at)) is not None
        ]
        forced = {
            unit_id: _force(experiments, running, unit_id, _draw(holdout, running, unit_id))
            for one in running
            for unit_id in experiments.experiments[one.experiment_id].forced
        }
        return cls(experiments.version, _until(experiments, at), holdout, running, forced)

    def assign(self, unit_id: str) -> tuple[Assignment, ...]:
        """The experiments that a unit is in, in the order of the file, at most one a layer.

        Raises:
            ValueError: See ``check_unit_id``.
        """
        return self._forced.get(unit_id) or _draw(self._holdout, self._running, unit_id)


def _running(name: str, experiment: Experiment, salt: str, buckets: tuple[int, int]) -> _Running:
    return _Running(
        name,
        experiment.layer,
        _prefix(salt),
        experiment.phase,
        *buckets,
        _prefix(experiment.salt),
        bounds_of(experiment.variants),
        [(variant, settings.scorer) for variant, settings in experiment.variants.items()],
    )


def _draw(
    holdout: _Holdout | None, running: Iterable[_Running], unit_id: str
) -> tuple[Assignment, ...]:
    """The assignments of a unit that nobody forces."""
    unit = check_unit_id(unit_id)
    if holdout is not None and holdout.first <= _bucket(holdout.prefix, unit) < holdout.end:
        return ()
    found = []
    buckets: dict[bytes, int] = {}
    for name, layer, layer_prefix, phase, first, end, prefix, bounds, variants in running:
        bucket = buckets.get(layer_prefix)
        if bucket is None:
            bucket = buckets[layer_prefix] = _bucket(layer_prefix, unit)
        if first <= bucket < end:
            variant, scorer = variants[bisect_right(bounds, _bucket(prefix, unit))]
            found.append(Assignment(name, layer, phase, variant, bucket, scorer, False))
    return tuple(found)


def _force(
    experiments: Experiments,
    running: Iterable[_Running],
    unit_id: str,
    drawn: Iterable[Assignment],
) -> tuple[Assignment, ...]:
    """``drawn``, but for the layers of the experiments that name the unit."""
    by_layer = {assignment.layer: assignment for assignment in drawn}
    for one in running:
        variant = experiments.experiments[one.experiment_id].forced.get(unit_id)
        if variant is not None:
            by_layer[one.layer] = Assignment(
                one.experiment_id,
                one.layer,
                one.phase,
                variant,
                _bucket(one.layer_prefix, unit_id.encode()),
                dict(one.variants)[variant],
                True,
            )
    order = [one.experiment_id for one in running]
    return tuple(sorted(by_layer.values(), key=lambda a: order.index(a.experiment_id)))


def _until(experiments: Experiments, at: datetime) -> datetime | None:
    def ranges(instant: datetime) -> list[tuple[int, int] | None]:
        return [range_at(experiment, instant) for experiment in experiments.experiments.values()]

    now = ranges(at)
    later = (instant for instant in instants(*experiments.experiments.values()) if instant > at)
    return next((instant for instant in later if ranges(instant) != now), None)


def _prefix(salt: str) -> bytes:
    return f"{salt}:".encode()


def _bucket(prefix: bytes, unit: bytes) -> int:
    return mmh3_32_uintdigest(prefix + unit, 0) * BUCKETS >> 32
