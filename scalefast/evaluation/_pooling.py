"""A video's clips as one row: their mean, standard deviation and largest value, padding left out.

Legend: `N` videos, `V` clips a video, `W` numbers a clip.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scalefast.calibration import masked_mean, masked_std
from scalefast.kernels.ops.native import serves_native
from scalefast.kernels.ops.native.calls import moments

__all__ = ["clip_rows", "masked_max", "pool_moments", "present_clips"]


def present_clips(features: Tensor, lengths: Tensor | None) -> Tensor | None:
    """Bool `[B, V]`: clips that are there; None if all are."""
    if lengths is None:
        return None
    return torch.arange(features.shape[1], device=features.device) < lengths[:, None]


def clip_rows(values: Tensor, present: Tensor | None) -> Tensor:
    """`[B, V, W]` -> the rows of the clips that are there, fp32 `[R, W]`."""
    return (values.flatten(0, 1) if present is None else values[present]).float()


def pool_moments(values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """`[N, V, W]` -> mean, standard deviation and largest value over the clips that are there, `[N, W]` each."""
    if serves_native(values) and values.numel() and values.stride()[1:] == (values.shape[2], 1):
        return moments(values, lengths)
    present = present_clips(values, lengths)
    return masked_mean(values, present), masked_std(values, present), masked_max(values, present)


def masked_max(values: Tensor, present: Tensor | None) -> Tensor:
    """`[N, W]`: largest value over the clips that are there."""
    if present is None:
        return values.float().amax(1)
    return values.float().masked_fill(~present[..., None], -torch.inf).amax(1)
