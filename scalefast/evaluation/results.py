"""What an evaluation found, as numbers, as a table, and as files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from scalefast._files import write_atomically
from scalefast.errors import DataError, InputError
from scalefast.evaluation.data import SplitCounts

__all__ = [
    "Accuracies",
    "Difference",
    "Results",
    "check_place",
    "details_path",
    "read_results",
    "results_table",
    "verdict",
    "write_results",
]

Accuracies = Mapping[str, Mapping[str, float]]
"""`{protocol: {representation: accuracy in [0, 1]}}`: what results.json holds."""

PROTOCOL_NAMES = {"knn": "k-NN", "linear": "linear", "linear_clips": "linear, per clip"}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Accuracy of SCALE's ensemble less that of mean pooling, on the same test videos."""

    value: float
    """In [-1, 1]."""
    low: float
    """Lower end of the 95% interval over test videos (normal, paired)."""
    high: float
    """Upper end."""

    @classmethod
    def paired(cls, ours: Tensor, theirs: Tensor) -> Difference:
        """From two bool `[M]`: which test videos each classified rightly."""
        gain = ours.double() - theirs.double()
        value = gain.mean().item()
        error = gain.std().item() / math.sqrt(len(gain)) if len(gain) > 1 else math.inf
        return cls(value=value, low=max(value - 1.96 * error, -1.0), high=min(value + 1.96 * error, 1.0))


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that one evaluation found."""

    accuracies: dict[str, dict[str, float]]
    """`{protocol: {representation: accuracy}}`."""
    differences: dict[str, Difference]
    """For every protocol, the ensemble against mean pooling."""
    train: SplitCounts
    """What the training numbers speak of."""
    test: SplitCounts
    """What the test numbers speak of."""
    notes: tuple[str, ...]
    """What a reader of the numbers should know; often empty."""
    details: dict[str, Any]
    """JSON-able: the model, the stores' provenance, and the settings of every number."""
    predictions: dict[str, dict[str, Tensor]] = field(repr=False, compare=False)
    """`{protocol: {representation: [M] int64 class ids}}`, in the order of the test store."""

    def table(self) -> str:
        """The accuracies in percent, one row a protocol."""
        return results_table(self.accuracies)

    def verdict(self) -> tuple[str, ...]:
        """One plain sentence a protocol."""
        return tuple(
            verdict(protocol, row, self.differences.get(protocol))
            for protocol, row in self.accuracies.items()
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write results.json and, beside it, results-details.json; each appears whole or not at all."""
        details = {
            **self.details,
            "differences": {name: asdict(value) for name, value in self.differences.items()},
            "train": {**self.details.get("train", {}), "counts": asdict(self.train)},
            "test": {**self.details.get("test", {}), "counts": asdict(self.test)},
            "notes": list(self.notes),
        }
        write_results(path, self.accuracies, details=details)


def verdict(protocol: str, row: Mapping[str, float], difference: Difference | None = None) -> str:
    """SCALE (its ensemble) against mean pooling, in one sentence.

    Args:
        protocol: name of the protocol.
        row: accuracies by representation, `ensemble` and `mean` among them.
        difference: with its interval, where it is known.
    """
    name = PROTOCOL_NAMES.get(protocol, protocol)
    gap = 100 * (row["ensemble"] - row["mean"])
    side = "equal to" if abs(gap) < 0.05 else f"{abs(gap):.1f} points {'above' if gap > 0 else 'below'}"
    text = (
        f"{name}: SCALE (ensemble) is {side} mean pooling, "
        f"{100 * row['ensemble']:.1f}% against {100 * row['mean']:.1f}%"
    )
    if difference is None or not math.isfinite(difference.low):
        return text + "."
    interval = f"95% interval {100 * difference.low:+.1f} to {100 * difference.high:+.1f}"
    clear = (
        ""
        if difference.low > 0 or difference.high < 0
        else ", so the test videos are too few to tell them apart"
    )
    return f"{text} ({interval}{clear})."


def results_table(accuracies: Accuracies) -> str:
    """Accuracies in percent as aligned text: a row a protocol, a column a representation."""
    columns = list(dict.fromkeys(name for row in accuracies.values() for name in row))
    names = [PROTOCOL_NAMES.get(protocol, protocol) for protocol in accuracies]
    first = max(map(len, [*names, "accuracy, %"]))
    widths = [max(12, len(name)) for name in columns]
    head = (f"{name:>{width}}" for name, width in zip(columns, widths, strict=True))
    lines = [" ".join([f"{'accuracy, %':<{first}}", *head])]
    for name, row in zip(names, accuracies.values(), strict=True):
        cells = [f"{100 * row[column]:.1f}" if column in row else "-" for column in columns]
        padded = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        lines.append(" ".join([f"{name:<{first}}", *padded]))
    return "\n".join(lines)


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
    odd = [f"{p}.{r} = {v}" for p, row in plain.items() for r, v in row.items() if not 0 <= v <= 1]
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
        numbers = isinstance(row, dict) and row and all(_is_accuracy(value) for value in row.values())
        if not numbers or not {"mean", "ensemble"} <= row.keys():
            raise DataError(
                f"{path}: field {protocol!r}: expected {{representation: accuracy in [0, 1]}} with 'mean' "
                f"and 'ensemble' among the representations, got {json.dumps(row)[:80]}"
            )
    if not accuracies:
        raise DataError(f"{path}: no results in it")
    beside = details_path(path)
    return accuracies, _read_object(beside) if beside.is_file() else {}


def _is_accuracy(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value
