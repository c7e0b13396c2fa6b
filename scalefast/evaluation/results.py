"""What an evaluation found, as numbers, as a table, and as files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from scalefast._files import write_atomically
from scalefast.errors import DataError, InputError
from scalefast.evaluation._outcome import Outcome, compare
from scalefast.evaluation.comparison import (
    PROTOCOL_NAMES,
    Difference,
    best_baseline,
    by_measure,
    our_column,
    summary,
    verdict,
)
from scalefast.evaluation.data import SplitCounts

__all__ = [
    "Accuracies",
    "Intervals",
    "Results",
    "check_place",
    "details_path",
    "read_results",
    "results_table",
    "write_results",
]

Accuracies = Mapping[str, Mapping[str, float]]
"""`{protocol: {representation: accuracy in [0, 1]}}`: what results.json holds."""

Intervals = Mapping[str, Mapping[str, Sequence[float]]]
"""`{protocol: {representation: (low, high)}}`."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that one evaluation found."""

    outcomes: dict[str, dict[str, Outcome]] = field(repr=False, compare=False)
    """`{protocol: {representation: outcome}}`: what the numbers and their intervals are made of."""
    accuracies: dict[str, dict[str, float]]
    """`{protocol: {representation: accuracy}}`."""
    differences: dict[str, Difference]
    """For every protocol, SCALE's recommended representation against the best baseline."""
    intervals: dict[str, dict[str, tuple[float, float]]]
    """`{protocol: {representation: 95% interval}}`, by bootstrap over the test videos."""
    train: SplitCounts
    """What the training numbers speak of."""
    test: SplitCounts
    """What the test numbers speak of."""
    notes: tuple[str, ...]
    """What a reader of the numbers should know; often empty."""
    details: dict[str, Any]
    """JSON-able: the model, the stores' provenance, and the settings of every number."""

    @classmethod
    def of(
        cls,
        outcomes: dict[str, dict[str, Outcome]],
        *,
        seed: int,
        train: SplitCounts,
        test: SplitCounts,
        notes: Sequence[str],
        details: Mapping[str, Any],
    ) -> Results:
        """From the outcomes: accuracies, intervals and differences, and the settings among the details."""
        table = {name: {column: out.value for column, out in row.items()} for name, row in outcomes.items()}
        return cls(
            outcomes=outcomes,
            accuracies=table,
            differences={name: _difference(row, table[name], seed=seed) for name, row in outcomes.items()},
            intervals={
                name: {column: out.interval(seed=seed) for column, out in row.items()}
                for name, row in outcomes.items()
            },
            train=train,
            test=test,
            notes=tuple(notes),
            details={
                **details,
                "seed": seed,
                "protocols": {
                    name: {column: out.settings for column, out in row.items()}
                    for name, row in outcomes.items()
                },
            },
        )

    @property
    def predictions(self) -> dict[str, dict[str, Tensor]]:
        """`{protocol: {representation: [M] int64 class ids}}`, in the order of the test store."""
        return {
            name: {column: out.predicted for column, out in row.items() if out.predicted is not None}
            for name, row in self.outcomes.items()
        }

    def table(self) -> str:
        """The accuracies in percent with their intervals, one row a protocol."""
        return results_table(self.accuracies, self.intervals)

    def verdict(self) -> tuple[str, ...]:
        """One plain sentence a protocol."""
        return tuple(
            verdict(protocol, row, self.differences.get(protocol))
            for protocol, row in self.accuracies.items()
        )

    def summary(self) -> str:
        """All protocols in one line."""
        return summary(self.differences)

    def errors(self) -> dict[str, float]:
        """`{representation: mean squared error}` of the protocol `regression`; empty without it."""
        settings = self.details["protocols"].get("regression", {})
        return {
            name: each["mean_squared_error"]
            for name, each in settings.items()
            if "mean_squared_error" in each
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write results.json and, beside it, results-details.json; each appears whole or not at all."""
        details = {
            **self.details,
            "differences": {name: asdict(value) for name, value in self.differences.items()},
            "intervals": {
                protocol: {name: list(ends) for name, ends in row.items()}
                for protocol, row in self.intervals.items()
            },
            "train": {**self.details.get("train", {}), "counts": asdict(self.train)},
            "test": {**self.details.get("test", {}), "counts": asdict(self.test)},
            "notes": list(self.notes),
        }
        write_results(path, self.accuracies, details=details)


def _difference(row: Mapping[str, Outcome], values: Mapping[str, float], *, seed: int) -> Difference:
    """SCALE against the best baseline of a row of the table."""
    ours, theirs = our_column(values), best_baseline(values)
    return compare(row[ours], row[theirs], names=(ours, theirs), seed=seed)


def results_table(accuracies: Accuracies, intervals: Intervals | None = None) -> str:
    """Accuracies in percent as aligned text: a row a protocol, a column a representation, a head for each measure.

    Args:
        accuracies: as results.json holds them.
        intervals: where they are known, they stand in a line of their own below the accuracies.
    """
    columns = list(dict.fromkeys(name for row in accuracies.values() for name in row))
    lines: list[list[str]] = []
    for measure, protocols in by_measure(accuracies).items():
        lines.append([f"{measure}, %", *columns])
        for protocol in protocols:
            row, known = accuracies[protocol], (intervals or {}).get(protocol, {})
            cells = (f"{100 * row[column]:.1f}" if column in row else "-" for column in columns)
            lines.append([PROTOCOL_NAMES.get(protocol, protocol), *cells])
            if known:
                lines.append(["  95%", *(_ends(known.get(column)) for column in columns)])
    first = max(len(line[0]) for line in lines)
    widths = [max(12, len(name)) for name in columns]
    return "\n".join(
        " ".join(
            [f"{name:<{first}}", *(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))]
        )
        for name, *cells in lines
    )


def _ends(interval: Sequence[float] | None) -> str:
    known = interval is not None and all(map(math.isfinite, interval))
    return f"{100 * interval[0]:.1f}-{100 * interval[1]:.1f}" if interval is not None and known else "-"


def details_path(path: str | os.PathLike[str]) -> Path:
    """`results.json` -> `results-details.json`."""
    path = Path(path)
    return path.with_name(f"{path.stem}-details.json")


def write_results(
    path: str | os.PathLike[str], accuracies: Accuracies, *, details: Mapping[str, Any] | None = None
) -> None:
    """Write `{protocol: {representation: accuracy}}` and nothing else; details go into a file beside it.

    Raises:
        InputError: an accuracy is outside [0, 1], or the place cannot be written to.
    """
    path = Path(path)
    plain = {
        protocol: {name: float(value) for name, value in row.items()} for protocol, row in accuracies.items()
    }
    odd = [f"{p}.{r} = {v}" for p, row in plain.items() for r, v in row.items() if not lowest(p) <= v <= 1]
    if odd:
        raise InputError(f"{path}: accuracies lie in [0, 1], got {', '.join(odd)}")
    check_place(path)
    if details is not None:
        write_atomically(details_path(path), (json.dumps(details, indent=2) + "\n").encode())
    write_atomically(path, (json.dumps(plain, indent=2) + "\n").encode())


def check_place(path: str | os.PathLike[str]) -> None:
    """Make the folder of a file that is to be written, so that hours of work do not end at its absence.

    Raises:
        InputError: the path is a folder, or its folder cannot be made or written to.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: this is a folder; expected the name of a file to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: the folder {path.parent} cannot be made ({error.strerror})") from error
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: the folder {path.parent} may not be written to")


def read_results(path: str | os.PathLike[str]) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """results.json and its details (empty if there are none).

    Raises:
        InputError: no such file. DataError: not of this form.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; `scalefast evaluate` writes results.json")
    accuracies = _read_object(path)
    for protocol, row in accuracies.items():
        numbers = (
            isinstance(row, dict)
            and row
            and all(_is_accuracy(value, lowest(protocol)) for value in row.values())
        )
        if not numbers or not (
            {"mean", "ensemble"} <= row.keys()
            or {"finetuned", "scratch"} <= row.keys()
            or {"clip", "clip_cls"} <= row.keys()
        ):
            raise DataError(
                f"{path}: field {protocol!r}: expected {{representation: accuracy in [0, 1]}} with 'mean' "
                f"and 'ensemble' among the representations (fine-tuning: 'finetuned' and "
                f"'scratch'), got {json.dumps(row)[:80]}"
            )
    if not accuracies:
        raise DataError(f"{path}: no results in it")
    beside = details_path(path)
    return accuracies, _read_object(beside) if beside.is_file() else {}


def lowest(protocol: str) -> float:
    """Smallest number that a row may hold: an adjusted Rand index below chance is negative, R2 below the mean too."""
    if protocol == "regression":
        return -math.inf
    return -1.0 if protocol.endswith("_ari") else 0.0


def _is_accuracy(value: Any, low: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= 1


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value
