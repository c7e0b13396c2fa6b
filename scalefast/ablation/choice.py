"""Choose a configuration over several data sets, by a rule that is stated before the numbers are seen."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scalefast.errors import DataError, InputError

__all__ = ["Choice", "choose"]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One row of a study, judged over several data sets."""

    name: str
    """The row's name."""
    gain: float
    """Mean over data sets and protocols of recommended less the best pooling, in [-1, 1]."""
    worst: float
    """The smallest of them."""


def choose(folders: Sequence[str | os.PathLike[str]], *, study: str) -> list[Choice]:
    """The rows of a study, best first: by their mean gain over the best pooling, over data sets and protocols.

    Each data set counts the same, whatever its accuracies; k-NN and linear count the same. Run the ablations on
    validation splits: what is chosen on test videos is too good on them.

    Args:
        folders: of `ablate`, one a data set, each with the study.
        study: whose rows are compared.

    Raises:
        InputError: no folder, or no such study in one. DataError: a damaged file.
    """
    if not folders:
        raise InputError("give the folder of at least one ablation")
    gains: dict[str, list[float]] = {}
    for folder in folders:
        for name, found in _gains(Path(folder) / "ablation.json", study).items():
            gains.setdefault(name, []).extend(found)
    complete = max(map(len, gains.values()))
    choices = [
        Choice(name=name, gain=statistics.fmean(found), worst=min(found))
        for name, found in gains.items()
        if len(found) == complete  # a row that failed on a data set is no choice
    ]
    return sorted(choices, key=lambda choice: -choice.gain)


def _gains(path: Path, study: str) -> dict[str, list[float]]:
    """`{row: [gain under each protocol]}` of one ablation."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; `scalefast ablate` writes it")
    try:
        table = json.loads(path.read_text())
        rows = [row for row in table["rows"] if row["study"] == study and row["seeds"]]
        best = {protocol: max(poolings.values()) for protocol, poolings in table["baselines"].items()}
        found = {
            row["name"]: [
                statistics.fmean(seed[protocol]["recommended"] for seed in row["seeds"]) - best[protocol]
                for protocol in best
            ]
            for row in rows
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not the table of an ablation ({error!r})") from error
    if not found:
        raise InputError(f"{path}: holds no finished row of the study {study!r}")
    return found
