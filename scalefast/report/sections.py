"""The sections of the report, each from its data to HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from scalefast.evaluation.comparison import (
    PROTOCOL_NAMES,
    RIVALS,
    Difference,
    best_baseline,
    our_column,
    summary,
    verdict,
)
from scalefast.evaluation.data import SplitCounts
from scalefast.evaluation.results import Accuracies, Intervals
from scalefast.report.charts import GREY, PALETTE, Series, legend, line_chart, scatter_chart

__all__ = ["class_colors", "counts", "curves", "facts", "maps", "results", "verdicts"]

COLUMN_NAMES = {
    "mean": "mean pooling",
    "mean_std": "mean + std",
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
CURVES = {
    "loss": ("total", "#1d2530"),
    "mcm_loss": ("masked clips (MCM)", "#d9702b"),
    "set_loss": ("sets (SET)", "#3b6fb6"),
    "mcm_accuracy": ("masked clips (MCM)", "#d9702b"),
    "set_accuracy": ("sets (SET)", "#3b6fb6"),
}


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
    whole = f"<p><strong>{escape(text)}</strong></p>" if text else ""
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
    rows = []
    for protocol, row in accuracies.items():
        cells = [f"<td>{escape(PROTOCOL_NAMES.get(protocol, protocol))}</td>"]
        best, known = best_baseline(row), (intervals or {}).get(protocol, {})
        for name in columns:
            kind = {best: ' class="main"', our_column(row): ' class="main ours"'}.get(name, "")
            value = f"{100 * row[name]:.1f}{_ends(known.get(name))}" if name in row else "-"
            cells.append(f"<td{kind}>{value}</td>")
        cells.append(f"<td>{_gap(row, differences.get(protocol))}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    tops = "".join(
        f'<th class="group" colspan="{len(members)}">{title}</th>'
        for title, members in groups.items()
        if members
    )
    return (
        f'<div class="scroll"><table><thead><tr><th rowspan="2">accuracy, %</th>{tops}'
        f'<th rowspan="2">SCALE less best baseline</th></tr>'
        f"<tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _ends(interval: Sequence[float] | None) -> str:
    if interval is None or not all(map(math.isfinite, interval)):
        return ""
    return f'<br><span class="interval">{100 * interval[0]:.1f} to {100 * interval[1]:.1f}</span>'


def _gap(row: Mapping[str, float], difference: Difference | None) -> str:
    gap = f"{100 * (row[our_column(row)] - row[best_baseline(row)]):+.1f}"
    if difference is None or not math.isfinite(difference.low):
        return gap
    return (
        f'{gap} <span class="interval">({100 * difference.low:+.1f} to {100 * difference.high:+.1f})</span>'
    )


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


def curves(log: Sequence[Mapping[str, Any]]) -> str:
    """Losses and accuracies of pretraining, from the lines of log.jsonl."""
    lines = [line for line in log if isinstance(line.get("step"), int)]
    groups = {
        "Loss": ("loss", "mcm_loss", "set_loss"),
        "Accuracy of the two tasks": ("mcm_accuracy", "set_accuracy"),
    }
    figures = []
    for title, names in groups.items():
        series = [
            Series(
                name=CURVES[name][0],
                x=[line["step"] for line in lines],
                y=[
                    float(line[name]) if isinstance(line.get(name), int | float) else math.nan
                    for line in lines
                ],
                color=CURVES[name][1],
            )
            for name in names
        ]
        series = [one for one in series if any(map(math.isfinite, one.y))]
        if series:
            span = (0.0, 1.0) if title != "Loss" else None
            chart = line_chart(series, title=f"{title} by step", x_label="step", y_range=span)
            figures.append(f"<figure><h3>{title}</h3>{chart}</figure>")
    if not figures:
        return '<p class="soft">No log: the model comes from no run folder, or the run logged nothing.</p>'
    return f'<div class="pair">{"".join(figures)}</div>'


def class_colors(labels: Sequence[int], names: Mapping[int, str]) -> tuple[dict[int, str], dict[str, str]]:
    """Colours of the classes, and the legend. With more classes than colours the most frequent ones have
    one."""
    frequency = {label: labels.count(label) for label in sorted(set(labels))}
    ranked = sorted(frequency, key=lambda label: (-frequency[label], label))
    shown = sorted(ranked[: len(PALETTE)])
    colors = dict.fromkeys(frequency, GREY) | dict(zip(shown, PALETTE, strict=False))
    key = {names[label]: colors[label] for label in shown}
    if len(frequency) > len(shown):
        key[f"{len(frequency) - len(shown)} other classes"] = GREY
    return colors, key


def maps(
    figures: Mapping[str, Sequence[tuple[float, float]]],
    *,
    labels: Sequence[int],
    names: Mapping[int, str],
    ids: Sequence[str],
) -> str:
    """Maps of the same videos side by side, coloured by class.

    Args:
        figures: title of each map, and its points.
        labels: class of each point.
        names: of the classes.
        ids: of the videos.
    """
    colors, key = class_colors(labels, names)
    hover = [f"{names[label]}: {name}" for label, name in zip(labels, ids, strict=True)]
    drawn = [
        f"<figure><h3>{escape(title)}</h3>"
        + scatter_chart(points, colors=[colors[label] for label in labels], names=hover, title=title)
        + "</figure>"
        for title, points in figures.items()
    ]
    return f'<div class="pair map">{"".join(drawn)}</div>{legend(key)}'


def facts(values: Mapping[str, Any]) -> str:
    """Names and values as a list; values that are not known are left out."""
    items = [
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        for name, value in values.items()
        if value is not None and value != ""
    ]
    return f"<dl>{''.join(items)}</dl>"
