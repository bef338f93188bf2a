"""The analysis of an experiment from its file and the store of its events."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from abtest import gates, over_time, schedule
from abtest.analysis import versions
from abtest.daily_state import update
from abtest.decision import decide
from abtest.effects import Arms, effects, segments
from abtest.events import Bots, Study, Windows, open_duckdb
from abtest.experiment import Experiment, Experiments
from abtest.experiment_log import ExperimentLog, is_money
from abtest.funnel import Funnel
from abtest.result import Drop, Provenance, Result, Subject
from abtest.store_files import StoreFiles
from abtest.user_file import sha256_of

_STEPS = {
    "duplicate": "had the id of an event received earlier",
    "without_client": "of nobody: no client id",
    "bot": "of clients with more events than a shopper makes",
    "late": "received too long after the end",
    "outside": "before the start or after the end",
    "not_exposed": "of users who were never exposed",
    "forced": "of users who were put into a variant by hand",
    "crossover": "of users who met more than one variant",
    "pre_period": "from before the experiment, for covariates",
    "before_exposure": "before the user's first exposure",
    "click_without_impression": "clicks without an impression shortly before",
}
_PEOPLE = {
    "bots": "clients that are no shoppers",
    "exposed": "users who were exposed",
    "forced": "of these put into a variant by hand, left out",
    "crossover": "of these exposed to more than one variant, left out",
    "kept": "users in the analysis",
}

Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Request:
    """What is to be analysed, and how."""

    experiments: Experiments
    file: Path
    """That they are from."""
    name: str
    store: str | Path
    """Directory or URL of the Parquet files."""
    until: datetime
    """Now, or the moment before which events are looked at."""
    command: str
    """That makes the result again."""
    bots: Bots = field(default_factory=Bots)
    planned_users: int | None = None
    is_fixed: bool = False
    """One look at the end, and no other before."""
    pre_days: int = 0
    """For CUPED; 0: none."""
    state: Path | None = None
    """Where days are kept for the next time."""


def choose(experiments: Experiments, name: str | None) -> str:
    """The experiment of that name, or the only one.

    Raises:
        ValueError: No such experiment, or no name and several.
    """
    there = list(experiments.experiments)
    if name is None and len(there) == 1:
        return there[0]
    if name not in there:
        wanted = "which one?" if name is None else f"no experiment {name!r};"
        raise ValueError(f"{wanted} the file has {', '.join(there) or 'none'}")
    return name


def analyse_log(request: Request, advance: Advance = lambda done, total: None) -> Result:
    """Compare the variants of an experiment, look by look, and say what to do.

    Args:
        request: What, and how.
        advance: Called with days of the log made and days in all.

    Raises:
        ValueError: No full day yet, no exposures, amounts in several currencies or none that can
            be, a metric that is unknown.
        FileNotFoundError: The store has no events of the experiment's time.
    """
    experiment = request.experiments.experiments[request.name]
    until = schedule.last_look(experiment, request.until)
    study = Study(
        request.name,
        experiment.phase,
        Windows(experiment.start, experiment.end, pre_days=request.pre_days),
        request.bots,
    )
    days = schedule.look_days(experiment, until)
    store = StoreFiles(request.store)
    with open_duckdb() as connection, _directory(request.state) as directory:
        folders = update(connection, store, directory, study, advance)
        log = ExperimentLog(connection, store, experiment, study, folders, list(days))
        return _result(request, log, days)


def _result(request: Request, log: ExperimentLog, ends: Mapping[date, datetime]) -> Result:
    experiment = request.experiments.experiments[request.name]
    rule = experiment.decision
    until = ends[log.days[-1]]
    counts = log.counts()
    exposures = over_time.exposure_days(log.rows, log.days, log.weights)
    users_by_day = [sum(day.total.values()) for day in exposures]
    looks, fractions = schedule.planned_looks(
        experiment, ends, users_by_day, rule.min_days, request.planned_users
    )
    sequential = None if request.is_fixed else looks
    is_usable = min(counts.get(variant, 0) for variant in log.weights) >= 2
    arms, refused = log.everybody() if is_usable else (Arms({}), {})
    used = {m: d for m, d in log.definitions.items() if is_usable and m not in refused}
    found = effects(arms, used, rule.alpha, sequential)
    few = gates.few_units(found.effective_units, used, rule)
    # those of sums, which can be computed for any part of the users
    shown = {
        metric: one
        for metric, one in used.items()
        if metric in found.effects and one.role != "other" and one.probability is None
    }
    primaries = {metric: one for metric, one in shown.items() if one.role == "primary"}
    daily = None if request.is_fixed else exposures[-1].sample_ratio_pvalue
    ratio = gates.sample_ratio_of(counts, log.weights, daily)
    models, logged = log.models()
    days = schedule.full_days(experiment, until)
    planned_days = schedule.full_days(experiment, experiment.end)
    passed = [
        *gates.arm_gates(counts, log.weights, rule, request.experiments.unit),
        gates.sample_ratio_gate(ratio, rule),
        gates.crossover_gate(log.funnel.users, rule),
        gates.days_gate(days, rule),
        gates.freshness_gate(log.last_event_at(), until, rule),
        *gates.quality_gates(log.funnel.rows, rule),
        *gates.currency_gates(log.currencies, _in_money(experiment)),
        gates.config_gate(request.experiments.version, logged),
        *gates.effective_units_gates(few, rule),
        *gates.metric_gates({**refused, **found.refused}, log.definitions, found.constant),
    ]
    return Result(
        subject=Subject(
            name=request.name,
            phase=experiment.phase,
            unit=request.experiments.unit,
            control=next(iter(log.weights)),
            weights=log.weights,
            start=experiment.start,
            until=until,
            end=experiment.end,
            days=days,
            planned_days=planned_days,
        ),
        alpha=rule.alpha,
        rule=rule,
        verdict=decide(found.effects, log.definitions, passed, planned_days - days, few),
        gates=tuple(passed),
        sample_ratio=ratio,
        metrics=found.effects,
        definitions=log.definitions,
        segments=segments(log.parts(primaries), primaries, rule.alpha, sequential),
        looks=over_time.looks_over_time(
            log.by_day(shown), shown, rule.alpha, sequential, fractions
        ),
        since_exposure=over_time.effects_since(log.by_days_since(primaries), primaries, rule.alpha),
        exposures=exposures,
        funnel=_drops(log.funnel),
        provenance=Provenance(
            command=request.command,
            made_at=datetime.now(UTC),
            config_version=request.experiments.version,
            config_sha256=sha256_of(request.file),
            data=str(request.store),
            data_sha256=log.sha256(),
            versions=versions(),
            model_versions=models,
        ),
    )


def _in_money(experiment: Experiment) -> list[str]:
    return [name for name in (*experiment.primary, *experiment.guardrails) if is_money(name)]


def _drops(found: Funnel) -> tuple[Drop, ...]:
    rows = [
        Drop(step="read", count=found.rows["read"], unit="events", text="in the log"),
        *(
            Drop(step=step, count=count, unit="events", text=_STEPS.get(step, step))
            for step, count in found.rows.items()
            if step not in ("read", "kept")
        ),
        Drop(step="kept", count=found.rows["kept"], unit="events", text="counted"),
    ]
    people = [
        Drop(step=step, count=count, unit="users", text=_PEOPLE.get(step, step))
        for step, count in found.users.items()
    ]
    return (*rows, *people)


@contextlib.contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)
