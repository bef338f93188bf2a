"""Results, plans and simulations in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from abtest.planning import Plan
    from abtest.result import Definition, Effect, Number, Result
    from abtest.simulate import Rate

_LIGHTS = {"pass": "fine", "warn": "look", "stop": "STOP"}


def result_text(result: Result) -> str:
    """Verdict, gates, a line a metric and treatment, segments."""
    subject = result.subject
    parts = [f"{subject.name}: control {subject.control}, {1 - result.alpha:.0%} intervals"]
    if result.verdict is not None:
        parts.append(f"{result.verdict.decision.upper()}: {result.verdict.sentence}")
    parts.append("\n".join(f"{_LIGHTS[gate.status]}  {gate.message}" for gate in result.gates))
    rows = [
        (metric, variant, *_cells(effect))
        for metric, by_variant in result.metrics.items()
        for variant, effect in by_variant.items()
    ]
    if rows:
        parts.append(_table(("metric", "variant", *_HEAD), rows))
    parts.append("\n".join(_told(m, one) for m, one in result.definitions.items()))
    segments = [
        (f"{part.segment}={part.value}", part.metric, part.variant, *_cells(part.effect))
        for part in result.segments
    ]
    if segments:
        parts.append(_table(("segment", "metric", "variant", *_HEAD), segments))
    return "\n\n".join(parts)


def _told(metric: str, definition: Definition) -> str:
    unit = f" ({definition.unit})" if definition.unit else ""
    return f"{metric}{unit}: {definition.text}"


_HEAD = ("control", "treatment", "relative", "interval", "p", "adjusted p", "")


def _cells(effect: Effect) -> tuple[str, ...]:
    word = "better" if effect.is_better else "worse" if effect.is_worse else ""
    if effect.non_inferior is not None and effect.non_inferior.is_non_inferior:
        word = f"{word} within margin".strip()
    return (
        f"{effect.control:.5g}",
        f"{effect.treatment:.5g}",
        _percent(effect.rel_effect),
        f"{_percent(effect.rel_ci_low)} to {_percent(effect.rel_ci_high)}",
        f"{effect.pvalue:.3g}",
        "" if effect.adjusted_pvalue is None else f"{effect.adjusted_pvalue:.3g}",
        word,
    )


def plans_text(plans: Sequence[Plan]) -> str:
    """A line a metric, then what each day can find."""
    rows = [
        (
            plan.metric + (" with CUPED" if plan.is_cuped else ""),
            f"{plan.value:.5g}",
            f"{plan.variance_saved:.1%}" if plan.is_cuped else "",
            _percent(plan.effect),
            "" if plan.users is None else f"{plan.users:,}",
            "" if plan.days is None else f"{plan.days}",
        )
        for plan in plans
    ]
    head = ("metric", "value", "variance saved", "effect", "users in all", "days")
    parts = [_table(head, rows)]
    days = [plan.by_day for plan in plans if plan.by_day]
    if days:
        names = [plan.metric + (" with CUPED" if plan.is_cuped else "") for plan in plans]
        lines = [
            (f"{found[0].day}", f"{found[0].users:,.0f}", *(_percent(one.mde) for one in found))
            for found in zip(*days, strict=True)
        ]
        parts.append(_table(("day", "users", *(f"{name}: finds" for name in names)), lines))
    return "\n\n".join(parts)


def rates_text(rates: Iterable[Rate], alpha: float) -> str:
    """A line a metric."""
    rows = [
        (
            rate.metric + (" with CUPED" if rate.is_cuped else ""),
            f"{rate.effect:+.2%}",
            f"{rate.rejected:.2%}",
            f"{rate.ci_low:.2%} to {rate.ci_high:.2%}",
            f"{rate.mean_effect:+.3%}",
            f"{rate.covered:.2%}",
            f"{rate.variance_saved:.1%}" if rate.is_cuped else "",
        )
        for rate in rates
    ]
    head = ("metric", "true effect", "rejected", "interval", "mean estimate")
    return _table((*head, f"{1 - alpha:.0%} intervals hold", "variance saved"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < 1 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _percent(value: Number) -> str:
    return "?" if value is None else f"{value:+.2%}"
