"""What to do with a result: ship, extend, hold or stop, and why.

The rule is that of Schultzberg, Ankargren & Frånberg, "Risk-aware product decisions in A/B tests
with multiple metrics", 2024 (arXiv:2402.11609): ship what is superior in one primary metric,
non-inferior in every guardrail and has made nothing worse.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from abtest.result import Decision, Definition, Effect, Gate, Verdict


class _Judged(NamedTuple):
    """One treatment."""

    decision: Decision
    sentence: str
    reasons: tuple[str, ...]


_ORDER: Sequence[Decision] = ("ship", "extend", "hold", "stop")


def decide(
    effects: Mapping[str, Mapping[str, Effect]],
    definitions: Mapping[str, Definition],
    gates: Sequence[Gate],
    days_left: int,
    few: Collection[str] = (),
) -> Verdict:
    """The verdict on all treatments together: the best that any of them deserves.

    A gate that stops decides alone. Too few days are the exception: harm is believed at once,
    since guardrails are watched by a method that allows for it. That method wants enough units.

    Args:
        effects: By metric and treatment.
        definitions: Of the metrics.
        gates: All of them, passed or not.
        days_left: Of the plan.
        few: Metrics of too few effective units: nothing is stopped for their harm.
    """
    stopping = [gate for gate in gates if gate.status == "stop"]
    other = [gate for gate in stopping if gate.name != "days"]
    variants = list(dict.fromkeys(v for by_variant in effects.values() for v in by_variant))
    if other or not variants:
        reasons = tuple(gate.message for gate in other) or ("there is nothing to compare",)
        sentence = f"Decide nothing on these numbers: {reasons[0]}."
        return Verdict(decision="hold", variant=None, sentence=sentence, reasons=reasons)
    judged = {
        variant: _judge(
            variant,
            {m: effects[m][variant] for m in effects},
            definitions,
            days_left,
            stopping,
            few,
        )
        for variant in variants
    }
    best = min(judged, key=lambda variant: _rank(judged[variant], variant, effects, definitions))
    found = judged[best]
    is_common = all(each.decision == found.decision for each in judged.values())
    return Verdict(
        decision=found.decision,
        variant=None if is_common and len(judged) > 1 and found.decision != "ship" else best,
        sentence=found.sentence,
        reasons=tuple(
            reason if len(judged) == 1 else f"{variant}: {reason}"
            for variant, each in sorted(judged.items(), key=lambda item: item[0] != best)
            for reason in each.reasons
        ),
        days_left=days_left if found.decision == "extend" else None,
    )


def _rank(
    judged: _Judged,
    variant: str,
    effects: Mapping[str, Mapping[str, Effect]],
    definitions: Mapping[str, Definition],
) -> tuple[int, float]:
    """Best decision first; among equals the larger gain in the first metric."""
    metric = next(iter(effects))
    effect = effects[metric][variant].effect
    return (
        _ORDER.index(judged.decision),
        -effect if definitions[metric].is_higher_better else effect,
    )


def _judge(
    variant: str,
    effects: Mapping[str, Effect],
    definitions: Mapping[str, Definition],
    days_left: int,
    too_early: Sequence[Gate],
    few: Collection[str],
) -> _Judged:
    roles = {metric: definitions[metric].role for metric in effects}
    won = [m for m, e in effects.items() if roles[m] == "primary" and e.is_better]
    lost = [m for m, e in effects.items() if e.is_worse and not _is_within_margin(e)]
    open_ = [m for m, e in effects.items() if roles[m] == "guardrail" and not _is_within_margin(e)]
    open_ = [m for m in open_ if m not in lost]
    told = {metric: told_effect(metric, effects[metric]) for metric in effects}
    reasons = (
        *(f"{told[m]}: better" for m in won),
        *(f"{told[m]}: worse{' so far, of few users' if m in few else ''}" for m in lost),
        *(f"{told[m]}: not shown to be within its margin" for m in open_),
        *(["no primary metric is shown to be better"] if not won else []),
    )
    gain = " and ".join(told[m] for m in won)
    harm = " and ".join(told[m] for m in lost)
    serious = [m for m in lost if roles[m] != "other" and m not in few]
    doubtful = [m for m in lost if m in few]
    if serious and (not won or too_early):
        return _Judged("stop", f"Stop {variant}: {harm}.", reasons)
    if too_early:
        message = too_early[0].message
        sentence = f"Go on for {_days(days_left)}: {message}."
        return _Judged("extend", sentence, (message, *reasons))
    if won and lost:
        sentence = f"Do not ship {variant} without weighing one against the other: {gain}, {harm}."
        return _Judged("hold", sentence, reasons)
    if won and not open_:
        guarded = any(role == "guardrail" for role in roles.values())
        rest = ", and every guardrail is within its margin" if guarded else ""
        return _Judged("ship", f"Ship {variant}: {gain}{rest}.", reasons)
    if doubtful:
        missing = f"{' and '.join(told[m] for m in doubtful)}, but of too few users to believe it"
    elif won:
        missing = f"{gain}, but {' and '.join(open_)} may be worse than allowed"
    else:
        missing = "no primary metric is shown to be better"
    if days_left > 0:
        return _Judged("extend", f"Go on for {_days(days_left)}: {missing} so far.", reasons)
    return _Judged("hold", f"Keep the control: {missing}.", reasons)


def _is_within_margin(effect: Effect) -> bool:
    return effect.non_inferior is not None and effect.non_inferior.is_non_inferior


def _days(days: int) -> str:
    return f"{days} more {'day' if days == 1 else 'days'}"


def told_effect(metric: str, effect: Effect) -> str:
    """The effect in a few words: ``ctr rose by 2.1 % (1.0 % to 3.2 %)``."""
    verb = "rose" if effect.effect >= 0 else "fell"
    if effect.rel_effect is None or effect.rel_ci_low is None or effect.rel_ci_high is None:
        return (
            f"{metric} {verb} by {abs(effect.effect):.4g} "
            f"({effect.ci_low:+.4g} to {effect.ci_high:+.4g})"
        )
    return (
        f"{metric} {verb} by {abs(effect.rel_effect):.1%} "
        f"({effect.rel_ci_low:+.1%} to {effect.rel_ci_high:+.1%})"
    )
