"""Check and convert the arrays that a user brings to `FeatureStore.create`.

Shapes: `N` videos, `V` clips of a video (`V_i` where they differ), `D` feature dimension, `T` clips in all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from scalefast.errors import InputError

__all__ = [
    "Sets",
    "check_classes",
    "check_finite",
    "check_ids",
    "check_labels",
    "check_provenance",
    "even_positions",
]

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_FLOAT_NAMES = "float16, bfloat16, float32 or float64"


def _as_tensor(value: Any, name: str) -> torch.Tensor:
    """A CPU tensor from a tensor, a numpy array or nested lists; floating dtypes only."""
    if not isinstance(value, torch.Tensor):
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise InputError(f"{name}: not an array: {error}") from None
        if array.dtype.name == "bfloat16":  # ml_dtypes, as JAX gives it
            value = torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
        elif array.dtype.kind == "f" and array.dtype.itemsize <= 8:
            # A copy: torch takes neither read-only memory nor the other byte order.
            value = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
        else:
            raise InputError(f"{name}: {array.dtype = }, expected {_FLOAT_NAMES}")
    if value.dtype not in _FLOATS:
        raise InputError(f"{name}: {value.dtype = }, expected {_FLOAT_NAMES}")
    return value.detach().cpu()


class Sets:
    """Features or positions of N videos: one array `[N, V, W]`, or a sequence of N arrays `[V_i, W]`.

    Args:
        value: tensor, numpy array, an array of another store, or a sequence of them; floating, dtype kept.
        name: for messages, for example `"features"`.

    Raises:
        InputError: another shape or dtype, no video, an empty set, or rows that do not agree.
    """

    def __init__(self, value: Any, *, name: str) -> None:
        self.name = name
        if isinstance(value, np.ndarray) and value.dtype == object:
            value = list(value)
        whole = hasattr(value, "shape") and hasattr(value, "dtype")
        if not whole and not isinstance(value, Sequence):
            raise InputError(
                f"{name}: expected an array [N, V, W] or a list of [V_i, W], got {type(value).__name__}"
            )
        self._value: Any = value
        self._whole = whole
        if len(value) == 0:
            raise InputError(f"{name}: no video: an empty array or list")
        if whole:
            self._check_whole()
        else:
            self._value = [_as_tensor(item, f"{name}[{row}]") for row, item in enumerate(value)]
            self._check_list()

    def _check_whole(self) -> None:
        shape = tuple(self._value.shape)
        if len(shape) != 3 or 0 in shape:
            raise InputError(
                f"{self.name}.shape = {shape}, expected [N, V, W]: videos, clips of a video, width"
            )
        self.lengths = [shape[1]] * shape[0]
        self.width = shape[2]
        self.dtype = self.part(0, 1).dtype

    def _check_list(self) -> None:
        first = self._value[0]
        for row, item in enumerate(self._value):
            if item.ndim != 2 or 0 in item.shape:
                raise InputError(
                    f"{self.name}[{row}].shape = {tuple(item.shape)}, expected [V_i, W], V_i at least 1"
                )
            if item.shape[1] != first.shape[1] or item.dtype != first.dtype:
                raise InputError(
                    f"{self.name}[{row}] is {item.dtype} of width {item.shape[1]}, "
                    f"{self.name}[0] is {first.dtype} of width {first.shape[1]}: all rows must agree"
                )
        self.lengths = [len(item) for item in self._value]
        self.width = first.shape[1]
        self.dtype = first.dtype

    def part(self, start: int, stop: int) -> torch.Tensor:
        """Clips of videos `start` to `stop` (exclusive): [t, W]."""
        if self._whole:
            return _as_tensor(self._value[start:stop], self.name).reshape(-1, self._value.shape[2])
        return torch.cat(self._value[start:stop])

    def check_like(self, other: Sets) -> None:
        """Refuse sets whose lengths are not those of `other`."""
        if self.lengths == other.lengths:
            return
        if len(self.lengths) != len(other.lengths):
            raise InputError(
                f"{self.name} hold {len(self.lengths)} videos, {other.name} hold {len(other.lengths)}"
            )
        row = next(
            row
            for row, pair in enumerate(zip(self.lengths, other.lengths, strict=True))
            if pair[0] != pair[1]
        )
        raise InputError(
            f"row {row}: {self.name} hold {self.lengths[row]} clips, {other.name} hold {other.lengths[row]}"
        )


def check_finite(
    values: torch.Tensor, *, lengths: Sequence[int], ids: Sequence[str], first_row: int, name: str
) -> None:
    """Refuse NaN and infinity in `values` [t, W], the clips of videos with these lengths and ids.

    Raises:
        InputError: names the row (counted from `first_row`), the id, the clip and the column of the first
            one.
    """
    finite = torch.isfinite(values)
    if bool(finite.all()):
        return
    clip, column = (int(place) for place in (~finite).nonzero()[0])
    ends = np.cumsum(np.asarray(lengths))
    row = int(np.searchsorted(ends, clip, side="right"))
    inside = clip - int(ends[row]) + int(lengths[row])
    what = "NaN" if bool(torch.isnan(values[clip, column])) else "infinity"
    raise InputError(
        f"{name} of row {first_row + row} (id {ids[row]!r}): {what} at clip {inside}, column {column}; "
        "expected finite numbers"
    )


def check_ids(ids: Any, *, rows: int) -> list[str]:
    """`rows` different strings; integers are written in decimal; None gives the row numbers.

    Raises:
        InputError: another number of ids, another type, or two that are equal (both rows named).
    """
    if ids is None:
        return [str(row) for row in range(rows)]
    if isinstance(ids, str | bytes):
        raise InputError(f"ids: expected a list of {rows} strings, got one {type(ids).__name__}")
    if len(ids) != rows:
        raise InputError(f"ids: {len(ids)} of them for {rows} videos")
    out: list[str] = []
    seen: dict[str, int] = {}
    for row, value in enumerate(ids.tolist() if isinstance(ids, torch.Tensor | np.ndarray) else ids):
        if isinstance(value, bool) or not isinstance(value, str | int | np.integer):
            raise InputError(f"ids[{row}] = {value!r}: expected a string (or an integer)")
        text = str(value)
        if text in seen:
            raise InputError(f"ids[{row}] = {text!r} is also the id of row {seen[text]}: ids must differ")
        seen[text] = row
        out.append(text)
    return out


def check_classes(classes: Any) -> list[str] | None:
    """Names of the classes, in the order of their numbers."""
    if classes is None:
        return None
    names = list(classes)
    for number, name in enumerate(names):
        if not isinstance(name, str):
            raise InputError(f"classes[{number}] = {name!r}: expected a string")
    return [str(name) for name in names]


def check_labels(labels: Any, *, rows: int, classes: Sequence[str] | None) -> torch.Tensor | None:
    """Labels as int64 [N], float32 [N] or [N, K], or multi-hot [N, C] of bool, uint8, int64 or float32.

    Other integer and floating dtypes become int64 and float32.

    Raises:
        InputError: another shape or dtype, a class number outside `classes`, or a multi-hot entry that is not
            0 or 1.
    """
    if labels is None:
        return None
    if not isinstance(labels, torch.Tensor):
        array = np.asarray(labels)
        if array.dtype.kind not in "biuf":
            raise InputError(
                f"labels: {array.dtype = }, expected int64, float32 or multi-hot (no text, no missing values)"
            )
        if array.dtype.kind in "iu" and array.dtype != np.uint8:
            array = array.astype(np.int64)
        labels = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    labels = labels.detach().cpu()
    if labels.is_floating_point():
        labels = labels.to(torch.float32)
        if not bool(torch.isfinite(labels).all()):
            raise InputError(
                f"labels of row {int((~torch.isfinite(labels)).nonzero()[0, 0])}: not a finite number"
            )
    elif labels.ndim == 1 or labels.dtype not in (torch.bool, torch.uint8):
        labels = labels.to(torch.int64)
    if labels.ndim not in (1, 2) or len(labels) != rows:
        raise InputError(f"{labels.shape = }, expected [{rows}] or [{rows}, number of classes]")
    if labels.ndim == 2 and not labels.is_floating_point():
        odd = (labels != 0) & (labels != 1)
        if bool(odd.any()):
            raise InputError(f"labels of row {int(odd.nonzero()[0, 0])}: multi-hot labels hold 0 and 1 only")
    if classes is not None:
        _check_range(labels, len(classes))
    return labels


def _check_range(labels: torch.Tensor, classes: int) -> None:
    if labels.ndim == 2 and labels.shape[1] != classes and not labels.is_floating_point():
        raise InputError(f"{labels.shape = }, but there are {classes} classes")
    if labels.ndim == 1 and labels.dtype == torch.int64:
        odd = (labels < 0) | (labels >= classes)
        if bool(odd.any()):
            row = int(odd.nonzero()[0, 0])
            raise InputError(
                f"labels[{row}] = {int(labels[row])}: expected 0 to {classes - 1}, the numbers of the classes"
            )


def check_provenance(provenance: Any) -> dict[str, Any]:
    """A JSON object, as it comes back from JSON.

    Raises:
        InputError: not a dict, or something in it that JSON cannot hold.
    """
    if provenance is None:
        return {}
    if not isinstance(provenance, dict):
        raise InputError(f"provenance: expected a dict, got {type(provenance).__name__}")
    try:
        loaded = json.loads(json.dumps(provenance, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"provenance: cannot be written as JSON: {error}") from None
    assert isinstance(loaded, dict)
    return loaded


def even_positions(lengths: Sequence[int]) -> torch.Tensor:
    """Positions for features that come without: clip i of V sees the whole frame, unflipped, from i/V to
    (i+1)/V.

    Returns:
        float32 [T, 7]: flip -1, h0 0, w0 0, h1 1, w1 1, t0, t1.
    """
    parts = []
    for length in lengths:
        time = torch.arange(length + 1, dtype=torch.float64) / length
        rows = torch.tensor([-1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]).repeat(length, 1)
        rows[:, 5], rows[:, 6] = time[:-1].float(), time[1:].float()
        parts.append(rows)
    return torch.cat(parts)
