"""The seven numbers that say where in its video a clip lies: (flip, h0, w0, h1, w1, t0, t1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from scalefast.errors import InputError
from scalefast.video._meta import VideoMeta
from scalefast.video._sampling import ClipSpec

__all__ = ["PositionMode", "clip_positions", "normalize_positions"]

PositionMode = Literal["paper", "seconds", "fraction"]


def clip_positions(specs: Sequence[ClipSpec], meta: VideoMeta) -> npt.NDArray[np.float32]:
    """Raw positions float32 [N, 7]: flip (1 mirrored, -1 not), box edges as fractions of the frame, seconds.

    The box is the one in the upright frame, before mirroring.
    """
    rows = np.empty((len(specs), 7), dtype=np.float64)
    for row, spec in zip(rows, specs, strict=True):
        top, left, height, width = spec.box
        edges = (
            top / meta.height,
            left / meta.width,
            (top + height) / meta.height,
            (left + width) / meta.width,
        )
        row[:] = (1.0 if spec.flip else -1.0, *edges, spec.t0, spec.t1)
    return rows.astype(np.float32)


def normalize_positions(
    raw: npt.ArrayLike, *, mode: PositionMode = "paper", duration: float | None = None
) -> npt.NDArray[np.float32]:
    """Raw positions of one video's clips as the aggregator takes them, float32 [N, 7].

    Args:
        raw: [N, 7] as `clip_positions` gives it.
        mode: paper: the released code's; h0 and h1 are mapped so that the video's own clips together reach
            from 0 to 1, likewise w and t, so that a clip's length relative to the span survives and
            absolute duration is lost. seconds: left as they are. fraction: times divided by `duration`.
        duration: seconds that the video lasts, for `"fraction"`.

    Raises:
        InputError: another shape, an unknown mode, or no duration where one is needed.
    """
    rows = np.array(raw, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != 7:
        raise InputError(f"expected raw positions [N, 7], got {rows.shape = }")
    if mode == "fraction":
        if duration is None or not duration > 0:
            raise InputError(f"mode 'fraction' needs the video's duration in seconds, got {duration = }")
        rows[:, 5:] /= duration
    elif mode == "paper":
        for low, high in ((1, 3), (2, 4), (5, 6)):
            _stretch(rows, low=low, high=high)
    elif mode != "seconds":
        raise InputError(f"expected mode 'paper', 'seconds' or 'fraction', got {mode!r}")
    return rows.astype(np.float32)


def _stretch(rows: npt.NDArray[np.float64], *, low: int, high: int) -> None:
    """Map column `low`'s minimum to 0 and column `high`'s maximum to 1, both columns alike; in place."""
    if len(rows) == 0:
        return
    start = rows[:, low].min()
    span = rows[:, high].max() - start
    rows[:, [low, high]] = (rows[:, [low, high]] - start) / (span if span > 0 else 1.0)
