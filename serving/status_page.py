"""What a splitter shows: JSON for its page, text for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from msgspec import Struct
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from abtest.assignment import range_at
from serving import metrics
from serving.collector import Collector
from serving.event_log import EventLog, LogStats
from serving.running import InForce, Running
from serving.traffic import Arm, Traffic, Units, quantile_ms, ratio_pvalue

SUSPICIOUS = 0.001
"""p-value below which shares of units are no accident."""

_BREAKER_STATES = ("closed", "half-open", "open")
_OF_REQUESTS = (
    "querylift_requests_total",
    "querylift_errors_total",
    "querylift_request_seconds_bucket",
    "querylift_request_seconds_count",
    "querylift_request_seconds_sum",
    "querylift_requests_in_flight",
)
"""Of ``serving.metrics``: what a splitter has in common with a scorer."""


class ArmStatus(Struct, frozen=True):
    """A variant."""

    variant: str
    scorer: str
    weight: float
    requests: int
    fallbacks: int
    units: int
    """Distinct, estimated from those kept."""


class ExperimentStatus(Struct, frozen=True):
    """An experiment."""

    experiment_id: str
    layer: str
    phase: int
    buckets: tuple[int, int] | None
    """None: it does not run now."""
    why: str
    """It does not run: killed, not begun or over."""
    arms: list[ArmStatus]
    units_kept: int
    """That the test is of."""
    pvalue: float | None
    """Of the sample ratio; None: nothing to test yet."""
    is_suspicious: bool


class ScorerStatus(Struct, frozen=True):
    """A scorer; ``given-order`` is nobody."""

    scorer: str
    url: str
    is_champion: bool
    breaker: str
    answered: int
    failures: dict[str, int]
    p50_ms: float | None
    p99_ms: float | None


class Status(Struct, frozen=True):
    """All there is to see."""

    up_s: float
    config_version: int
    config_refused: str | None
    champion: str
    requests: int
    fallbacks: int
    per_second: list[int]
    unassigned: dict[str, int]
    forced: int
    wrong: dict[str, int]
    scorers: list[ScorerStatus]
    experiments: list[ExperimentStatus]
    shadows: dict[str, dict[str, int]]
    events_accepted: int
    events_refused: int
    log: LogStats


def status(running: Running, traffic: Traffic, log: EventLog, collector: Collector) -> Status:
    """The state of things; reads nothing but counters and the log's directory."""
    in_force = running.now
    experiments = in_force.experiments
    shadows: dict[str, dict[str, int]] = {}
    for (scorer, outcome), count in sorted(traffic.shadows.items()):
        shadows.setdefault(scorer, {})[outcome] = count
    return Status(
        up_s=round(time.time() - traffic.started, 1),
        config_version=experiments.version,
        config_refused=running.refused,
        champion=experiments.champion,
        requests=traffic.answered.total(),
        fallbacks=sum(n for (_, fallback), n in traffic.answered.items() if fallback),
        per_second=traffic.per_second(),
        unassigned=dict(sorted(traffic.unassigned.items())),
        forced=traffic.forced,
        wrong={str(code): n for code, n in sorted(traffic.wrong.items())},
        scorers=_scorers(in_force, traffic),
        experiments=[_experiment(name, in_force, traffic) for name in experiments.experiments],
        shadows=shadows,
        events_accepted=collector.accepted,
        events_refused=collector.refused,
        log=log.stats(),
    )


def _scorers(in_force: InForce, traffic: Traffic) -> list[ScorerStatus]:
    # one that has left the file may still have answered
    names = dict.fromkeys((*in_force.upstreams, *(name for name, _ in traffic.answered)))
    return [_scorer(name, in_force, traffic) for name in names]


def _scorer(name: str, in_force: InForce, traffic: Traffic) -> ScorerStatus:
    upstream = in_force.upstreams.get(name)
    recent = traffic.latencies.get(name, ())
    return ScorerStatus(
        scorer=name,
        url=upstream.url if upstream else "",
        is_champion=name == in_force.experiments.champion,
        breaker=upstream.breaker.state if upstream and upstream.breaker else "",
        answered=sum(n for (scorer, _), n in traffic.answered.items() if scorer == name),
        failures={
            failure: n for (scorer, failure), n in traffic.failures.items() if scorer == name
        },
        p50_ms=quantile_ms(recent, 50),
        p99_ms=quantile_ms(recent, 99),
    )


def _experiment(name: str, in_force: InForce, traffic: Traffic) -> ExperimentStatus:
    experiment, now = in_force.experiments.experiments[name], datetime.now(UTC)
    buckets = range_at(experiment, now)
    why = ""
    if buckets is None:
        why = "killed" if experiment.killed else "over" if now >= experiment.end else "not begun"
    units = traffic.units.get((name, experiment.phase)) or Units()
    weights = {variant: arm.weight for variant, arm in experiment.variants.items()}
    sampled = units.sampled
    pvalue = ratio_pvalue(sampled, weights)
    arms = []
    for variant, arm in experiment.variants.items():
        key = Arm(name, experiment.phase, variant)
        fallbacks = traffic.arms[key, True]
        arms.append(
            ArmStatus(
                variant,
                arm.scorer,
                arm.weight,
                requests=traffic.arms[key, False] + fallbacks,
                fallbacks=fallbacks,
                units=round(sampled[variant] * units.scale),
            )
        )
    return ExperimentStatus(
        name,
        experiment.layer,
        experiment.phase,
        buckets,
        why,
        arms,
        units_kept=sampled.total(),
        pvalue=pvalue,
        is_suspicious=pvalue is not None and pvalue < SUSPICIOUS,
    )


class _Counters:
    """The same counters for Prometheus."""

    def __init__(self, running: Running, traffic: Traffic) -> None:
        self._running = running
        self._traffic = traffic

    def collect(self) -> Iterator[Metric]:
        """As ``prometheus_client`` asks for it."""
        traffic, in_force = self._traffic, self._running.now
        answered = CounterMetricFamily(
            "querylift_splitter_answered",
            "Requests answered, by who did and why not the assigned scorer",
            labels=["scorer", "fallback"],
        )
        for (scorer, fallback), count in traffic.answered.items():
            answered.add_metric([scorer, fallback], count)
        yield answered
        arms = CounterMetricFamily(
            "querylift_splitter_arm_requests",
            "Requests of an experiment's units",
            labels=["experiment", "phase", "variant", "is_fallback"],
        )
        for (arm, is_fallback), count in traffic.arms.items():
            labels = [arm.experiment_id, str(arm.phase), arm.variant, str(is_fallback).lower()]
            arms.add_metric(labels, count)
        yield arms
        for name, help_text, label, counts in (
            ("unassigned", "Requests without a part in experiments", "reason", traffic.unassigned),
            ("wrong", "Requests that were wrong themselves", "status", traffic.wrong),
        ):
            family = CounterMetricFamily(f"querylift_splitter_{name}", help_text, labels=[label])
            for value, count in counts.items():
                family.add_metric([str(value)], count)
            yield family
        for name, help_text, label, pairs in (
            ("scorer_failures", "Calls of a scorer that failed", "reason", traffic.failures),
            ("shadows", "Copies for comparison", "outcome", traffic.shadows),
        ):
            family = CounterMetricFamily(
                f"querylift_splitter_{name}", help_text, labels=["scorer", label]
            )
            for labels_of, count in pairs.items():
                family.add_metric(list(labels_of), count)
            yield family
        breakers = GaugeMetricFamily(
            "querylift_splitter_breaker",
            "1 for the state that a scorer's circuit breaker is in",
            labels=["scorer", "state"],
        )
        for scorer, upstream in in_force.upstreams.items():
            for state in _BREAKER_STATES:
                is_in = upstream.breaker is not None and upstream.breaker.state == state
                breakers.add_metric([scorer, state], is_in)
        yield breakers
        ratios = GaugeMetricFamily(
            "querylift_splitter_sample_ratio_pvalue",
            "Of units by variant against the configured weights",
            labels=["experiment"],
        )
        for name in in_force.experiments.experiments:
            pvalue = _experiment(name, in_force, traffic).pvalue
            if pvalue is not None:
                ratios.add_metric([name], pvalue)
        yield ratios
        yield GaugeMetricFamily(
            "querylift_splitter_config_version",
            "Of the experiment file in force",
            value=in_force.experiments.version,
        )
        yield GaugeMetricFamily(
            "querylift_splitter_config_refused",
            "1 while the experiment file as it is now is refused",
            value=self._running.refused is not None,
        )


class _LogCounters:
    """The event log and its collector for Prometheus."""

    def __init__(self, log: EventLog, collector: Collector) -> None:
        self._log = log
        self._collector = collector

    def collect(self) -> Iterator[Metric]:
        """As ``prometheus_client`` asks for it."""
        log, events = self._log.stats(), self._collector
        for name, help_text, count in (
            ("log_written", "Records appended", log.written),
            ("log_refused", "Records that the log did not take", log.refused),
            ("events_accepted", "Events of browsers that were kept", events.accepted),
            ("events_refused", "Events of browsers that were wrong", events.refused),
        ):
            yield CounterMetricFamily(f"querylift_{name}", help_text, value=count)
        yield GaugeMetricFamily("querylift_log_segments", "Files to ship", value=log.segments)
        yield GaugeMetricFamily(
            "querylift_log_oldest_unsynced_seconds",
            "Age of what waits longest for its sync",
            value=log.oldest_unsynced_ms / 1_000,
        )


class Exposition:
    """All metrics of one splitter."""

    def __init__(
        self, running: Running, traffic: Traffic, log: EventLog, collector: Collector
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Counters(running, traffic))
        self._registry.register(_LogCounters(log, collector))

    def text(self) -> bytes:
        """In Prometheus' text format."""
        shared = metrics.REGISTRY.restricted_registry(_OF_REQUESTS)
        return generate_latest(shared) + generate_latest(self._registry)
