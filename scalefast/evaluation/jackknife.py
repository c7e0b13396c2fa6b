"""How sure a number is that is no mean over videos: the jackknife, which leaves out one test video at a time.

A bootstrap draws videos twice, and NMI and ARI take two copies of a video for two that agree: resampled values lie
above the number itself. The jackknife draws nothing, so that nothing is repeated. Source: Efron and Tibshirani, "An
Introduction to the Bootstrap" (1993), chapter 11.

Legend: `M` test videos, `C` classes, `K` clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scalefast.errors import InputError
from scalefast.evaluation.clustering import contingency

__all__ = ["influences", "jackknife_error", "jackknife_interval", "normal_p_value"]

_WITHIN = 1.959964
"""Standard errors on either side of a 95% interval."""


def influences(measure: Callable[[NDArray[np.float64]], float], truth: Tensor, found: Tensor) -> Tensor:
    """What each video does to a measure of two partitions: fp64 `[M]`, M - 1 times how far it falls without the video,
    less the mean of that. Of a mean these are the values less their mean.

    Args:
        measure: of a contingency table `[C, K]`.
        truth: `[M]` int64.
        found: `[M]` int64.

    Raises:
        InputError: as `contingency`.
    """
    table = contingency(truth, found)
    if len(truth) < 2:
        return torch.zeros(len(truth), dtype=torch.float64)
    without = np.zeros_like(table)
    for cell in np.argwhere(table > 0):  # videos of one cell are alike
        fewer = table.copy()
        fewer[tuple(cell)] -= 1
        without[tuple(cell)] = measure(fewer[fewer.sum(1) > 0][:, fewer.sum(0) > 0])
    row, column = (np.unique(part.cpu().numpy(), return_inverse=True)[1] for part in (truth, found))
    each = without[row, column]
    return torch.from_numpy((len(each) - 1) * (each.mean() - each))


def jackknife_error(influence: Tensor, *, strata: Sequence[int] | None = None) -> float:
    """Standard error over the draw of the videos; infinite for a stratum of one video.

    Args:
        influence: `[M]`, as `influences` gives it, or the difference or mean of several on the same videos.
        strata: sizes of consecutive parts of the videos, each drawn for itself and counting the same. None: one part.

    Raises:
        InputError: no videos.
    """
    parts = influence.double().split(list(strata) if strata is not None else [len(influence)])
    if not len(influence):
        raise InputError("values must be [videos] with at least one video, got none")
    if min(map(len, parts)) < 2:
        return math.inf
    variance = sum(part.square().sum().item() / (len(part) * (len(part) - 1)) for part in parts)
    return math.sqrt(variance) / len(parts)


def jackknife_interval(value: float, error: float, *, least: float, most: float) -> tuple[float, float]:
    """95% interval around a value, within what the measure can be; infinite ends where the error is."""
    if math.isinf(error):
        return -math.inf, math.inf
    return max(value - _WITHIN * error, least), min(value + _WITHIN * error, most)


def normal_p_value(difference: float, error: float) -> float:
    """Two-sided p-value of "no difference" for a difference with this standard error, in (0, 1]."""
    if difference == 0 or error == 0 or math.isinf(error):
        return 1.0
    return max(math.erfc(abs(difference) / error / math.sqrt(2)), 1e-300)
