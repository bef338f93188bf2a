"""What is drawn of a result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from abtest import plots
from abtest import report_words as words
from abtest.markup import Markup
from abtest.plots import Mark
from abtest.report_parts import figure, key
from abtest.result import Definition, Effect, Look, Result, Role, SinceExposure


def forest(result: Result) -> Iterator[Markup]:
    """Relative effects of the metrics, a plot a role."""
    for role, title in words.ROLES.items():
        marks = [
            _relative_mark(words.row_name(result, metric, variant), effect, definition)
            for metric, definition in result.definitions.items()
            if definition.role == role
            for variant, effect in result.metrics.get(metric, {}).items()
        ]
        if marks:
            note = "Relative effect with its interval"
            note += "; dashed: the margin" * any(mark.limit is not None for mark in marks)
            title = title.partition(":")[0]
            yield figure(title, note, plots.forest(marks, title, words.relative_tick))


def segments_forest(result: Result) -> Iterator[Markup]:
    """Relative effects among some of the users, a plot a metric and treatment."""
    found: dict[str, list[Mark]] = {}
    for it in result.segments:
        name = words.row_name(result, it.metric, it.variant)
        mark = _relative_mark(it.value, it.effect, result.definitions[it.metric])
        found.setdefault(name, []).append(mark)
    for name, marks in found.items():
        plot = plots.forest(marks, f"{name} by segment", words.relative_tick)
        yield figure(name, "Relative effect with its interval, each by itself", plot)


def looks(result: Result, roles: Sequence[Role]) -> Iterator[Markup]:
    """The cumulative effect by day, in the area that chance explains, of metrics in some roles."""
    for (metric, variant), of_one in groupby(result.looks, lambda it: (it.metric, it.variant)):
        definition = result.definitions[metric]
        if definition.role not in roles:
            continue
        scale = words.scale(definition, *_values(result, metric))
        marks = [_look_mark(look, scale, definition) for look in of_one]
        name = words.row_name(result, metric, variant)
        plot = plots.course(marks, f"Effect on {name} so far", scale.tick)
        yield figure(name, _note(scale, definition), plot)


def days(result: Result) -> Iterator[Markup]:
    """The effect by days since a user's first exposure."""
    found = groupby(result.since_exposure, lambda it: (it.metric, it.variant))
    for (metric, variant), of_one in found:
        definition = result.definitions[metric]
        scale = words.scale(definition, *_values(result, metric))
        marks = [_day_mark(it, scale, definition) for it in of_one]
        name = words.row_name(result, metric, variant)
        plot = plots.whiskers(marks, f"Effect on {name} by days since exposure", scale.tick)
        yield figure(name, f"{_note(scale, definition)}, by full days since exposure", plot)


def exposure_plots(result: Result) -> Iterator[Markup]:
    """New users by day, and how far their shares are from the configured ones."""
    if not result.exposures:
        return
    weights = result.subject.weights
    labels = [words.day(it.day) for it in result.exposures]
    counts = {name: [it.new.get(name, 0) for it in result.exposures] for name in weights}
    plot = plots.columns(labels, counts, "New users by day")
    yield figure("New users", "By the day of their first exposure", plot, key(weights))
    for name in words.treatments(result):
        marks = []
        for it in result.exposures:
            users = sum(it.total.values())
            off = it.total.get(name, 0) / users - weights[name] if users else None
            told = "nobody yet" if off is None else words.points(off)
            marks.append(Mark(words.day(it.day), off, text=told))
        title = f"Share of {name} so far"
        note = f"Less the configured {words.share(weights[name])}, in percentage points"
        yield figure(title, note, plots.course(marks, title, words.points_tick))


def _relative_mark(label: str, effect: Effect, definition: Definition) -> Mark:
    margin = effect.non_inferior.margin if effect.non_inferior else None
    harm = -1 if definition.is_higher_better else 1
    return Mark(
        label,
        effect.rel_effect,
        effect.rel_ci_low,
        effect.rel_ci_high,
        words.relative(effect.rel_effect),
        words.judged(effect).tone,
        limit=None if margin is None else harm * margin,
    )


def _look_mark(look: Look, scale: words.Scale, definition: Definition) -> Mark:
    bound = None if look.critical is None else look.critical * look.se
    is_shown = bound is not None and abs(look.effect) >= bound
    return Mark(
        words.day(look.day),
        look.effect,
        text=scale.difference(look.effect),
        tone=_tone(look.effect, definition) if is_shown else "unclear",
        bound=bound,
    )


def _day_mark(it: SinceExposure, scale: words.Scale, definition: Definition) -> Mark:
    is_shown = it.ci_low > 0 or it.ci_high < 0
    return Mark(
        str(it.days_since),
        it.effect,
        it.ci_low,
        it.ci_high,
        scale.difference(it.effect),
        _tone(it.effect, definition) if is_shown else "unclear",
    )


def _tone(effect: float, definition: Definition) -> str:
    return "good" if (effect > 0) == definition.is_higher_better else "bad"


def _values(result: Result, metric: str) -> list[float]:
    effects = result.metrics.get(metric, {}).values()
    return [value for effect in effects for value in (effect.control, effect.treatment)]


def _note(scale: words.Scale, definition: Definition) -> str:
    unit = f" in {scale.difference_unit}" if scale.difference_unit else ""
    return f"Difference{unit}; {words.arrow(definition)}"
