"""Two disjoint random sets of clips a video in plain PyTorch: the specification.

Shapes: `N` videos in the bank, `C` clips a video, `D` feature, `B` videos in the batch, `V` clips a set.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..philox import RandomState, Site, uniform_bits

__all__ = ["draw_views", "sample_views"]


def draw_views(rng: RandomState, *, clips: int, views: int) -> Tensor:
    """Which clips: int64 [B, 2, V], distinct within a video.

    Every clip gets a Philox word (site VIEW, index = clip); the 2V smallest are taken, in order, ties by
    index: the first V are view 0, the next V view 1. That is a uniform draw without replacement.
    """
    words = uniform_bits(rng, site=Site.VIEW, count=clips)
    order = torch.argsort(words, dim=1, stable=True)
    return order[:, : 2 * views].reshape(-1, 2, views)


def sample_views(
    bank: Tensor, positions: Tensor, rows: Tensor, *, views: int, rng: RandomState
) -> tuple[Tensor, Tensor]:
    """`bank[rows[:, None, None], draw_views(...)]`; see the public function."""
    chosen = draw_views(rng.with_rows(rows), clips=bank.shape[1], views=views)
    video = rows[:, None, None]
    return bank[video, chosen], positions[video, chosen]
