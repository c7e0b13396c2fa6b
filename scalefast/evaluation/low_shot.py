"""Low-shot classification: which training videos keep their labels.

Legend: `N` training videos.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from scalefast.errors import InputError

__all__ = ["DRAWS", "SHOTS", "draw_shots"]

SHOTS: dict[str, float | int] = {
    "1pct": 0.01,
    "5pct": 0.05,
    "10pct": 0.1,
    "25pct": 0.25,
    "1_per_class": 1,
    "5_per_class": 5,
    "10_per_class": 10,
}
"""Name of a row of the table, and the share (float) or number (int) of a class's training videos."""

DRAWS = 5
"""Draws of the labelled videos whose accuracies are averaged."""


def draw_shots(labels: Tensor, shots: float | int, *, draw: int, seed: int = 0) -> Tensor:
    """Mark the training videos that keep their labels: `[N]` int64 -> `[N]` bool.

    Every class keeps the first videos of a shuffle of its own (numpy's Philox, keyed by seed and draw), so that the
    videos of fewer shots are among those of more. (The paper takes the first x% of each class, one draw.)

    Args:
        labels: class ids.
        shots: float in (0, 1]: share of each class, rounded, at least one video. int: videos of each class, all
            of a class that has fewer.
        draw: number of the draw.
        seed: of all draws.

    Raises:
        InputError: a share outside (0, 1], fewer than one video, or a negative draw.
    """
    share = isinstance(shots, float)
    if draw < 0 or not (0 < shots <= 1 if share else shots >= 1):
        raise InputError(
            f"shots must be a share in (0, 1] or a whole number of videos from 1 on, and draw 0 or more, "
            f"got {shots = } {draw = }"
        )
    random = np.random.Generator(np.random.Philox(key=[seed, draw]))
    names = labels.cpu().numpy()
    kept = np.zeros(len(names), dtype=bool)
    for name in np.unique(names):
        members = np.flatnonzero(names == name)
        count = max(1, math.floor(shots * len(members) + 0.5)) if share else int(shots)
        kept[members[random.permutation(len(members))[:count]]] = True
    return torch.from_numpy(kept).to(labels.device)
