"""Plots as SVG of our own: words and lines in the page's colours, no script, no library.

They are narrow, so that their text stays readable on a phone; on a wide screen they stand side by
side. Colours come from the page's classes: SVG inside HTML follows its light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from abtest.markup import Markup, tag

WIDTH = 360
_LEFT, _RIGHT, _TOP, _HEIGHT = 50, 8, 10, 150
_ROW = 44
"""Height of a row of a forest."""
_CHARACTER = 7
"""Width of one in the ticks, about."""

Form = Callable[[float], str]
"""Of a number beside the axis."""


class Mark(NamedTuple):
    """A value with its interval. What is unknown is None."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    text: str = ""
    """The value in words."""
    tone: str = "unclear"
    """Class of its colour: good, bad, warn or unclear."""
    limit: float | None = None
    """That the interval must not reach, as a margin."""
    bound: float | None = None
    """How far from 0 the value must be to decide anything."""


class _Axis(NamedTuple):
    """From numbers to pixels."""

    ticks: list[float]
    start: float
    stop: float

    def __call__(self, number: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        return round(self.start + (self.stop - self.start) * (number - low) / (high - low), 1)


def forest(marks: Sequence[Mark], title: str, form: Form) -> Markup:
    """Intervals below one another, on one axis with 0."""
    bottom = _ROW * len(marks) + 4
    axis = _Axis(_ticks([0.0, *_numbers(marks, "value", "low", "high", "limit")]), 14, WIDTH - 14)
    drawn = [
        part
        for tick in axis.ticks
        for part in (
            _line("grid" if tick else "zero", axis(tick), 0, axis(tick), bottom),
            _text("tick", axis(tick), bottom + 17, form(tick), "middle"),
        )
    ]
    for index, mark in enumerate(marks):
        top = _ROW * index
        y = top + 31
        # a halo behind the words, where lines of the grid cross them
        drawn += [
            _text("halo", 0, top + 16, _short(mark.label, mark.text)),
            _text("halo", WIDTH, top + 16, mark.text, "end"),
        ]
        if mark.limit is not None:
            drawn.append(_line("limit", axis(mark.limit), y - 8, axis(mark.limit), y + 8))
        if mark.low is not None and mark.high is not None:
            drawn.append(_line(f"interval {mark.tone}", axis(mark.low), y, axis(mark.high), y))
        if mark.value is not None:
            drawn.append(_dot(mark, axis(mark.value), y, 5))
    return _svg(title, marks, bottom + 24, drawn)


def course(marks: Sequence[Mark], title: str, form: Form) -> Markup:
    """A value over time, between the bounds that it must cross to decide anything."""
    known = [(place, mark.value) for place, mark in enumerate(marks) if mark.value is not None]
    bounds = [(place, mark.bound) for place, mark in enumerate(marks) if mark.bound is not None]
    reach = [sign * bound for _, bound in bounds for sign in (-1, 1)]
    y, x = _axes([*reach, *_numbers(marks, "value")], len(marks))
    drawn = _frame(y, x, [mark.label for mark in marks], form)
    if bounds:
        upper = [f"{x(place)},{y(bound)}" for place, bound in bounds]
        lower = [f"{x(place)},{y(-bound)}" for place, bound in bounds]
        drawn += [
            tag("polygon", class_="chance", points=" ".join([*upper, *reversed(lower)])),
            tag("polyline", class_="bound", points=" ".join(upper)),
            tag("polyline", class_="bound", points=" ".join(lower)),
        ]
    drawn.append(_line("zero", _LEFT, y(0), WIDTH - _RIGHT, y(0)))
    path = " ".join(f"{x(place)},{y(value)}" for place, value in known)
    drawn.append(tag("polyline", class_="course", points=path))
    drawn += [_dot(marks[place], x(place), y(value), 4) for place, value in known]
    return _svg(title, marks, _below(), drawn)


def whiskers(marks: Sequence[Mark], title: str, form: Form) -> Markup:
    """Values beside one another, each with its interval."""
    y, x = _axes(_numbers(marks, "value", "low", "high"), len(marks))
    drawn = _frame(y, x, [mark.label for mark in marks], form)
    drawn.append(_line("zero", _LEFT, y(0), WIDTH - _RIGHT, y(0)))
    for place, mark in enumerate(marks):
        if mark.low is not None and mark.high is not None:
            kind = f"interval {mark.tone}"
            drawn.append(_line(kind, x(place), y(mark.low), x(place), y(mark.high)))
        if mark.value is not None:
            drawn.append(_dot(mark, x(place), y(mark.value), 4))
    return _svg(title, marks, _below(), drawn)


def columns(labels: Sequence[str], counts: Mapping[str, Sequence[int]], title: str) -> Markup:
    """Counts of each variant, a group of columns a label; colours by the variants' order."""
    y, x = _axes([float(max(map(max, counts.values()), default=1))], len(labels))
    group = min((WIDTH - _RIGHT - _LEFT) / max(len(labels), 1) * 0.8, 60)
    width = group / max(len(counts), 1)
    drawn = _frame(y, x, labels, lambda number: f"{number:,.0f}")
    for arm, each in enumerate(counts.values()):
        drawn += [
            tag(
                "rect",
                class_=arm_class(arm),
                x=round(x(place) - group / 2 + arm * width, 1),
                y=y(count),
                width=round(width * 0.9, 1),
                height=round(y(0) - y(count), 1),
            )
            for place, count in enumerate(each)
        ]
    told = [Mark(name, None, text=f"{sum(each):,} in all") for name, each in counts.items()]
    return _svg(title, told, _below(), drawn)


def arm_class(place: int) -> str:
    """Class of a variant's colour; the page has one for each of the most arms there may be."""
    return f"arm{place % 6}"


def _ticks(numbers: Sequence[float]) -> list[float]:
    """Two to six round numbers that enclose all that are given.

    >>> _ticks([-0.012, 0.031])
    [-0.02, 0.0, 0.02, 0.04]
    """
    low, high = min(numbers), max(numbers)
    span = (high - low) or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / 2))
    step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 4)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [float(f"{step * number:.10g}") for number in range(first, last + 1)]


def _axes(numbers: Sequence[float], places: int) -> tuple[_Axis, _Axis]:
    """Up and across; across are places 0, 1, 2 and so on, half a place from the borders."""
    y = _Axis(_ticks([0.0, *numbers]), _TOP + _HEIGHT, _TOP)
    return y, _Axis([-0.5, max(places, 1) - 0.5], _LEFT, WIDTH - _RIGHT)


def _below() -> int:
    return _TOP + _HEIGHT + 24


def _frame(y: _Axis, x: _Axis, labels: Sequence[str], form: Form) -> list[Markup]:
    """Lines of the grid with their numbers, and as many labels as there is room for."""
    drawn = [_line("grid", _LEFT, y(tick), WIDTH - _RIGHT, y(tick)) for tick in y.ticks]
    drawn += [_text("tick", _LEFT - 6, y(tick) + 4, form(tick), "end") for tick in y.ticks]
    room = (max(map(len, labels), default=0) + 1.5) * _CHARACTER
    every = max(1, math.ceil(len(labels) * room / (WIDTH - _LEFT - _RIGHT)))
    drawn += [
        _text("tick", x(place), _TOP + _HEIGHT + 18, label, "middle")
        for place, label in enumerate(labels)
        if place % every == 0
    ]
    return drawn


def _numbers(marks: Iterable[Mark], *names: str) -> list[float]:
    found = (getattr(mark, name) for mark in marks for name in names)
    return [number for number in found if number is not None]


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return tag("line", class_=kind, x1=x1, y1=y1, x2=x2, y2=y2)


def _text(kind: str, x: float, y: float, text: str, anchor: str = "start") -> Markup:
    return tag("text", text, class_=kind, x=x, y=y, text_anchor=anchor)


def _dot(mark: Mark, x: float, y: float, radius: float) -> Markup:
    about = tag("title", f"{mark.label}: {mark.text}")
    return tag("circle", about, class_=mark.tone, cx=x, cy=y, r=radius)


def _short(label: str, text: str) -> str:
    """The label, cut where the text begins."""
    room = max(int(WIDTH / _CHARACTER) - len(text) - 2, 8)
    return label if len(label) <= room else f"{label[: room - 1]}…"


def _svg(title: str, marks: Iterable[Mark], height: int, drawn: Iterable[Markup]) -> Markup:
    """An image with a name and, for those who do not see it, what it shows."""
    told = ". ".join(f"{mark.label}: {mark.text}" for mark in marks if mark.text)
    box = f"0 0 {WIDTH} {height}"
    return tag("svg", *drawn, viewBox=box, role="img", aria_label=f"{title}. {told}")
