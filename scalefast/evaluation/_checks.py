"""Checks that the classifiers share."""

from __future__ import annotations

import torch
from torch import Tensor

from scalefast.errors import InputError

__all__ = ["check_classification", "check_finite"]


def check_finite(values: Tensor, *, what: str) -> None:
    """Raise InputError if `values` holds NaN or infinity; `what` names them, with the first bad row."""
    if not values.is_floating_point():
        return
    bad = ~torch.isfinite(values).flatten(1).all(1) if values.ndim > 1 else ~torch.isfinite(values)
    if bad.any():
        first = int(bad.nonzero()[0])
        raise InputError(
            f"{what} must be finite, but {int(bad.sum())} of {len(values)} rows hold NaN or infinity "
            f"(first: row {first})"
        )


def check_classification(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor | None = None
) -> None:
    """Raise InputError unless features are finite `[N, D]`, `[M, D]` and labels int64 `[N]`, `[M]`."""
    splits = [("training", train_x, train_y), ("test", test_x, test_y)]
    for name, x, y in splits:
        if x.ndim != 2 or not x.is_floating_point():
            raise InputError(
                f"{name} features must be floating and of shape [videos, dim], got {x.shape = } {x.dtype = }"
            )
        if not len(x):
            raise InputError(f"the {name} split is empty: there is nothing to classify")
        if y is None:
            continue
        if y.ndim != 1 or len(y) != len(x) or y.dtype != torch.int64:
            raise InputError(
                f"{name} labels must be int64, one a video, got {y.shape = } {y.dtype = } for {len(x)} videos"
            )
        if int(y.min()) < 0:
            raise InputError(f"{name} labels must be class ids from 0 on, got {int(y.min())}")
    if train_x.shape[1] != test_x.shape[1]:
        raise InputError(
            f"training and test features must be of one width, got {train_x.shape[1]} and {test_x.shape[1]}"
        )
    for name, x, _ in splits:
        check_finite(x, what=f"{name} features")
