"""The clips of some videos as one batch, padded where the videos have different numbers of them."""

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["VideoSets", "pad"]


class VideoSets(NamedTuple):
    """The clips of some videos, ready for `scalefast.SCALE`."""

    features: torch.Tensor
    """[B, V, D]; where the sets differ in length, V is the longest of these and the rest is zero."""
    positions: torch.Tensor
    """[B, V, 7], padded likewise."""
    lengths: torch.Tensor
    """int64 [B]: clips of each video."""


def pad(flat: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """[t, W] and bool [B, V] with t true entries -> [B, V, W] with zeros elsewhere."""
    out = flat.new_zeros(*present.shape, flat.shape[-1])
    out[present] = flat
    return out
