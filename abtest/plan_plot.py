"""The smallest effect that can be found, by day, as an SVG of our own: it needs no library."""

from __future__ import annotations

import html
from collections.abc import Sequence

from abtest.planning import Plan

_WIDTH, _HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 24, 48
_COLOURS = ("#1b6ac9", "#c2410c", "#15803d", "#7e22ce", "#475569", "#b91c1c")


def plan_svg(plans: Sequence[Plan]) -> str:
    """A curve for each plan: relative effect over days.

    Raises:
        ValueError: No plan has a curve of users by day.
    """
    curves = [
        (plan, [(day.day, day.mde) for day in plan.by_day if day.mde is not None]) for plan in plans
    ]
    curves = [(plan, points) for plan, points in curves if points]
    if not curves:
        raise ValueError("no curve of users by day, so nothing to draw")
    days = max(day for _, points in curves for day, _ in points)
    # the first days could find huge effects only, and would flatten all others
    top = 1.1 * max(points[min(2, len(points) - 1)][1] for _, points in curves)
    ink = 'fill="currentColor" font-family="system-ui, sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        "<title>Smallest relative effect that can be found, by day</title>",
    ]
    for step in range(5):
        share = top * step / 4
        y = _y(share, top)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
            'stroke="currentColor" stroke-opacity="0.2"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" {ink}>{share:.2%}</text>'
        )
    for day in sorted({1, *range(7, days + 1, 7), days}):
        parts.append(
            f'<text x="{_x(day, days):.1f}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle" '
            f"{ink}>{day}</text>"
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 8}" text-anchor="middle" {ink}>days</text>')
    labels: list[float] = []
    for number, (plan, points) in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        drawn = " ".join(
            f"{_x(day, days):.1f},{_y(min(share, top), top):.1f}" for day, share in points
        )
        dash = ' stroke-dasharray="6 4"' if plan.is_cuped else ""
        y = _y(points[-1][1], top)
        while any(abs(y - other) < 14 for other in labels):
            y -= 14
        labels.append(y)
        name = html.escape(plan.metric) + (" with CUPED" if plan.is_cuped else "")
        parts.append(
            f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
            f'<text x="{_WIDTH - _RIGHT + 8}" y="{y + 4:.1f}" fill="{colour}" '
            f'font-family="system-ui, sans-serif" font-size="12">{name}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(day: float, days: int) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (day - 1) / max(days - 1, 1)


def _y(share: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share / top
