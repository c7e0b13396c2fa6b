"""Charts, as drawings: curves, maps of points, and values with their intervals.

Points say what they are when the pointer rests on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scalefast.report.drawing import Dot, Drawing, Line, Mark, Words

__all__ = [
    "GREY",
    "PALETTE",
    "Bar",
    "Series",
    "drawing_order",
    "interval_chart",
    "line_chart",
    "scatter_chart",
    "ticks",
]

PALETTE = (
    *(
        "#3b6fb6",
        "#d9702b",
        "#3f9457",
        "#c0392f",
        "#7d5bb0",
        "#8a6246",
        "#d067a7",
        "#1f9fae",
        "#a39a1c",
        "#5c6770",
    ),
    *(
        "#8fb5e3",
        "#f2b27d",
        "#92cf9b",
        "#ee9a93",
        "#bfa8dd",
        "#c8a58c",
        "#efb3d6",
        "#8fd3da",
        "#d6cf6b",
        "#a9b3bb",
    ),
)
"""Colours of classes, told apart by most people and on paper; the lighter ten only from the eleventh class
on."""

GREY = "#c4c9ce"
"""Classes that have no colour of their own."""

Place = Callable[[float, float], tuple[float, float]]
"""From data to the coordinates of the drawing."""

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 40
SIDE, MARGIN = 440, 14
"""Of a map."""
WIDE = 860
"""Of the intervals."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One value with its interval."""

    name: str
    """For the legend."""
    value: float
    """Where the dot is."""
    low: float
    """Lower end of the interval; NaN where it is not known."""
    high: float
    """Upper end."""
    color: str
    """CSS colour."""
    title: str
    """Shown when the pointer rests on the dot."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart."""

    name: str
    """For the legend."""
    x: Sequence[float]
    """Ascending."""
    y: Sequence[float]
    """As many; values that are not finite interrupt the line."""
    color: str
    """CSS colour."""


def ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) inside [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def line_chart(
    series: Sequence[Series], *, title: str, x_label: str, y_range: tuple[float, float] | None = None
) -> Drawing:
    """Lines over a common x, with axes, grid and legend.

    Args:
        series: the lines; at least one finite point among them.
        title: for readers who do not see the chart.
        x_label: under the axis.
        y_range: lower and upper end; None for the range of the data.
    """
    points = [(x, y) for line in series for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    x0, x1 = min(x for x, _ in points), max(x for x, _ in points)
    y0, y1 = y_range or _padded([y for _, y in points])
    x1 = x1 if x1 > x0 else x0 + 1

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)

    marks = _grid(ticks(x0, x1), ticks(y0, y1), place, x_label)
    for line in series:
        for part in _runs(line):
            if len(part) == 1:
                x, y = place(*part[0])
                marks.append(Dot(x=x, y=y, radius=2.5, color=line.color))
            else:
                marks.append(Line(points=[place(x, y) for x, y in part], color=line.color))
    legend = {line.name: line.color for line in series}
    return Drawing(width=WIDTH, height=HEIGHT, title=title, marks=marks, legend=legend)


def scatter_chart(
    points: Sequence[tuple[float, float]],
    *,
    colors: Sequence[str],
    names: Sequence[str],
    title: str,
    legend: Mapping[str, str] | None = None,
) -> Drawing:
    """Points at equal scale in both directions, without axes (those of a t-SNE map mean nothing).

    The drawing has one dot for each point, the grey ones first, in the order of the points otherwise.

    Args:
        points: coordinates.
        colors: CSS colour of each.
        names: shown when the pointer rests on a point.
        title: for readers who do not see the chart.
        legend: names with their colours.
    """
    xs, ys = [x for x, _ in points], [y for _, y in points]
    span = max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    middle = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    scale = (SIDE - 2 * MARGIN) / span
    radius = 4.5 if len(points) <= 300 else 3.2 if len(points) <= 1000 else 2.2
    marks = [
        Dot(
            x=SIDE / 2 + (points[index][0] - middle[0]) * scale,
            y=SIDE / 2 - (points[index][1] - middle[1]) * scale,
            radius=radius,
            color=colors[index],
            title=names[index],
        )
        for index in drawing_order(colors)
    ]
    return Drawing(width=SIDE, height=SIDE, title=title, marks=marks, legend=legend or {})


def drawing_order(colors: Sequence[str]) -> list[int]:
    """Which point each dot of `scatter_chart` is: grey ones lie below."""
    return sorted(range(len(colors)), key=lambda index: colors[index] != GREY)


def interval_chart(rows: Mapping[str, Sequence[Bar]], *, title: str, x_label: str) -> Drawing:
    """One row a name, and in it values with their intervals, one above the other.

    Args:
        rows: name of each row, and its bars; at least one bar in all.
        title: for readers who do not see the chart.
        x_label: under the axis.
    """
    bars = [bar for row in rows.values() for bar in row]
    reach = [value for bar in bars for value in (bar.value, bar.low, bar.high) if math.isfinite(value)]
    low, high = _padded(reach)
    step = max(len(row) for row in rows.values()) * 13 + 12
    left, bottom = 14 + 7.4 * max(map(len, rows)), TOP + step * len(rows)

    def across(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDE - left - 40)

    marks: list[Mark] = []
    for value in ticks(low, high, count=7):
        x = across(value)
        marks.append(Line(points=[(x, TOP), (x, bottom)], kind="grid"))
        marks.append(Words(x=x, y=bottom + 17, text=_number(value), anchor="middle"))
    for place, (name, row) in enumerate(rows.items()):
        top = TOP + step * place
        marks.append(Words(x=left - 10, y=top + step / 2 + 4, text=name, kind="label", anchor="end"))
        for index, bar in enumerate(row):
            y = top + step / 2 + 13 * (index - (len(row) - 1) / 2)
            if math.isfinite(bar.low) and math.isfinite(bar.high):
                ends = [(across(bar.low), y), (across(bar.high), y)]
                marks.append(Line(points=ends, color=bar.color, kind="whisker"))
            marks.append(Dot(x=across(bar.value), y=y, radius=4.5, color=bar.color, title=bar.title))
    marks.append(Words(x=(left + WIDE - 40) / 2, y=bottom + 34, text=x_label, kind="axis", anchor="middle"))
    legend = {bar.name: bar.color for bar in bars}
    return Drawing(width=WIDE, height=bottom + 42, title=title, marks=marks, legend=legend)


def _grid(xs: Sequence[float], ys: Sequence[float], place: Place, x_label: str) -> list[Mark]:
    marks: list[Mark] = []
    for y in ys:
        _, b = place(xs[0], y)
        marks.append(Line(points=[(LEFT, b), (WIDTH - RIGHT, b)], kind="grid"))
        marks.append(Words(x=LEFT - 8, y=b + 4, text=_number(y), anchor="end"))
    for x in xs:
        a, _ = place(x, ys[0])
        marks.append(Words(x=a, y=HEIGHT - BOTTOM + 17, text=_number(x), anchor="middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    marks.append(Words(x=middle, y=HEIGHT - 5, text=x_label, kind="axis", anchor="middle"))
    return marks


def _runs(line: Series) -> list[list[tuple[float, float]]]:
    """Stretches of finite points."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(line.x, line.y, strict=True):
        if math.isfinite(y):
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = 0.06 * (high - low) or max(abs(high) * 0.1, 1e-6)
    return low - pad, high + pad


def _number(value: float) -> str:
    """Short, without exponent where that is readable."""
    return f"{value:,.10g}" if 1e-4 <= abs(value) < 1e7 or value == 0 else f"{value:.1e}"
