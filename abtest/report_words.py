"""Numbers of a result as a reader is told them: units, percent, percentage points, verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import NamedTuple

from abtest.result import Definition, Effect, Gate, Number, Result
from abtest.rule import Rule

GAP = "\N{NO-BREAK SPACE}"
_MINUS = "\N{MINUS SIGN}"
_UNKNOWN = "–"

DECISIONS = {
    "ship": ("good", "Ship", "Give this treatment to everybody."),
    "extend": ("unclear", "Extend", "Let the experiment run on; it cannot be decided yet."),
    "hold": ("warn", "Hold", "Keep the control until somebody has looked at the reasons."),
    "stop": ("bad", "Stop", "End the experiment: what it shows is harm."),
}
"""Tone, word and what to do."""
GATES = {
    "pass": ("good", "Fine"),
    "warn": ("warn", "Look at it"),
    "stop": ("bad", "Stops the decision"),
}
CHECKS = {
    "arms": "Users of each variant",
    "config": "Experiment file",
    "crossover": "Users of several variants",
    "metric": "Metrics without numbers",
    "variants": "Unknown variants",
}
"""What gates are called whose names say little to a reader."""
ROLES = {
    "primary": "Primary metrics: they decide",
    "guardrail": "Guardrails: they must not get worse by more than their margin",
    "other": "Other metrics: for information",
}
METHODS = {
    "fixed": "one look at the end",
    "group-sequential": "planned looks, all allowed for",
    "confidence-sequence": "any number of looks, all allowed for",
}


THRESHOLDS = {
    "alpha": "Chance of a false alarm, for each family of tests",
    "min_days": "Full days, at least",
    "min_sample_ratio_pvalue": "p of the sample ratio, at least",
    "max_crossover": "Users who met several variants, at most",
    "max_stale_hours": "Hours since the last event, at most",
    "max_dropped": "Events that were dropped, at most, each kind",
    "min_users": "Users in each variant, at least",
    "min_effective_units": "Effective units in each variant, at least",
}
"""By their names in experiment files."""
_DEFAULTS = Rule()
_SHARES = ("alpha", "max_crossover", "max_dropped")


class Word(NamedTuple):
    """A judgment and the class of its colour."""

    tone: str
    text: str


class Scale(NamedTuple):
    """How a metric's values are written."""

    factor: float
    unit: str
    """Of values."""
    difference_unit: str
    """Of differences: those of percentages are percentage points."""

    def value(self, number: float) -> str:
        """A value, with its unit."""
        return _joined(_digits(number * self.factor), self.unit)

    def difference(self, number: float) -> str:
        """A difference, with its sign and unit."""
        return _joined(_digits(number * self.factor, sign="+"), self.difference_unit)

    def tick(self, number: float) -> str:
        """A difference beside an axis, without its unit."""
        return _tick(number * self.factor)


def scale(definition: Definition, *values: float) -> Scale:
    """How values of a metric are written: shares as percentages, all else in its unit.

    A share is a count over a count, and its unit says so. Values of ``EUR per user`` are in EUR; a
    longer unit, as of ``impressions per user``, stands below the metric's name and not behind each
    value.
    """
    unit, per, _ = definition.unit.partition(" per ")
    is_money = unit == "money" or unit.isupper()
    is_share = unit.startswith("share of ") or (per and not is_money)
    if definition.denominator and is_share and all(0 <= value <= 1 for value in values):
        return Scale(100.0, "%", "percentage points")
    short = "ms" if unit == "milliseconds" else unit if len(unit) < 4 else ""
    return Scale(1.0, short, short)


def relative(number: Number) -> str:
    """A relative effect, as +1.25 %; a dash where there is none."""
    if number is None:
        return _UNKNOWN
    return _plus(100 * number, 1 if abs(number) >= 0.1 else 2) + f"{GAP}%"


def relative_tick(number: float) -> str:
    """The same beside an axis, where digits are few."""
    return _tick(100 * number) + f"{GAP}%" * bool(number)


def relative_interval(low: Number, high: Number) -> str:
    """As +0.40 % to +2.10 %."""
    if low is None or high is None:
        return "interval unknown"
    return f"{relative(low)} to {relative(high)}"


def share(number: float) -> str:
    """A share as a percentage, as 95 %."""
    return f"{100 * number:.3g}{GAP}%"


def points(number: float) -> str:
    """A difference of shares, as +0.12 percentage points."""
    return f"{_plus(100 * number, 2)}{GAP}percentage points"


def points_tick(number: float) -> str:
    """The same beside an axis, without the words."""
    return _tick(100 * number)


def pvalue(number: Number) -> str:
    """Never 0: chance is never out of the question."""
    if number is None:
        return _UNKNOWN
    return f"<{GAP}0.0001" if number < 0.0001 else f"{number:.{4 if number < 0.01 else 3}f}"


def day(moment: date) -> str:
    """As 2 Nov."""
    return f"{moment.day} {moment:%b}"


def instant(moment: datetime) -> str:
    """As 2 Nov 2026, 08:00 UTC."""
    return f"{day(moment)} {moment:%Y, %H:%M %Z}".strip()


def arrow(definition: Definition) -> str:
    """Which direction is the better one."""
    return "higher is better" if definition.is_higher_better else "lower is better"


def below_name(definition: Definition) -> str:
    """Unit and better direction."""
    return f"{definition.unit}; {arrow(definition)}" if definition.unit else arrow(definition)


def judged(effect: Effect) -> Word:
    """What an effect comes to, in a word or a few."""
    margin = effect.non_inferior
    if effect.is_worse and margin and margin.is_non_inferior:
        return Word("warn", "worse, within the margin")
    if effect.is_worse:
        return Word("bad", "worse")
    if effect.is_better:
        return Word("good", "better")
    if margin and margin.is_non_inferior:
        return Word("good", "within the margin")
    if margin:
        return Word("warn", "harm not ruled out")
    return Word("unclear", "no difference shown")


def decided(result: Result) -> tuple[str, str, str, str]:
    """Tone, word, what to do and the sentence of a verdict."""
    if result.verdict is None:
        about = "A table says nothing of what decides, so the numbers stand for themselves."
        return "unclear", "No decision", about, "Nobody said which metrics decide."
    return *DECISIONS[result.verdict.decision], result.verdict.sentence


def heading(result: Result) -> list[str]:
    """What was analysed: phase, days, users."""
    subject = result.subject
    said = [f"Phase {subject.phase}"] if subject.phase is not None else []
    if subject.start and subject.until:
        last = subject.until - timedelta(microseconds=1)
        said.append(f"{day(subject.start)} to {day(last)} {last:%Y}")
    if subject.days is not None:
        planned = f" of {subject.planned_days} planned" if subject.planned_days else ""
        said.append(f"{subject.days} full days{planned}")
    users = sum(result.sample_ratio.counts.values())
    return [*said, f"{users:,} users, by {subject.unit}"]


def treatments(result: Result) -> list[str]:
    """All variants but the control."""
    return [name for name in result.subject.weights if name != result.subject.control]


def row_name(result: Result, metric: str, variant: str) -> str:
    """The metric, and the variant where there are several treatments."""
    return metric if len(treatments(result)) < 2 else f"{metric}, {variant}"


def thresholds(rule: Rule) -> Iterator[tuple[str, str]]:
    """What each threshold is for, its value, and the default where that is another."""
    for name, text in THRESHOLDS.items():
        form = share if name in _SHARES else "{:g}".format
        value, usual = getattr(rule, name), getattr(_DEFAULTS, name)
        yield text, form(value) + (f" (default {form(usual)})" if value != usual else "")


def check(gate: Gate) -> str:
    """What a check is of."""
    return CHECKS.get(gate.name) or spaced(gate.name)


def spaced(name: str) -> str:
    """A machine's word as a reader's: sample_ratio is Sample ratio."""
    text = name.replace("_", " ").replace("-", " ")
    return text[:1].upper() + text[1:]


def _joined(number: str, unit: str) -> str:
    return f"{number}{GAP}{unit}" if unit else number


def _digits(number: float, sign: str = "") -> str:
    """Three or four digits that matter, thousands apart, no exponent."""
    size = abs(number)
    places = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 3
    if 0 < size < 0.1:
        places = 2 - math.floor(math.log10(size))
    return _signed(f"{number:{sign},.{places}f}")


def _tick(number: float) -> str:
    """Beside an axis: as short as it can be, without an exponent."""
    form = "+,.0f" if abs(number) >= 100 else "+.3g"
    return _signed(f"{number:{form}}") if number else "0"


def _plus(number: float, places: int) -> str:
    """With its sign, unless it rounds to 0."""
    rounded = round(number, places) + 0.0
    return _signed(f"{rounded:{'+' if rounded else ''}.{places}f}")


def _signed(text: str) -> str:
    return text.replace("-", _MINUS)
