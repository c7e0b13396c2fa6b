"""When things go on in a video: the course of its clips over time as a few numbers, whatever clips were drawn.

Averages over clips forget their order. The low-order cosine coefficients of the same features keep it: the first says
how the first half differs from the second, the second how the middle differs from both ends, and so on.

Shapes: `N` videos, `V` clips a video, `W` numbers a clip, `K` moments.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["apply_fit", "fit_weights", "relative_times", "self_similarity", "time_moments"]

RIDGE = 0.025
"""Added to the variances of the cosines (1/2 each over evenly spread clips). Few clips, or clips that lie together, do
not tell the cosines apart; without it their noise would be blown up."""


STILL = 1e-10
"""Share of the clips' squares below which a course is none."""


def time_moments(values: Tensor, positions: Tensor, *, count: int, present: Tensor | None = None) -> Tensor:
    """Cosine coefficients of clip features over relative time.

        least squares of values - values.mean(1) on cos(pi * k * relative_times(positions)), k = 1 ... count

    A fit, and not a mean of products, because clips are drawn at random in training and evenly in tests: of a video
    whose features follow the first `count` cosines both give about the same coefficients. Differentiable in the values;
    one clip, or clips all at one time, give 0.

    Args:
        values: `[N, V, W]` floating.
        positions: `[N, V, 7]`, times last; in whatever form, since each video is taken over its own span.
        count: K, at least 1.
        present: bool `[N, V]`, clips that are there, at least one a video; None: all.

    Returns:
        `[N, K, W]`, fp32 (fp64 of fp64), inside autocast too.
    """
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    if present is not None:  # padding may hold anything
        values = values.masked_fill(~present[..., None], 0.0)
    positions = positions.to(torch.promote_types(positions.dtype, values.dtype))
    return apply_fit(fit_weights(positions, count=count, present=present), values)


def apply_fit(fit: Tensor, values: Tensor) -> Tensor:
    """`fit_weights` `[..., K, V]` and clips `[..., V, W]` -> `[..., K, W]`, fp32 (fp64 of fp64), in autocast too."""
    with torch.autocast(values.device.type, enabled=False):
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        return fit.to(values.dtype) @ values


def self_similarity(
    values: Tensor, positions: Tensor, *, count: int, present: Tensor | None = None
) -> Tensor:
    """When a video's clips are alike, whatever they are: inner products between its `time_moments`, of trace 1.

    Temporal self-similarity (Junejo et al., "View-Independent Action Recognition from Temporal Self-Similarities",
    TPAMI 2011), of cosine coefficients instead of frames, so that neither how many clips there are nor where they lie
    matters. Any rotation of the features leaves it as it is: of two videos in which different things go on at the same
    times it is much the same.

    Args:
        values, positions, count, present: as in `time_moments`.

    Returns:
        `[N, K (K + 1) / 2]`, upper triangle, row by row; 0 where the clips have no course.
    """
    moments = time_moments(values, positions, count=count, present=present)
    with torch.autocast(values.device.type, enabled=False):
        products = moments @ moments.mT
    row, column = torch.triu_indices(count, count, device=values.device)
    trace = products.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
    # Of a still video nothing but rounding is left, 1e-14 of the clips' squares: divided by itself it would look like
    # any other course.
    squares = values.to(trace.dtype).square()
    if present is not None:
        squares = squares.masked_fill(~present[..., None], 0.0)
    least = STILL * squares.sum((1, 2))[:, None] + torch.finfo(trace.dtype).tiny
    return products[:, row, column] / trace.clamp(min=least)


@torch.no_grad()
def fit_weights(positions: Tensor, *, count: int, present: Tensor | None = None) -> Tensor:
    """`[N, V, 7]` -> `[N, K, V]`, fp32 (fp64 of fp64), in autocast too: how much of each clip goes into each
    coefficient, 0 of padding.

    A row sums to 0, so that the mean of the clips need not be taken first.
    """
    order = torch.arange(1, count + 1, device=positions.device)
    waves = torch.cos(math.pi * relative_times(positions, present=present)[..., None] * order)
    clips: Tensor | int = waves.shape[1]
    absent = None if present is None else ~present[..., None]
    if absent is not None:
        waves, clips = waves.masked_fill(absent, 0.0), (~absent).sum(1, keepdim=True)
    waves = waves - waves.sum(1, keepdim=True) / clips
    if absent is not None:
        waves = waves.masked_fill(absent, 0.0)
    with torch.autocast(waves.device.type, enabled=False):
        products = waves.mT @ waves
    spread = products / clips + RIDGE * torch.eye(count, dtype=waves.dtype, device=waves.device)
    return _solve(spread, waves.mT / clips)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """`matrix ^ -1 @ right` of symmetric positive definite `[N, K, K]` and `[N, K, V]`, by elimination.

    `torch.linalg.solve` asks a GPU whether the matrix was singular, and the host waits for the answer, which a CUDA
    graph does not allow. K is small, and with the ridge no pivot is near 0.
    """
    rows = torch.cat([matrix, right], dim=2)
    for k in range(matrix.shape[1]):
        pivot = rows[:, k : k + 1] / rows[:, k : k + 1, k : k + 1]
        rows = rows - rows[:, :, k : k + 1] * pivot
        rows = torch.cat([rows[:, :k], pivot, rows[:, k + 1 :]], dim=1)
    return rows[:, :, matrix.shape[1] :]


def relative_times(positions: Tensor, *, present: Tensor | None = None) -> Tensor:
    """`[N, V, 7]` -> `[N, V]`: middle of each clip, 0 where the video's first clip begins, 1 where its last one ends.

    Where a video's clips all begin and end at one time, 0.
    """
    work = torch.promote_types(positions.dtype, torch.float32)
    begin, end = positions[..., 5].to(work), positions[..., 6].to(work)
    first, last = begin, end
    if present is not None:
        first, last = begin.masked_fill(~present, math.inf), end.masked_fill(~present, -math.inf)
    start = first.amin(1, keepdim=True)
    span = last.amax(1, keepdim=True) - start
    return torch.where(span > 0, ((begin + end) / 2 - start) / span, 0.0)
