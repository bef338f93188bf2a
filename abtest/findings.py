"""What is wrong with an experiment file, alone and beside the one that is running."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations
from math import fsum
from typing import TYPE_CHECKING

from abtest.assignment import BUCKETS, bounds_of, instants, range_at, range_reached

if TYPE_CHECKING:
    from abtest.experiment import Experiment, Experiments

# 0.333333 three times is meant to be 1
_TOLERANCE = 1e-5
# more than this is no safeguard any more: threshold of the decision, limit, what it would do
_LARGEST = (
    ("alpha", 0.2, "of experiments without any effect so many would find one"),
    ("min_sample_ratio_pvalue", 0.05, "so many experiments without a fault would be stopped"),
    ("max_crossover", 0.1, "so many users left out may bias what is left"),
    ("max_dropped", 0.5, "most of the log may be missing without a word"),
    ("max_stale_hours", 168, "a week without events would pass for a week without sales"),
)


@dataclass(frozen=True)
class Finding:
    """Something that is wrong."""

    rule: str
    """In one word, for machines; ``docs/experiment-files.md`` lists them."""
    place: str
    """In the file: ``experiments.ei-src-vs-bert.ramp[0]``."""
    message: str
    """What is there and what is wanted."""

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


def findings(experiments: Experiments, running: Experiments | None, at: datetime) -> list[Finding]:
    """All that is wrong with a file at an instant.

    Args:
        experiments: The file that is to run.
        running: The file that runs now; none where nothing does.
        at: When it is to run, with a time zone.
    """
    found = [*faults(experiments), *_unreachable(experiments, at)]
    for name, experiment in experiments.experiments.items():
        place = f"experiments.{name}"
        found += [*_metrics(place, experiment), *_thresholds(f"{place}.decision", experiment)]
    if running is None:
        return found
    return [*found, *moves(experiments, running, at), *_replanned(experiments, running, at)]


def faults(experiments: Experiments) -> list[Finding]:
    """Why some unit's assignment is not well defined: a file with faults is not loaded."""
    found = [*_unknown(experiments), *_salts(experiments)]
    if experiments.holdout is not None:
        found += _order("holdout.range", experiments.holdout.range)
    for name, experiment in experiments.experiments.items():
        found += _variants(f"experiments.{name}.variants", experiment)
        found += _ramp(f"experiments.{name}", experiment)
    return [*found, *_pairs(experiments)]


def moves(experiments: Experiments, running: Experiments, at: datetime) -> list[Finding]:
    """Why a file may not follow the running one: units that have met a variant would move.

    Within a phase no unit may leave an experiment or change variant. A new phase is analysed
    alone, and may draw anew.

    Args:
        experiments: The file that is to run.
        running: The file that runs now.
        at: When the one follows the other, with a time zone.
    """
    found = [*_version(experiments, running)]
    kept = []
    for name, old in running.experiments.items():
        if at < old.start:
            continue
        place = f"experiments.{name}"
        new = experiments.experiments.get(name)
        if new is None:
            if range_at(old, at) is not None:
                found.append(Finding("removed", place, "is running; end it or kill it first"))
        elif new.phase < old.phase:
            message = f"{new.phase}; {old.phase} is running, want it or a higher one"
            found.append(Finding("phase", f"{place}.phase", message))
        elif new.phase == old.phase:
            kept.append(name)
            found += _moved(place, new, old, at)
            found += _redrawn(place, _draw(experiments, new), _draw(running, old))
    if kept:
        message = f"changed while units are in {', '.join(kept)}, which keep their phase"
        if experiments.unit != running.unit:
            found.append(Finding("moves", "unit", message))
        if experiments.holdout != running.holdout:
            found.append(Finding("moves", "holdout", message))
    return found


def _unknown(experiments: Experiments) -> Iterator[Finding]:
    scorers, layers = experiments.scorers, experiments.layers

    def check(place: str, kind: str, name: str, known: Iterable[str]) -> Iterator[Finding]:
        if name not in known:
            there = ", ".join(known) or "none"
            yield Finding("unknown", place, f"no {kind} {name!r}; the file has {there}")

    yield from check("champion", "scorer", experiments.champion, scorers)
    for name, experiment in experiments.experiments.items():
        place = f"experiments.{name}"
        variants = experiment.variants
        yield from check(f"{place}.layer", "layer", experiment.layer, layers)
        for variant, settings in variants.items():
            here = f"{place}.variants.{variant}.scorer"
            yield from check(here, "scorer", settings.scorer, scorers)
        for unit_id, variant in experiment.forced.items():
            yield from check(f"{place}.forced.{unit_id}", "variant", variant, variants)
        if experiment.shadow is not None:
            yield from check(f"{place}.shadow.scorer", "scorer", experiment.shadow.scorer, scorers)


def _salts(experiments: Experiments) -> Iterator[Finding]:
    """Equal salts make draws that depend on one another."""
    holdout = experiments.holdout
    salts = [
        *([] if holdout is None else [("holdout.salt", holdout.salt)]),
        *((f"layers.{name}.salt", layer.salt) for name, layer in experiments.layers.items()),
        *((f"experiments.{name}.salt", one.salt) for name, one in experiments.experiments.items()),
    ]
    users: dict[str, str] = {}
    for place, salt in salts:
        first = users.setdefault(salt, place)
        if first != place:
            message = f"{salt!r} is that of {first} already; want one of its own"
            yield Finding("salt", place, message)


def _order(place: str, buckets: tuple[int, int]) -> Iterator[Finding]:
    if buckets[0] > buckets[1]:
        yield Finding("range", place, f"{list(buckets)} ends before it begins")


def _variants(place: str, experiment: Experiment) -> Iterator[Finding]:
    count = len(experiment.variants)
    if count < 2:
        yield Finding("variants", place, f"{count} given; want a control and another")
    total = fsum(variant.weight for variant in experiment.variants.values())
    if count and abs(total - 1) > _TOLERANCE:
        each = ", ".join(f"{name} {v.weight:g}" for name, v in experiment.variants.items())
        yield Finding("weights", place, f"weights sum to {total:g}, want 1 ({each})")


def _ramp(place: str, experiment: Experiment) -> Iterator[Finding]:
    if experiment.end <= experiment.start:
        message = f"{experiment.end.isoformat()} is not after the start"
        yield Finding("dates", f"{place}.end", message)
    yield from _order(f"{place}.range", experiment.range)
    at, buckets = None, experiment.range
    for index, step in enumerate(experiment.ramp):
        here = f"{place}.ramp[{index}]"
        yield from _order(f"{here}.range", step.range)
        if at is not None and step.at <= at:
            message = f"{step.at.isoformat()} is not after the step before it"
            yield Finding("dates", f"{here}.at", message)
        if not _contains(step.range, buckets):
            message = f"{list(step.range)} leaves out units of {list(buckets)}; want it extended"
            yield Finding("ramp", f"{here}.range", message)
        at, buckets = step.at, step.range


def _pairs(experiments: Experiments) -> Iterator[Finding]:
    """What two experiments may not do at one time."""
    for (first, one), (second, other) in combinations(experiments.experiments.items(), 2):
        together = [
            (at, mine, others)
            for at in instants(one, other)
            if (mine := range_at(one, at)) is not None
            and (others := range_at(other, at)) is not None
        ]
        if not together:
            continue
        place = f"experiments.{second}"
        if one.layer == other.layer:
            overlaps = (t for t in together if max(t[1][0], t[2][0]) < min(t[1][1], t[2][1]))
            for at, mine, others in list(overlaps)[:1]:
                message = (
                    f"{list(others)} overlaps {list(mine)} of {first!r} in layer "
                    f"{one.layer!r} from {at.isoformat()} on"
                )
                yield Finding("overlap", f"{place}.range", message)
            for unit_id in sorted(one.forced.keys() & other.forced.keys()):
                message = f"forced by {first!r} of the same layer already"
                yield Finding("forced", f"{place}.forced.{unit_id}", message)
        elif _chooses(experiments, one) and _chooses(experiments, other):
            message = (
                f"chooses scorers other than the champion, as {first!r} in layer {one.layer!r} "
                "does; want them in one layer"
            )
            yield Finding("layers", f"{place}.layer", message)


def _chooses(experiments: Experiments, experiment: Experiment) -> bool:
    return any(v.scorer != experiments.champion for v in experiment.variants.values())


def _unreachable(experiments: Experiments, at: datetime) -> Iterator[Finding]:
    """Variants that nobody is in from ``at`` on. A kill switch is meant, and no finding."""
    for name, experiment in experiments.experiments.items():
        place = f"experiments.{name}"
        if experiment.killed:
            continue
        if experiment.end <= at:
            message = f"{experiment.end.isoformat()} is over; nobody is in"
            yield Finding("unreachable", f"{place}.end", message)
            continue
        for index, step in enumerate(experiment.ramp):
            if step.at >= experiment.end:
                message = f"{step.at.isoformat()} is not before the end"
                yield Finding("unreachable", f"{place}.ramp[{index}].at", message)
        forced = set(experiment.forced.values())
        for variant, reason in _empty(experiments, experiment):
            if variant not in forced:
                yield Finding("unreachable", f"{place}.variants.{variant}", reason)


def _empty(experiments: Experiments, experiment: Experiment) -> Iterator[tuple[str, str]]:
    """The variants that nobody is drawn into, and why."""
    ranges = [experiment.range, *(s.range for s in experiment.ramp if s.at < experiment.end)]
    holdout = experiments.holdout
    below = 0
    bounds = bounds_of(experiment.variants)
    for (name, variant), bound in zip(experiment.variants.items(), bounds, strict=False):
        if holdout is not None and holdout.range == (0, BUCKETS):
            yield name, "everybody is in the holdout"
        elif all(first >= end for first, end in ranges):
            yield name, "the experiment's range is empty"
        elif bound <= below:
            yield name, f"weight {variant.weight:g} gets none of the {BUCKETS:,} buckets"
        below = bound


def _metrics(place: str, experiment: Experiment) -> Iterator[Finding]:
    """What decides must be there to decide: better now than after four weeks."""
    # statistics take a second to load, and who assigns units wants none
    from abtest.metrics import METRICS

    primary, guardrails = experiment.primary, experiment.guardrails
    for part, names in (("primary", primary), ("guardrails", guardrails)):
        for name in names:
            if name not in METRICS:
                message = f"no metric {name!r}; there are {', '.join(METRICS)}"
                yield Finding("metric", f"{place}.{part}", message)
    for name in dict.fromkeys(primary):
        if name in guardrails:
            message = f"{name!r} is primary already; want it in one place"
            yield Finding("metric", f"{place}.guardrails", message)
        if primary.count(name) > 1:
            yield Finding("metric", f"{place}.primary", f"{name!r} is there twice; want it once")


def _thresholds(place: str, experiment: Experiment) -> Iterator[Finding]:
    """Thresholds by which nothing could be decided, or anything."""
    rule = experiment.decision
    days = (experiment.end - experiment.start).days
    if experiment.start < experiment.end and days < rule.min_days:
        message = f"{rule.min_days}; the experiment has {days} full days, so nothing is decided"
        yield Finding("decision", f"{place}.min_days", message)
    for name, most, why in _LARGEST:
        value = getattr(rule, name)
        if value > most:
            message = f"{value:g}; want at most {most:g}: {why}"
            yield Finding("decision", f"{place}.{name}", message)


def _version(experiments: Experiments, running: Experiments) -> Iterator[Finding]:
    new, old = experiments.version, running.version
    if new < old or (new == old and experiments != running):
        yield Finding("version", "version", f"{new}; {old} is running, want a higher one")


def _moved(place: str, new: Experiment, old: Experiment, at: datetime) -> Iterator[Finding]:
    if new.start > at:
        message = f"{new.start.isoformat()} is to come, and units are in already"
        yield Finding("moves", f"{place}.start", message)
    reached, was = range_reached(new, at), range_reached(old, min(at, old.end))
    if not _contains(reached, was):
        message = f"{list(reached)} leaves out units of {list(was)}, which is running"
        yield Finding("moves", f"{place}.range", message)


def _redrawn(place: str, new: dict[str, str], old: dict[str, str]) -> Iterator[Finding]:
    for key, draw in new.items():
        if draw != old[key]:
            message = f"{draw}; {old[key]} is running, and a change wants a new phase"
            yield Finding("moves", f"{place}.{key}", message)


def _replanned(experiments: Experiments, running: Experiments, at: datetime) -> Iterator[Finding]:
    """What moves nobody, but lets one choose what decides, or decide twice, with data at hand.

    A fortnight of daily looks that is made four weeks after the last of them finds something in
    8 % of experiments without any effect, instead of 5; after the fourth look in 6 %.
    """
    for name, old in running.experiments.items():
        place, new = f"experiments.{name}", experiments.experiments.get(name)
        if new is None or new.phase != old.phase or at < old.start:
            continue
        for field in ("primary", "guardrails", "decision"):
            if getattr(new, field) != getattr(old, field):
                message = "changed while it runs; what decides is chosen before, want a new phase"
                yield Finding("plan", f"{place}.{field}", message)
        first_look = min(old.start + timedelta(days=old.decision.min_days), old.end)
        if new.end > old.end and at >= first_look:
            message = (
                f"{new.end.isoformat()} is after {old.end.isoformat()}, and looks since "
                f"{first_look.isoformat()} have spent alpha by that plan; want a new phase"
            )
            yield Finding("plan", f"{place}.end", message)


def _draw(experiments: Experiments, experiment: Experiment) -> dict[str, str]:
    """What decides a unit's variant, but for the range."""
    layer = experiments.layers.get(experiment.layer)
    return {
        "layer": f"{experiment.layer!r} with salt {layer and layer.salt!r}",
        "salt": repr(experiment.salt),
        "variants": ", ".join(
            f"{name} {variant.weight:g} {variant.scorer}"
            for name, variant in experiment.variants.items()
        ),
    }


def _contains(outer: tuple[int, int], inner: tuple[int, int]) -> bool:
    return inner[0] >= inner[1] or (outer[0] <= inner[0] and inner[1] <= outer[1])
