"""When things go on in a video: the course of its clips over time as a few numbers, whatever clips were drawn.

Averages over clips forget their order. The low-order cosine coefficients of the same features keep it: the first says
how the first half differs from the second, the second how the middle differs from both ends, and so on.

Shapes: `N` videos, `V` clips a video, `W` numbers a clip, `K` moments.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["relative_times", "time_moments"]

RIDGE = 0.025
"""Added to the variances of the cosines (1/2 each over evenly spread clips). Few clips, or clips that lie together, do
not tell the cosines apart; without it their noise would be blown up."""


def time_moments(values: Tensor, positions: Tensor, *, count: int, present: Tensor | None = None) -> Tensor:
    """Cosine coefficients of clip features over relative time.

        least squares of values - values.mean(1) on cos(pi * k * relative_times(positions)), k = 1 ... count

    A fit, and not a mean of products, because clips are drawn at random in training and evenly in tests: of a video
    whose features follow the first `count` cosines both give about the same coefficients. Differentiable; one clip, or
    clips all at one time, give 0.

    Args:
        values: `[N, V, W]` floating.
        positions: `[N, V, 7]`, times last; in whatever form, since each video is taken over its own span.
        count: K, at least 1.
        present: bool `[N, V]`, clips that are there, at least one a video; None: all.

    Returns:
        `[N, K, W]`, fp32 (fp64 of fp64).
    """
    work = torch.promote_types(values.dtype, torch.float32)
    order = torch.arange(1, count + 1, device=values.device)
    waves = torch.cos(math.pi * relative_times(positions, present=present)[..., None] * order).to(work)
    values = values.to(work)
    clips: Tensor | int = values.shape[1]
    if present is not None:
        kept = present[..., None]
        clips = kept.sum(1, keepdim=True)
        values, waves = values.masked_fill(~kept, 0.0), waves.masked_fill(~kept, 0.0)
    waves = waves - waves.sum(1, keepdim=True) / clips
    if present is not None:
        waves = waves.masked_fill(~present[..., None], 0.0)
    # The waves are centred, so that the values need not be.
    spread = waves.mT @ waves / clips + RIDGE * torch.eye(count, dtype=work, device=values.device)
    # Solved for V columns, not for W: a tenth of the time of 2,048 videos' vectors otherwise.
    return torch.linalg.solve(spread, waves.mT / clips) @ values


def relative_times(positions: Tensor, *, present: Tensor | None = None) -> Tensor:
    """`[N, V, 7]` -> `[N, V]`: middle of each clip, 0 where the video's first clip begins, 1 where its last one ends.

    Where a video's clips all begin and end at one time, 0.
    """
    begin, end = positions[..., 5].float(), positions[..., 6].float()
    first, last = begin, end
    if present is not None:
        first, last = begin.masked_fill(~present, math.inf), end.masked_fill(~present, -math.inf)
    start = first.amin(1, keepdim=True)
    span = last.amax(1, keepdim=True) - start
    return torch.where(span > 0, ((begin + end) / 2 - start) / span, 0.0)
