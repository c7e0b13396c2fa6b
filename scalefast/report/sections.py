"""The sections of the report, each from its data to HTML."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from scalefast._text import counted
from scalefast.evaluation.comparison import (
    PROTOCOL_NAMES,
    RIVALS,
    Difference,
    best_baseline,
    by_measure,
    our_column,
    summary,
    verdict,
)
from scalefast.evaluation.data import SplitCounts
from scalefast.evaluation.results import Accuracies, Intervals
from scalefast.report.drawing import Dot, Drawing
from scalefast.report.failures import ClassRow

__all__ = ["classes", "counts", "facts", "figure", "legend", "results", "spots", "verdicts"]

COLUMN_NAMES = {
    "mean": "mean pooling",
    "mean_std": "mean + std",
    "mean_time": "mean + course",
    "max": "max pooling",
    "random_cls": "untrained CLS",
    "random_recommended": "untrained recommended",
    "cls": "CLS",
    "mlp": "MLP",
    "attention_pool": "attention pooling",
    "attentive_probe": "attentive probe",
    "scratch": "from scratch",
    "finetuned": "fine-tuned",
    "clip": "clip alone",
    "random_clip_cls": "untrained [clip, CLS]",
    "clip_cls": "[clip, CLS]",
}
CLASS_ROWS = 15
"""Classes of the table."""


def verdicts(accuracies: Accuracies, differences: Mapping[str, Difference]) -> str:
    """The whole in one line, and one sentence a protocol; its edge is green or red only beyond chance."""
    items = []
    for protocol, row in accuracies.items():
        difference = differences.get(protocol)
        kind = ""
        if difference is not None:
            kind = {1: "good", 0: "", -1: "bad"}[difference.side]
        text = verdict(protocol, row, difference)
        items.append(f'<li class="{kind}">{escape(text)}</li>')
    text = summary(differences)
    whole = f'<p class="summary">{escape(text)}</p>' if text else ""
    return f'{whole}<ul class="verdict">{"".join(items)}</ul>'


def results(
    accuracies: Accuracies, differences: Mapping[str, Difference], intervals: Intervals | None = None
) -> str:
    """The table: a row a protocol, what one has without SCALE beside everything of SCALE."""
    names = list(dict.fromkeys(name for row in accuracies.values() for name in row))
    groups = {
        "without SCALE": [name for name in names if name in RIVALS],
        "SCALE": [name for name in names if name not in RIVALS],
    }
    columns = [name for group in groups.values() for name in group]
    head = "".join(f"<th>{escape(COLUMN_NAMES.get(name, name))}</th>" for name in columns)
    tops = "".join(
        f'<th class="group" colspan="{len(members)}">{title}</th>'
        for title, members in groups.items()
        if members
    )
    measures, rows = by_measure(accuracies), []
    first = next(iter(measures))
    for measure, protocols in measures.items():
        if measure != first:
            rows.append(f'<tr><th colspan="{len(columns) + 2}">{measure}, %</th></tr>')
        for protocol in protocols:
            known, difference = (intervals or {}).get(protocol, {}), differences.get(protocol)
            rows.append(_result(protocol, accuracies[protocol], columns, known, difference))
    return (
        f'<div class="scroll"><table><thead><tr><th rowspan="2">{first}, %</th>{tops}'
        f'<th rowspan="2">SCALE less best baseline</th></tr>'
        f"<tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _result(
    protocol: str,
    row: Mapping[str, float],
    columns: Sequence[str],
    known: Mapping[str, Sequence[float]],
    difference: Difference | None,
) -> str:
    """A row of the table."""
    best, ours = best_baseline(row), our_column(row)
    cells = [f"<td>{escape(PROTOCOL_NAMES.get(protocol, protocol))}</td>"]
    for name in columns:
        kind = {best: ' class="main"', ours: ' class="main ours"'}.get(name, "")
        value = f"{100 * row[name]:.1f}{_ends(known.get(name))}" if name in row else "-"
        cells.append(f"<td{kind}>{value}</td>")
    return f"<tr>{''.join(cells)}<td>{_gap(row, difference)}</td></tr>"


def _ends(interval: Sequence[float] | None) -> str:
    if interval is None or not all(map(math.isfinite, interval)):
        return ""
    return f'<br><span class="interval">{100 * interval[0]:.1f} to {100 * interval[1]:.1f}</span>'


def _gap(row: Mapping[str, float], difference: Difference | None) -> str:
    gap = f"{100 * (row[our_column(row)] - row[best_baseline(row)]):+.1f}"
    if difference is None or not math.isfinite(difference.low):
        return gap
    ends = f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}"
    return f'{gap}<br><span class="interval">{ends}</span>'


def counts(splits: Mapping[str, SplitCounts]) -> str:
    """How many videos each number speaks of."""
    titles = ("split", "listed", "bad or missing", "shorter than a clip", "used", "clips", "classes")
    head = "".join(f"<th>{title}</th>" for title in titles)
    rows = []
    for name, split in splits.items():
        values = (split.listed, split.lost, split.short, split.used, split.clips, split.classes)
        cells = "".join(f"<td>{'not recorded' if value is None else f'{value:,}'}</td>" for value in values)
        rows.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def classes(rows: Sequence[ClassRow], *, name: Callable[[int], str]) -> str:
    """A row a class, the worst first."""
    titles = ("class", "test videos", "right with SCALE", "with mean pooling")
    head = "".join(f"<th>{title}</th>" for title in titles) + '<th class="words">most often taken for</th>'
    body = []
    for row in rows[:CLASS_ROWS]:
        other = "" if row.taken_for is None else f"{escape(name(row.taken_for))} ({row.times})"
        shares = (f"<td>{100 * n / row.videos:.0f}% ({n})</td>" for n in (row.right, row.right_before))
        body.append(
            f"<tr><td>{escape(name(row.label))}</td><td>{row.videos:,}</td>{''.join(shares)}"
            f'<td class="words">{other}</td></tr>'
        )
    more = len(rows) - CLASS_ROWS
    rest = f'<p class="caption">And {counted(more, "class")} of better accuracy.</p>' if more > 0 else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'<div class="scroll">{table}</div>{rest}'


def figure(drawing: Drawing, *, heading: str = "", above: str = "") -> str:
    """A drawing with its legend; `above` is HTML that lies over it."""
    title = f"<h3>{escape(heading)}</h3>" if heading else ""
    return f'<figure>{title}<div class="sheet">{drawing.svg()}{above}</div></figure>'


def legend(colors: Mapping[str, str]) -> str:
    """Names with their colours."""
    entries = "".join(
        f'<li><span class="key" style="background:{color}"></span>{escape(name)}</li>'
        for name, color in colors.items()
    )
    return f'<ul class="legend">{entries}</ul>'


def spots(drawing: Drawing, tips: Sequence[str]) -> str:
    """Invisible places over the dots of a map that show a tip (HTML) under the pointer, without a script.

    Args:
        drawing: its marks are dots.
        tips: of each dot, in their order; empty where there is none.
    """
    parts = []
    for mark, tip in zip(drawing.marks, tips, strict=True):
        assert isinstance(mark, Dot)
        if tip:
            left, top = 100 * mark.x / drawing.width, 100 * mark.y / drawing.height
            sides = ("right" if left > 60 else "left", "up" if top > 60 else "down")
            parts.append(
                f'<span class="spot" style="left:{left:.2f}%;top:{top:.2f}%">'
                f'<span class="tip {" ".join(sides)}">{tip}</span></span>'
            )
    return "".join(parts)


def facts(values: Mapping[str, Any]) -> str:
    """Names and values as a list; values that are not known are left out."""
    items = [
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        for name, value in values.items()
        if value is not None and value != ""
    ]
    return f"<dl>{''.join(items)}</dl>"
