"""What passed through a splitter since it started, for its page and for Prometheus."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from abtest.assignment import Assignment
from abtest.sample_ratio import sample_ratio

_MAX_KEPT = 100_000
"""Units of an experiment that are remembered; the share of an arm among them is known to 0.3 %."""
_HASHES = 2**64
_RECENT = 2_000
"""Requests that latencies are of."""
_SECONDS = 60


class Arm(NamedTuple):
    """A variant in a phase of an experiment."""

    experiment_id: str
    phase: int
    variant: str


class Answered(NamedTuple):
    """How a request was answered."""

    assignments: Sequence[Assignment]
    scorer: str
    """Who answered."""
    fallback: str
    """Why the assigned scorer did not; empty: it did."""
    unassigned: str
    """Why the request had no part in experiments; empty: it could have."""
    seconds: float


class Units:
    """Distinct units by variant, from a sample that is the same for all variants.

    A unit is kept if its hash is below a threshold, which is halved whenever too many are kept: so
    each unit ever seen is kept with the same probability, and none is counted twice.

    Source: Wegman's adaptive sampling, Flajolet, Computing 43 (1990).
    """

    def __init__(self, max_kept: int = _MAX_KEPT) -> None:
        self._max_kept = max_kept
        self._threshold = _HASHES
        self._kept: dict[int, str] = {}
        self.sampled: Counter[str] = Counter()
        """Units kept, by variant: what a test of the shares is of."""

    def add(self, unit_hash: int, variant: str) -> None:
        """Count a unit; ``unit_hash`` is uniform over 64 bits."""
        if unit_hash >= self._threshold or unit_hash in self._kept:
            return
        self._kept[unit_hash] = variant
        # kept beside them: a page that is open asks every second, and requests wait meanwhile
        self.sampled[variant] += 1
        while len(self._kept) > self._max_kept:
            self._threshold //= 2
            self._kept = {h: v for h, v in self._kept.items() if h < self._threshold}
            self.sampled = Counter(self._kept.values())

    @property
    def scale(self) -> float:
        """Units seen per unit kept."""
        return _HASHES / self._threshold


def ratio_pvalue(counts: Mapping[str, int], weights: Mapping[str, float]) -> float | None:
    """p-value of the sample ratio; None where there is nothing to test.

    Args:
        counts: Units by variant.
        weights: Of all variants; those of weight 0 have no part in the test.

    >>> round(ratio_pvalue({"control": 5100, "treatment": 4900}, {"control": 1, "treatment": 1}), 4)
    0.0455
    """
    tested = {variant: weight for variant, weight in weights.items() if weight > 0}
    observed = [counts.get(variant, 0) for variant in tested]
    if not any(observed) or len(tested) < 2:
        return None
    total = sum(tested.values())
    return sample_ratio(observed, [weight / total for weight in tested.values()]).pvalue


@dataclass
class Traffic:
    """Counts since the start. Written on the event loop alone."""

    started: float = field(default_factory=time.time)
    answered: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Requests by who answered and why not the assigned scorer."""
    unassigned: Counter[str] = field(default_factory=Counter)
    """Requests without a part in experiments, by reason."""
    arms: Counter[tuple[Arm, bool]] = field(default_factory=Counter)
    """Requests by arm and whether it was a fallback; those of forced units left out."""
    forced: int = 0
    """Requests of forced units."""
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Calls of a scorer that failed, by scorer and reason."""
    wrong: Counter[int] = field(default_factory=Counter)
    """Requests that were wrong themselves, by status."""
    shadows: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Copies by scorer and outcome: ok, dropped, or a reason of failure."""
    units: dict[tuple[str, int], Units] = field(default_factory=dict)
    """Of an experiment's phase."""
    latencies: dict[str, deque[float]] = field(default_factory=dict)
    """Of recent requests by who answered, in seconds."""
    seconds: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_SECONDS))
    """Second and its requests; seconds without any are left out."""

    def count(self, request: Answered, unit_hash: int) -> None:
        """Count a request that was answered; the hash is of its unit, 0 where it has none."""
        self.answered[request.scorer, request.fallback] += 1
        if request.unassigned:
            self.unassigned[request.unassigned] += 1
        for assignment in request.assignments:
            if assignment.is_forced:
                self.forced += 1
                continue
            name, phase = assignment.experiment_id, assignment.phase
            arm = Arm(name, phase, assignment.variant)
            self.arms[arm, bool(request.fallback)] += 1
            units = self.units.get((name, phase))
            if units is None:
                units = self.units[name, phase] = Units()
            units.add(unit_hash, assignment.variant)
        recent = self.latencies.get(request.scorer)
        if recent is None:
            recent = self.latencies[request.scorer] = deque(maxlen=_RECENT)
        recent.append(request.seconds)
        now = int(time.time())
        if self.seconds and self.seconds[-1][0] == now:
            self.seconds[-1] = now, self.seconds[-1][1] + 1
        else:
            self.seconds.append((now, 1))

    def per_second(self) -> list[int]:
        """Requests in each of the last whole seconds, oldest first."""
        now, counts = int(time.time()), dict(self.seconds)
        return [counts.get(second, 0) for second in range(now - _SECONDS, now)]


def quantile_ms(seconds: Iterable[float], per_cent: int) -> float | None:
    """A quantile in milliseconds, the value of a request that was; None of none.

    >>> quantile_ms([0.004, 0.001, 0.002, 0.003], 50)
    2.0
    """
    ordered = sorted(seconds)
    if not ordered:
        return None
    return round(1_000 * ordered[-(-len(ordered) * per_cent // 100) - 1], 3)
