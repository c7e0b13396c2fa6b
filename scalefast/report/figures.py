"""The drawings of a page by name, and as files."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scalefast._files import write_atomically
from scalefast.errors import InputError, require
from scalefast.evaluation.comparison import PROTOCOL_NAMES, best_baseline, by_measure, our_column
from scalefast.evaluation.results import Accuracies, Intervals
from scalefast.report.charts import (
    GREY,
    PALETTE,
    Bar,
    Series,
    drawing_order,
    interval_chart,
    line_chart,
    scatter_chart,
)
from scalefast.report.drawing import Drawing
from scalefast.report.findings import COMPARED, Findings
from scalefast.report.matrix import matrix_chart

__all__ = ["GROUPS", "class_colors", "curves", "intervals", "map_order", "maps", "matrix", "write_figures"]

CURVES = {
    "loss": ("total", "#1d2530"),
    "mcm_loss": ("masked clips (MCM)", "#d9702b"),
    "set_loss": ("sets (SET)", "#3b6fb6"),
    "time_loss": ("sets over time", "#4f8a5b"),
    "mcm_accuracy": ("masked clips (MCM)", "#d9702b"),
    "set_accuracy": ("sets (SET)", "#3b6fb6"),
    "time_accuracy": ("sets over time", "#4f8a5b"),
}
GROUPS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "loss": ("Loss", ("loss", "mcm_loss", "set_loss", "time_loss")),
    "tasks": ("Accuracy of the tasks", ("mcm_accuracy", "set_accuracy", "time_accuracy")),
}
"""Name of a drawing -> its heading and its lines."""

OURS, THEIRS = "#2f62a8", "#9aa3ad"


def intervals(accuracies: Accuracies, known: Intervals) -> dict[str, Drawing]:
    """SCALE and the best baseline under each protocol, with their intervals."""
    rows = {}
    for protocol, row in accuracies.items():
        bars = []
        for name, column, color in (
            ("SCALE", our_column(row), OURS),
            ("best baseline", best_baseline(row), THEIRS),
        ):
            low, high = known.get(protocol, {}).get(column, (math.nan, math.nan))
            value = 100 * row[column]
            title = f"{column}: {value:.1f}"
            bars.append(Bar(name=name, value=value, low=100 * low, high=100 * high, color=color, title=title))
        rows[PROTOCOL_NAMES.get(protocol, protocol)] = bars
    measures = f"{' / '.join(by_measure(accuracies))}, %"
    return {"intervals": interval_chart(rows, title="SCALE and the best baseline", x_label=measures)}


def curves(log: Sequence[Mapping[str, Any]]) -> dict[str, Drawing]:
    """Losses and accuracies of pretraining, from the lines of log.jsonl; none where nothing was logged."""
    lines = [line for line in log if isinstance(line.get("step"), int)]
    drawn = {}
    for key, (title, names) in GROUPS.items():
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
            span = None if key == "loss" else (0.0, 1.0)
            drawn[key] = line_chart(series, title=f"{title} by step", x_label="step", y_range=span)
    return drawn


def maps(findings: Findings) -> dict[str, Drawing]:
    """Maps of the same test videos before and after, coloured by class."""
    labels = _map_labels(findings)
    colors, legend = class_colors(labels, {label: findings.class_name(label) for label in set(labels)})
    names = [
        f"{findings.class_name(label)}: {findings.test.ids[row]}"
        for label, row in zip(labels, findings.map_rows, strict=True)
    ]
    return {
        f"map-{name}": scatter_chart(
            points,
            colors=[colors[label] for label in labels],
            names=names,
            title=f"Map of the test videos, {COMPARED[name]}",
            legend=legend,
        )
        for name, points in findings.maps.items()
    }


def map_order(findings: Findings) -> list[int]:
    """Which of `map_rows` each dot of a map is."""
    labels = _map_labels(findings)
    colors, _ = class_colors(labels, {label: str(label) for label in labels})
    return drawing_order([colors[label] for label in labels])


def _map_labels(findings: Findings) -> list[int]:
    return [int(findings.asked[row]) for row in findings.map_rows]


def matrix(findings: Findings) -> dict[str, Drawing]:
    """What k-NN takes each class for; none where there is nothing to compare."""
    if not findings.comparable:
        return {}
    labels, counts = findings.matrix
    names = [findings.class_name(label) for label in labels]
    return {"confusion": matrix_chart(counts, names=names, title="Confusion of the classes, k-NN, SCALE")}


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


def write_figures(folder: str | os.PathLike[str], drawings: Mapping[str, Drawing]) -> list[Path]:
    """Each drawing as NAME.svg and NAME.png, each file whole or not at all; returns them.

    Raises:
        InputError: the folder cannot be made or written to. MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", extra="report", needed_for="figures as PNG")
    folder = Path(folder)
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, drawing in drawings.items():
            for ending, content in (("svg", drawing.svg_file()), ("png", drawing.png())):
                write_atomically(folder / f"{name}.{ending}", content)
                written.append(folder / f"{name}.{ending}")
    except OSError as error:
        raise InputError(f"{folder}: figures cannot be written here ({error.strerror})") from error
    return written
