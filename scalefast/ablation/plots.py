"""One figure a study: accuracy of every row, beside what one has without SCALE."""

from __future__ import annotations

import os
from pathlib import Path

from scalefast._files import write_atomically
from scalefast.ablation.table import AblationTable, Row
from scalefast.errors import require

__all__ = ["plot"]

COLUMNS = {"cls": "#d9702b", "recommended": "#3b6fb6"}


def plot(table: AblationTable, folder: str | os.PathLike[str]) -> list[Path]:
    """Write ablation-STUDY.png and .svg for every study with a finished run; returns the files.

    Points are seeds, lines their means, dashes the best pooling.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", extra="report", needed_for="plots of an ablation")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    files = []
    for study in dict.fromkeys(row.variant.study for row in table.rows):
        rows = [row for row in table.rows if row.variant.study == study and row.found]
        if rows:
            files += _draw(study, rows, table.baselines, target)
    return files


def _draw(study: str, rows: list[Row], baselines: dict[str, dict[str, float]], folder: Path) -> list[Path]:
    import io

    from matplotlib.figure import Figure  # without pyplot: no global state, no window

    figure = Figure(figsize=(4.2 * len(baselines), 3.4), layout="constrained")
    places = figure.subplots(1, len(baselines), squeeze=False)[0]
    for axes, (protocol, poolings) in zip(places, baselines.items(), strict=True):
        best = max(poolings, key=lambda name: poolings[name])
        axes.axhline(100 * poolings[best], color="#5c6770", linestyle="--", label=f"{best}, without SCALE")
        for column, colour in COLUMNS.items():
            axes.plot(
                range(len(rows)), [100 * (row.mean(protocol, column) or 0.0) for row in rows],
                color=colour, marker="_", label=column,
            )  # fmt: skip
            for place, row in enumerate(rows):
                values = [100 * value for value in row.values(protocol, column)]
                axes.plot([place] * len(values), values, ".", color=colour)
        axes.set_xticks(range(len(rows)), [row.variant.name for row in rows], rotation=20, ha="right")
        axes.set(title={"knn": "k-NN"}.get(protocol, protocol), xlabel=study, ylabel="accuracy, %")
    figure.axes[0].legend(fontsize="small")
    files = []
    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        # No date, so that the same numbers give the same file.
        figure.savefig(buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {})
        files.append(folder / f"ablation-{study}.{kind}")
        write_atomically(files[-1], buffer.getvalue())
    return files
