"""Charts as inline SVG: text stays text, points say what they are when the pointer rests on them, and
nothing is loaded.

Colours, fonts and line widths come from the page's style sheet (`scalefast/report/style.py`), except the
colours of classes, which are data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["GREY", "PALETTE", "Series", "line_chart", "scatter_chart", "ticks"]

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
) -> str:
    """Lines over a common x, with axes, grid and legend: an `<svg>` element.

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

    body = [_grid(ticks(x0, x1), ticks(y0, y1), place, x_label)]
    for line in series:
        for part in _runs(line):
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in (place(x, y) for x, y in part))
            if len(part) == 1:
                a, b = place(*part[0])
                body.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{line.color}"/>')
            else:
                body.append(f'<polyline class="line" points="{path}" stroke="{line.color}"/>')
    return _svg("".join(body), title=title) + legend({line.name: line.color for line in series})


def scatter_chart(
    points: Sequence[tuple[float, float]], *, colors: Sequence[str], names: Sequence[str], title: str
) -> str:
    """Points at equal scale in both directions, without axes (those of a t-SNE map mean nothing): an `<svg>`.

    Args:
        points: coordinates.
        colors: CSS colour of each.
        names: shown when the pointer rests on a point.
        title: for readers who do not see the chart.
    """
    xs, ys = [x for x, _ in points], [y for _, y in points]
    span = max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    middle = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    side, margin = 440, 14
    scale = (side - 2 * margin) / span
    radius = 4.5 if len(points) <= 300 else 3.2 if len(points) <= 1000 else 2.2
    order = sorted(range(len(points)), key=lambda index: colors[index] != GREY)  # grey ones lie below
    marks = []
    for index in order:
        x = side / 2 + (points[index][0] - middle[0]) * scale
        y = side / 2 - (points[index][1] - middle[1]) * scale
        marks.append(
            f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colors[index]}">'
            f"<title>{escape(names[index])}</title></circle>"
        )
    return _svg("".join(marks), title=title, width=side, height=side)


def legend(colors: Mapping[str, str]) -> str:
    """Names with their colours."""
    entries = "".join(
        f'<li><span class="key" style="background:{color}"></span>{escape(name)}</li>'
        for name, color in colors.items()
    )
    return f'<ul class="legend">{entries}</ul>'


def _svg(body: str, *, title: str, width: int = WIDTH, height: int = HEIGHT) -> str:
    label = escape(title, quote=True)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{body}</svg>'


def _grid(xs: Sequence[float], ys: Sequence[float], place: Place, x_label: str) -> str:
    parts = []
    for y in ys:
        _, b = place(xs[0], y)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{b:.1f}" y2="{b:.1f}"/>')
        parts.append(_text(LEFT - 8, b + 4, _number(y), kind="tick", anchor="end"))
    for x in xs:
        a, _ = place(x, ys[0])
        parts.append(_text(a, HEIGHT - BOTTOM + 17, _number(x), kind="tick", anchor="middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, x_label, kind="axis", anchor="middle"))
    return "".join(parts)


def _text(x: float, y: float, words: str, *, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


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
