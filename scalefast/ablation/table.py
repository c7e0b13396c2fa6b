"""The table of an ablation: accuracies by row, as text and as files."""

from __future__ import annotations

import csv
import io
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalefast._files import write_atomically
from scalefast.ablation.studies import Variant
from scalefast.training import PretrainConfig

__all__ = ["AblationTable", "Row"]

NAMES = {"knn": "k-NN", "linear": "linear", "cls": "CLS", "recommended": "recommended"}


@dataclass(kw_only=True)
class Row:
    """One configuration, with what its seeds found so far."""

    variant: Variant
    """What it is."""
    found: list[dict[str, dict[str, float]]] = field(default_factory=list)
    """`{protocol: {representation: accuracy}}` of each finished seed."""
    failed: list[str] = field(default_factory=list)
    """Why seeds came to nothing."""

    def add(self, result: dict[str, Any]) -> None:
        """Take what a run left: accuracies, or `failed`."""
        if "failed" in result:
            self.failed.append(result["failed"])
        else:
            self.found.append(result)

    def clear(self) -> None:
        """Forget what runs left."""
        self.found.clear()
        self.failed.clear()

    def values(self, protocol: str, column: str) -> list[float]:
        """Accuracy of every seed, in [0, 1]."""
        return [one[protocol][column] for one in self.found]

    def mean(self, protocol: str, column: str) -> float | None:
        """Over the seeds; None where there are none."""
        return statistics.fmean(found) if (found := self.values(protocol, column)) else None

    def deviation(self, protocol: str, column: str) -> float | None:
        """Standard deviation over the seeds; None for fewer than two."""
        found = self.values(protocol, column)
        return statistics.stdev(found) if len(found) > 1 else None


@dataclass(kw_only=True)
class AblationTable:
    """All rows, and what needs no training."""

    base: PretrainConfig
    """What is varied."""
    baselines: dict[str, dict[str, float]]
    """`{protocol: {pooling: accuracy}}`."""
    rows: list[Row]
    """In the order of the studies."""

    def markdown(self) -> str:
        """Accuracies in percent: mean over seeds, and standard deviation where there are several."""
        pairs = [(p, c) for p in self.baselines for c in ("cls", "recommended")]
        titles = ["study", "value", "seeds", *(f"{NAMES[p]}, {NAMES[c]}" for p, c in pairs)]
        lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
        for row in self.rows:
            name = f"{row.variant.name} (base)" if row.variant.is_base else row.variant.name
            seeds = f"{len(row.found)}" + (f", {len(row.failed)} failed" if row.failed else "")
            cells = [_percent(row.mean(p, c), row.deviation(p, c)) for p, c in pairs]
            lines.append("| " + " | ".join([row.variant.study, name, seeds, *cells]) + " |")
        poolings = [
            f"{NAMES[protocol]} {', '.join(f'{name} {100 * value:.1f}' for name, value in row.items())}"
            for protocol, row in self.baselines.items()
        ]
        return "\n".join([*lines, "", f"Without SCALE, on the same features: {'; '.join(poolings)}."]) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Everything, accuracies in [0, 1]."""
        return {
            "base": self.base.to_dict(),
            "baselines": self.baselines,
            "rows": [
                {
                    "study": row.variant.study,
                    "name": row.variant.name,
                    "base": row.variant.is_base,
                    "config": row.variant.config.to_dict(),
                    "seeds": row.found,
                    "failed": row.failed,
                }
                for row in self.rows
            ],
        }

    def csv(self) -> str:
        """One line for every run and accuracy: study, value, run, protocol, representation, accuracy."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["study", "value", "run", "protocol", "representation", "accuracy"])
        for protocol, poolings in self.baselines.items():
            writer.writerows(["", "", "", protocol, name, value] for name, value in poolings.items())
        for row in self.rows:
            for run, one in enumerate(row.found):
                for protocol, values in one.items():
                    for name, value in values.items():
                        writer.writerow([row.variant.study, row.variant.name, run, protocol, name, value])
        return text.getvalue()

    def save(self, folder: Path) -> None:
        """Write ablation.md, ablation.json and ablation.csv, each whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "ablation.md", self.markdown().encode())
        write_atomically(folder / "ablation.json", (json.dumps(self.to_json(), indent=2) + "\n").encode())
        write_atomically(folder / "ablation.csv", self.csv().encode())


def _percent(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return "-"
    return f"{100 * mean:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")
