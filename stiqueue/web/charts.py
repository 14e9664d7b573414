"""Lines over time, as SVG. Colours come from the style sheet; a chart carries its numbers as text as well."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from stiqueue.web.units import duration, number, rate

WIDTH, HEIGHT = 640, 180
LEFT, RIGHT, TOP, BOTTOM = 8, 56, 8, 22
SPARK_WIDTH, SPARK_HEIGHT = 88, 20


class Line(NamedTuple):
    """One line of a chart."""

    name: str
    kind: str
    """The class of the line in the style sheet."""
    values: Sequence[float]


def sparkline(lines: Sequence[Line], what: str) -> Markup:
    """Return small `lines` without axes that share a scale; `what` tells those who cannot see them."""
    most = max((max(line.values, default=0.0) for line in lines), default=0.0)
    drawn = Markup("").join(
        Markup('<polyline class="{}" points="{}"/>').format(line.kind, _spark(line.values, most)) for line in lines
    )
    return Markup(
        '<svg class="spark" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'preserveAspectRatio="none" role="img" aria-label="{label}">{drawn}</svg>'
    ).format(width=SPARK_WIDTH, height=SPARK_HEIGHT, label=f"{what}: at most {rate(most) or 0} a second", drawn=drawn)


def _spark(values: Sequence[float], most: float) -> str:
    floor = SPARK_HEIGHT - 1.5
    if len(values) < 2 or most <= 0:
        return ""
    step = SPARK_WIDTH / (len(values) - 1)
    return _points((i * step, floor - value / most * (floor - 1.5)) for i, value in enumerate(values))


def chart(title: str, lines: Sequence[Line], times: Sequence[float], unit: str = "") -> Markup:
    """Return a chart of `lines` that share their times, with a legend of the last values.

    A line that is shorter than `times` began later.
    """
    top = _ceiling(max((max(line.values, default=0.0) for line in lines), default=0.0))
    span = times[-1] - times[0] if len(times) > 1 else 0.0
    drawn = Markup("").join(_drawn(line, times, top, span) for line in lines)
    now = [f"{line.name} {_written(line.values[-1] if line.values else 0.0, unit)}{unit}" for line in lines]
    legend = Markup("").join(
        Markup('<li class="{}"><i></i>{} <b>{}</b></li>').format(
            line.kind, line.name, _written(line.values[-1] if line.values else 0.0, unit) + unit
        )
        for line in lines
    )
    grid = Markup("").join(
        Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text x="{}" y="{}">{}</text>').format(
            LEFT, WIDTH - RIGHT, _y(value, top), _y(value, top), WIDTH - RIGHT + 6, _y(value, top) + 4, _axis(value)
        )
        for value in ((0, top / 2, top) if top >= 2 or unit else (0, top))
    )  # fmt: skip
    ago = f"{duration(span)} ago" if span else "no sample yet"
    return Markup(
        '<figure class="chart"><figcaption>{title}</figcaption>'
        '<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{grid}{drawn}'
        '<text x="{left}" y="{foot}">{ago}</text><text class="end" x="{right}" y="{foot}">now</text></svg>'
        "<ul>{legend}</ul></figure>"
    ).format(
        title=title,
        width=WIDTH,
        height=HEIGHT,
        label=f"{title}, now: {', '.join(now)}",
        grid=grid,
        drawn=drawn,
        left=LEFT,
        right=WIDTH - RIGHT,
        foot=HEIGHT - 6,
        ago=ago,
        legend=legend,
    )


def _drawn(line: Line, times: Sequence[float], top: float, span: float) -> Markup:
    values = line.values[-len(times) :] if times else []
    if not span or not values:
        return Markup("")
    began = times[0]
    places = [
        (LEFT + (at - began) / span * (WIDTH - LEFT - RIGHT), _y(value, top))
        for at, value in zip(times[-len(values) :], values, strict=True)
    ]
    return Markup('<polyline class="{}" points="{}"/>').format(line.kind, _points(places))


def _points(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _y(value: float, top: float) -> float:
    return round(HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM), 1)


def _ceiling(most: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, 50, ..."""
    if most <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(most))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= most)


def _axis(value: float) -> str:
    """Return a number that fits beside the chart."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):g}{unit}"
    return f"{value:g}"


def _written(value: float, unit: str) -> str:
    return (rate(value) or "0") if unit else number(value)
