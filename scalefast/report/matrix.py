"""A confusion matrix as a drawing: which class was taken for which."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scalefast.report.drawing import Box, Drawing, Mark, Words

__all__ = ["matrix_chart"]

LETTER = 7.2
"""Width of a letter of a tick, with which the widest of the usual fonts gets by."""


def matrix_chart(counts: Sequence[Sequence[int]], *, names: Sequence[str], title: str) -> Drawing:
    """A confusion matrix: a row for each true class, a column for each that was said; shades are shares of a row.

    Args:
        counts: square.
        names: of the classes.
        title: for readers who do not see the chart.
    """
    short = [name if len(name) <= 18 else name[:17] + "…" for name in names]
    side = min(max(450 / len(names), 15.0), 46.0)
    turn = -45.0 if side >= 20 else -90.0  # slanted names need more room between them
    left = 30 + LETTER * max(map(len, short))
    top, size = 8.0, side * len(names)
    marks: list[Mark] = []
    for row, values in enumerate(counts):
        total = sum(values)
        for column, count in enumerate(values):
            share = count / total if total else 0.0
            words = f"{names[row]}: {count} of {total} taken for {names[column]}"
            x, y = left + side * column, top + side * row
            color = shade(share, right=row == column)
            marks.append(Box(x=x, y=y, width=side, height=side, color=color, title=words))
            if count and side >= 18:
                kind = "count-light" if share > 0.55 else "count"
                middle = x + side / 2
                marks.append(Words(x=middle, y=y + side / 2 + 4, text=str(count), kind=kind, anchor="middle"))
        marks.append(Words(x=left - 6, y=top + side * (row + 0.5) + 4, text=short[row], anchor="end"))
    for column, name in enumerate(short):
        x = left + side * (column + 0.5) + 4
        marks.append(Words(x=x, y=top + size + 8, text=name, anchor="end", turn=turn))
    width, below = left + size + 14, 26 - math.sin(math.radians(turn)) * LETTER * max(map(len, short))
    marks.append(Words(x=12, y=top + size / 2, text="true class", kind="axis", anchor="middle", turn=-90))
    marks.append(Words(x=left + size / 2, y=top + size + below, text="said", kind="axis", anchor="middle"))
    return Drawing(width=width, height=top + size + below + 8, title=title, marks=marks)


def shade(share: float, *, right: bool) -> str:
    """White to blue on the diagonal, white to red elsewhere; a root makes few videos visible."""
    if share <= 0:
        return "#f6f8fa"
    full = (0x2F, 0x62, 0xA8) if right else (0xB3, 0x39, 0x1F)
    part = 0.08 + 0.92 * math.sqrt(share)
    return "#" + "".join(f"{round(255 + (channel - 255) * part):02x}" for channel in full)
