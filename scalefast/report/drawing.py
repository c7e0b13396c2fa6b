"""A drawing of lines, dots, boxes and words, which becomes SVG inside the page, an SVG file, or a PNG.

The three show the same marks at the same places. Colours and sizes of a kind of mark stand in `KINDS`; colours of
classes are data and come with their marks.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal

from scalefast.errors import require

__all__ = ["KINDS", "Box", "Dot", "Drawing", "Line", "Words", "drawing_css"]

INK, SOFT, RULE, PANEL = "#1d2530", "#5d6875", "#dde2e8", "#f6f8fa"

KINDS: Mapping[str, Mapping[str, Any]] = {
    "line": {"fill": "none", "stroke-width": 1.8, "stroke-linejoin": "round"},
    "grid": {"stroke": RULE, "stroke-width": 1},
    "whisker": {"stroke-width": 1.6, "stroke-opacity": 0.55},
    "dot": {"stroke": "#fff", "stroke-width": 0.7},
    "cell": {"stroke": "#fff", "stroke-width": 0.6},
    "tick": {"font-size": 11.5, "fill": SOFT},
    "axis": {"font-size": 11.5, "fill": SOFT},
    "label": {"font-size": 12, "fill": INK},
    "count": {"font-size": 10.5, "fill": INK},
    "count-light": {"font-size": 10.5, "fill": "#fff"},
}
"""Kind of mark -> its SVG properties."""

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial, sans-serif'
ROW, KEY = 18, 10
"""Height of a legend's row, and side of its colour, in a file."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Straight pieces through points."""

    points: Sequence[tuple[float, float]]
    """At least two."""
    color: str | None = None
    """CSS colour; None: that of its kind."""
    kind: Literal["line", "grid", "whisker"] = "line"
    """What it is."""


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A filled circle."""

    x: float
    """Centre."""
    y: float
    """Centre, downwards."""
    radius: float
    """In the drawing's units."""
    color: str
    """CSS colour."""
    title: str = ""
    """Shown when the pointer rests on it."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A filled rectangle."""

    x: float
    """Left edge."""
    y: float
    """Upper edge."""
    width: float
    """In the drawing's units."""
    height: float
    """Likewise."""
    color: str
    """CSS colour."""
    title: str = ""
    """Shown when the pointer rests on it."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """One line of text."""

    x: float
    """Where its anchor is."""
    y: float
    """Base line."""
    text: str
    """Plain text."""
    kind: str = "tick"
    """A key of `KINDS`."""
    anchor: Literal["start", "middle", "end"] = "start"
    """Which of its points lies at x."""
    turn: float = 0.0
    """Degrees, clockwise, around (x, y)."""


Mark = Line | Dot | Box | Words


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Marks on a sheet, the first ones lowest."""

    width: float
    """Of the sheet."""
    height: float
    """Of the sheet."""
    title: str
    """For readers who do not see it."""
    marks: Sequence[Mark]
    """What is drawn."""
    legend: Mapping[str, str] = field(default_factory=dict)
    """Names with their colours; in the page it stands under the drawing as a list."""

    def svg(self) -> str:
        """An `<svg>` element for the page, whose style sheet has `drawing_css()`."""
        label = escape(self.title, quote=True)
        body = "".join(map(_svg, self.marks))
        return (
            f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img" aria-label="{label}">{body}</svg>'
        )

    def svg_file(self) -> bytes:
        """A file of its own, with style and legend."""
        keyed = self._with_legend()
        body = "".join(map(_svg, keyed.marks))
        return (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" '
            f'width="{keyed.width:g}" height="{keyed.height:g}" viewBox="0 0 {keyed.width:g} {keyed.height:g}">'
            f"<title>{escape(self.title)}</title><style>text {{ font-family: {FONT}; }}\n{drawing_css()}</style>"
            f'<rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n'
        ).encode()

    def png(self, *, dots_per_unit: float = 3.0) -> bytes:
        """The same as pixels, by matplotlib.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        require("matplotlib", extra="report", needed_for="figures as PNG")
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        keyed = self._with_legend()
        # One inch for 72 units, so that widths and sizes, which matplotlib takes in points, are in our units.
        figure = Figure(figsize=(keyed.width / 72, keyed.height / 72), dpi=72 * dots_per_unit)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, keyed.width), ylim=(keyed.height, 0))
        axes.set_axis_off()
        for order, mark in enumerate(keyed.marks):
            axes.add_artist(_artist(mark, order))
        content = io.BytesIO()
        # Without the version of matplotlib, so that the same drawing is the same file.
        FigureCanvasAgg(figure).print_png(content, metadata={"Software": None, "Title": self.title})
        return content.getvalue()

    def _with_legend(self) -> Drawing:
        """The legend as marks below the drawing, as many names in a row as there is room for."""
        marks, x, y = list(self.marks), 12.0, self.height + 6.0
        for name, color in self.legend.items():
            wide = KEY + 8 + 7.4 * len(name) + 16
            if x > 12 and x + wide > self.width:
                x, y = 12.0, y + ROW
            marks.append(Box(x=x, y=y, width=KEY, height=KEY, color=color))
            marks.append(Words(x=x + KEY + 5, y=y + KEY - 1, text=name, kind="label"))
            x += wide
        height = y + ROW if self.legend else self.height
        return Drawing(width=self.width, height=height, title=self.title, marks=marks)


def drawing_css() -> str:
    """Rules for the classes of all kinds of marks."""
    return "\n".join(
        f".{kind} {{ {' '.join(f'{name}: {_css(name, value)};' for name, value in style.items())} }}"
        for kind, style in KINDS.items()
    )


def _css(name: str, value: str | float) -> str:
    """A style sheet, unlike an attribute, wants the unit of a font size."""
    return f"{value}px" if name == "font-size" else str(value)


def _svg(mark: Mark) -> str:
    match mark:
        case Line():
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in mark.points)
            color = f' stroke="{mark.color}"' if mark.color else ""
            return f'<polyline class="{mark.kind}" points="{points}"{color}/>'
        case Dot():
            return (
                f'<circle class="dot" cx="{mark.x:.1f}" cy="{mark.y:.1f}" r="{mark.radius:g}" '
                f'fill="{mark.color}"{_titled("circle", mark.title)}'
            )
        case Box():
            return (
                f'<rect class="cell" x="{mark.x:.1f}" y="{mark.y:.1f}" width="{mark.width:.1f}" '
                f'height="{mark.height:.1f}" fill="{mark.color}"{_titled("rect", mark.title)}'
            )
        case Words():
            turn = f' transform="rotate({mark.turn:g} {mark.x:.1f} {mark.y:.1f})"' if mark.turn else ""
            return (
                f'<text class="{mark.kind}" x="{mark.x:.1f}" y="{mark.y:.1f}" text-anchor="{mark.anchor}"'
                f"{turn}>{escape(mark.text)}</text>"
            )


def _titled(tag: str, title: str) -> str:
    """The end of an element, with what it says to the pointer."""
    return f"><title>{escape(title)}</title></{tag}>" if title else "/>"


def _artist(mark: Mark, order: int) -> Any:
    """The mark as matplotlib draws it."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Circle, Rectangle
    from matplotlib.text import Text

    match mark:
        case Line():
            style = KINDS[mark.kind]
            xs, ys = zip(*mark.points, strict=True)
            return Line2D(
                xs,
                ys,
                color=mark.color or style.get("stroke"),
                linewidth=style["stroke-width"],
                alpha=style.get("stroke-opacity", 1.0),
                zorder=order,
            )
        case Dot():
            return Circle((mark.x, mark.y), mark.radius, fc=mark.color, ec="#fff", lw=0.7, zorder=order)
        case Box():
            corner = (mark.x, mark.y)
            return Rectangle(corner, mark.width, mark.height, fc=mark.color, ec="#fff", lw=0.6, zorder=order)
        case Words():
            style = KINDS[mark.kind]
            align = {"start": "left", "middle": "center", "end": "right"}[mark.anchor]
            return Text(
                mark.x,
                mark.y,
                # A dollar would begin a formula.
                mark.text.replace("$", r"\$"),
                fontsize=style["font-size"],
                color=style["fill"],
                ha=align,
                va="baseline",
                rotation=-mark.turn,
                rotation_mode="anchor",
                zorder=order,
            )
