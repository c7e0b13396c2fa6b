"""Which classes k-NN gets wrong, and what it takes them for.

Legend: `M` test videos, `C` classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ClassRow", "class_rows", "confusion"]


def confusion(truth: Tensor, predicted: Tensor, *, classes: Tensor) -> Tensor:
    """`[C, C]` int64: how many videos of each class (rows) were taken for each (columns).

    Args:
        truth: `[M]` int64.
        predicted: `[M]` int64.
        classes: `[C]` int64, ascending; videos of or taken for other classes are not counted.
    """
    size = len(classes)
    counted = torch.isin(truth, classes) & torch.isin(predicted, classes)
    rows, columns = (torch.searchsorted(classes, values[counted]) for values in (truth, predicted))
    return torch.bincount(rows * size + columns, minlength=size * size).reshape(size, size)


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class of the test videos."""

    label: int
    """Its number."""
    videos: int
    """Test videos of it."""
    right: int
    """Of these told right with SCALE's representation."""
    right_before: int
    """Of these told right with mean pooling."""
    taken_for: int | None
    """The class that the others were most often taken for, None where all are right."""
    times: int
    """How often."""


def class_rows(truth: Tensor, predicted: Tensor, before: Tensor) -> list[ClassRow]:
    """A row a class, the one with the lowest share of right answers first, equals by number of videos and class.

    Args:
        truth: `[M]` int64.
        predicted: `[M]` int64, by SCALE's representation.
        before: `[M]` int64, by mean pooling.
    """
    rows = []
    for label in truth.unique().tolist():
        mine = truth == label
        others = predicted[mine & (predicted != label)]
        names, times = others.unique(return_counts=True)
        most = int(times.argmax()) if len(names) else None
        rows.append(
            ClassRow(
                label=label,
                videos=int(mine.sum()),
                right=int((predicted[mine] == label).sum()),
                right_before=int((before[mine] == label).sum()),
                taken_for=None if most is None else int(names[most]),
                times=0 if most is None else int(times[most]),
            )
        )
    return sorted(rows, key=lambda row: (row.right / row.videos, -row.videos, row.label))
