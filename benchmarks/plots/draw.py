"""Draws what the documents show from committed results.

    python benchmarks/plots/draw.py benchmarks/results/2026-11-21-cpu-growth.json benchmarks/results/2026-11-21-cpu.json

Growth curves (log-log, with their exponents) and bars of ours beside peers become PNG files in --out.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

__all__ = ["draw_growth", "draw_peers"]

_LABELS = {
    "views": "clips a set",
    "batch": "videos a step, 2 x 8 clips",
    "small": "videos a step, 2 x 2 clips",
    "dim": "feature width",
    "videos": "videos in the store",
}


def draw_growth(found: dict[str, Any], path: Path) -> None:
    """One panel an axis: seconds over its values, a line a curve, the exponent in the legend."""
    plt = _pyplot()
    axes = list(dict.fromkeys(row["axis"] for row in found["rows"]))
    figure, panels = plt.subplots(
        1, len(axes), figsize=(3.6 * len(axes), 3.2), layout="constrained", squeeze=False
    )
    for axis, panel in zip(axes, panels[0], strict=True):
        points: dict[str, list[tuple[float, float]]] = defaultdict(list)
        slopes = {}
        for row in found["rows"]:
            if row["axis"] == axis and "seconds" in row:
                points[row["what"]].append((row["value"], row["seconds"]))
            elif row["axis"] == axis:
                slopes[row["what"]] = row["exponent"]
        for what, curve in points.items():
            panel.loglog(*zip(*curve, strict=True), marker="o", label=f"{what}: exponent {slopes[what]:.2f}")
        panel.set(xlabel=_LABELS[axis], ylabel="seconds")
        values = sorted({value for curve in points.values() for value, _ in curve})
        panel.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        panel.set_xticks(values, [f"{value:,}" for value in values], fontsize=7, rotation=30)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    figure.suptitle(_caption(found), fontsize=7)
    _save(plt, figure, path)


def draw_peers(found: dict[str, Any], path: Path) -> None:
    """Bars: how many times as fast ours is as each peer of each benchmark."""
    plt = _pyplot()
    rows = [row for row in found["rows"] if row.get("ours_is_faster") and row["contender"] != "ours"]
    names = [f"{row['benchmark'].partition('::')[2]}  {row['contender']}" for row in rows]
    figure, panel = plt.subplots(figsize=(8, 0.8 + 0.24 * len(rows)), layout="constrained")
    panel.barh(names, [row["ours_is_faster"] for row in rows], color="#4878a8")
    panel.axvline(1, color="black", linewidth=0.8)
    panel.set(xlabel="times as fast", xscale="log")
    panel.invert_yaxis()
    panel.tick_params(axis="y", labelsize=7)
    figure.suptitle(_caption(found), fontsize=7)
    _save(plt, figure, path)


def _caption(found: dict[str, Any]) -> str:
    where = ", ".join(found["gpus"]) or found["hardware"]
    return f"{where}; torch {found['versions']['torch']}; {found['date']}; {found['commit']}"


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(plt: Any, figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "results", nargs="+", type=Path, help="JSON of benchmarks/programs/results.py or growth.py"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/plots"))
    args = parser.parse_args()
    for source in args.results:
        found = json.loads(source.read_text())
        draw = draw_growth if "axis" in found["rows"][0] else draw_peers
        path = args.out / f"{source.stem}.png"
        draw(found, path)
        print(path)


if __name__ == "__main__":
    main()
