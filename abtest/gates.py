"""What must hold before the numbers of an experiment are believed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Literal

from abtest.result import Definition, Gate, SampleRatio, number
from abtest.rule import Rule
from abtest.sample_ratio import sample_ratio

_EXPECTED = 10
"""Users of a variant below which chi-square says too much: p < 0.001 up to four times as often."""
_LOOKS = 30
"""That chi-square is raised for by Bonferroni's method: a month of days. Looks hang together, so it
is enough for longer experiments too."""


def sample_ratio_of(
    counts: Mapping[str, int],
    weights: Mapping[str, float],
    sequential_pvalue: float | None = None,
) -> SampleRatio:
    """Users of every variant against the configured weights.

    Args:
        counts: Users of each variant.
        weights: As configured; they sum to 1. A variant of weight 0 is not tested.
        sequential_pvalue: Of looking every day.
    """
    tested = [variant for variant, weight in weights.items() if weight > 0]
    total = sum(counts.get(variant, 0) for variant in tested)
    statistic = pvalue = None
    if total and len(tested) > 1:
        found = sample_ratio([counts.get(v, 0) for v in tested], [weights[v] for v in tested])
        statistic, pvalue = number(found.statistic), found.pvalue
    return SampleRatio(
        counts={variant: counts.get(variant, 0) for variant in weights},
        expected={variant: weight * total for variant, weight in weights.items()},
        statistic=statistic,
        pvalue=pvalue,
        sequential_pvalue=sequential_pvalue,
    )


def arm_gates(
    counts: Mapping[str, int], weights: Mapping[str, float], rule: Rule, unit: str
) -> list[Gate]:
    """Every variant has users, and no user has another one."""
    found = []
    strangers = {variant: n for variant, n in counts.items() if variant not in weights}
    if strangers:
        each = ", ".join(f"{variant} ({n:,})" for variant, n in strangers.items())
        message = f"variants that were not configured: {each}; there are {', '.join(weights)}"
        found.append(Gate(name="variants", status="stop", message=message))
    for variant in weights:
        n = counts.get(variant, 0)
        message = f"{variant} has {n:,} users (by {unit}), want {rule.min_users:,} or more"
        if n < 2:
            found.append(Gate(name="arms", status="stop", message=message, value=n))
        elif n < rule.min_users:
            found.append(Gate(name="arms", status="warn", message=message, value=n))
    return found or [
        Gate(name="arms", status="pass", message="every variant has users, and no other has any")
    ]


def sample_ratio_gate(found: SampleRatio, rule: Rule) -> Gate:
    """Users fell to the variants as configured.

    Where one looks every day the sequential p-value allows for that. It is slow where users are
    few, so chi-square, raised for as many looks, is heard beside it.
    """
    if found.pvalue is None:
        return Gate(name="sample_ratio", status="stop", message="no users in any variant")
    each = ", ".join(
        f"{variant} {n:,} of {found.expected[variant]:,.0f} expected"
        for variant, n in found.counts.items()
    )
    is_few = min(users for users in found.expected.values() if users) < _EXPECTED
    pvalue = 1.0 if is_few else found.pvalue
    if found.sequential_pvalue is not None:
        pvalue = min(found.sequential_pvalue, _LOOKS * pvalue)
    status: Literal["pass", "warn", "stop"] = "pass"
    message = f"users are as the weights say ({each}; p = {pvalue:.3g})"
    if pvalue < rule.min_sample_ratio_pvalue:
        status = "stop"
        message = (
            f"users are not as the weights say ({each}; p = {pvalue:.2g}): something loses or "
            "moves them, so arms do not compare"
        )
    elif is_few:
        status = "warn"
        message = (
            f"users are too few to tell whether they are as the weights say ({each}); want "
            f"{_EXPECTED} expected or more of each variant"
        )
    return Gate(
        name="sample_ratio",
        status=status,
        message=message,
        value=pvalue,
        threshold=rule.min_sample_ratio_pvalue,
    )


def crossover_gate(users: Mapping[str, int], rule: Rule) -> Gate:
    """Few users met more than one variant; those who did are left out.

    Args:
        users: Of ``abtest.funnel``.
        rule: The thresholds.
    """
    crossover, exposed = users["crossover"], users["exposed"] - users["forced"]
    share = crossover / exposed if exposed else 0.0
    message = f"{crossover:,} of {exposed:,} users ({share:.2%}) met more than one variant"
    is_fine = share <= rule.max_crossover
    if not is_fine:
        message += f", want at most {rule.max_crossover:.0%}: leaving them out may bias the arms"
    return Gate(
        name="crossover",
        status="pass" if is_fine else "stop",
        message=message,
        value=share,
        threshold=rule.max_crossover,
    )


def days_gate(days: int, rule: Rule) -> Gate:
    """Whole weeks are as good as it gets, one week is the least."""
    is_fine = days >= rule.min_days
    message = f"{days} full {'day' if days == 1 else 'days'} of data"
    if not is_fine:
        message += f", want {rule.min_days} or more"
    return Gate(
        name="days",
        status="pass" if is_fine else "stop",
        message=message,
        value=days,
        threshold=rule.min_days,
    )


def freshness_gate(last_event_at: datetime, until: datetime, rule: Rule) -> Gate:
    """The log reaches as far as it is read: days without events are not days without sales."""
    stale = max(until - last_event_at, timedelta())
    hours = stale / timedelta(hours=1)
    is_fine = hours <= rule.max_stale_hours
    message = f"the last event is of {last_event_at:%Y-%m-%d %H:%M} UTC"
    if not is_fine:
        message += (
            f", {hours:,.0f} hours before {until:%Y-%m-%d %H:%M} UTC up to where the log is read; "
            "ship the log, or look at less of it with --until"
        )
    return Gate(
        name="freshness",
        status="pass" if is_fine else "stop",
        message=message,
        value=hours,
        threshold=rule.max_stale_hours,
    )


def quality_gates(rows: Mapping[str, int], rule: Rule) -> list[Gate]:
    """Little of the log had to be dropped.

    Args:
        rows: Of ``abtest.funnel``.
        rule: The thresholds.
    """
    events = rows["read"]
    dropped = {"duplicates": rows["duplicate"], "late": rows["late"], "of bots": rows["bot"]}
    found = []
    for name, count in dropped.items():
        share = count / events if events else 0.0
        if share > rule.max_dropped:
            message = f"{share:.1%} of the log's events ({count:,}) were dropped: {name}"
            found.append(
                Gate(
                    name="log_quality",
                    status="warn",
                    message=message,
                    value=share,
                    threshold=rule.max_dropped,
                )
            )
    each = ", ".join(f"{count:,} {name}" for name, count in dropped.items())
    return found or [
        Gate(
            name="log_quality",
            status="pass",
            message=f"little of {events:,} events was dropped ({each})",
            threshold=rule.max_dropped,
        )
    ]


def currency_gates(currencies: Mapping[str, int], deciding: Collection[str]) -> list[Gate]:
    """Amounts of one currency can be added.

    Args:
        currencies: Of the users' amounts, each with how many there are.
        deciding: Primary metrics and guardrails in money.
    """
    if not currencies:
        return []
    if len(currencies) == 1:
        return [
            Gate(name="currency", status="pass", message=f"amounts are in {next(iter(currencies))}")
        ]
    each = ", ".join(f"{currency} ({count:,})" for currency, count in currencies.items())
    message = f"amounts are in several currencies, which have no sum: {each}; want one"
    if deciding:
        message += f", or {', '.join(deciding)} cannot be told"
    return [Gate(name="currency", status="stop" if deciding else "warn", message=message)]


def config_gate(version: int, logged: int) -> Gate:
    """The file is the one that ran, or a later one.

    Args:
        version: Of the experiment file.
        logged: Highest among the exposures.
    """
    is_fine = logged <= version
    message = f"the experiment file is of version {version}, the log's newest exposure of {logged}"
    if not is_fine:
        message += "; want the file that ran"
    return Gate(
        name="config",
        status="pass" if is_fine else "stop",
        message=message,
        value=logged,
        threshold=version,
    )


def metric_gates(
    refused: Mapping[str, str], definitions: Mapping[str, Definition], constant: Collection[str]
) -> list[Gate]:
    """Metrics that could not be computed, and why; those of one reason together.

    One that nothing depends on stops nothing, and neither does a guardrail that is the same for
    all users of all variants.
    """
    alike: dict[tuple[Literal["warn", "stop"], str], list[str]] = {}
    for metric, reason in refused.items():
        role = definitions[metric].role
        is_harmless = role == "other" or (role == "guardrail" and metric in constant)
        alike.setdefault(("warn" if is_harmless else "stop", reason), []).append(repr(metric))
    return [
        Gate(name="metric", status=status, message=f"no numbers of {', '.join(metrics)}: {reason}")
        for (status, reason), metrics in alike.items()
    ]


def few_units(
    effective_units: Mapping[str, float], definitions: Mapping[str, Definition], rule: Rule
) -> dict[str, float]:
    """Metrics that decide, but on too few effective units to believe that they got worse.

    Args:
        effective_units: Of ``abtest.effects.effects``.
        definitions: Of the metrics.
        rule: The thresholds.
    """
    return {
        metric: units
        for metric, units in effective_units.items()
        if definitions[metric].role != "other" and units < rule.min_effective_units
    }


def effective_units_gates(few: Mapping[str, float], rule: Rule) -> list[Gate]:
    """What decides is spread over enough users.

    Args:
        few: Of ``few_units``.
        rule: The thresholds.
    """
    least = rule.min_effective_units
    found = [
        Gate(
            name="effective_units",
            status="warn",
            message=f"{metric} is that of few users: as of {units:,.0f} alike in one variant, want "
            f"{least:g} or more; until then its harm stops nothing",
            value=units,
            threshold=least,
        )
        for metric, units in few.items()
    ]
    message = "no metric that decides is that of few users"
    return found or [Gate(name="effective_units", status="pass", message=message, threshold=least)]
