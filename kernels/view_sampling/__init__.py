"""Drawing a step's two sets of clips a video from the bank of features.

Shapes: `N` videos in the bank, `C` clips a video, `D` feature, `B` videos in the batch, `V` clips a set.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..dispatch import checks_device_data, serves_triton
from ..philox import RandomState
from . import reference
from .reference import draw_views

__all__ = ["draw_views", "sample_views"]


def sample_views(
    bank: Tensor, positions: Tensor, rows: Tensor, *, views: int, rng: RandomState | Tensor
) -> tuple[Tensor, Tensor]:
    """Two disjoint random sets of V clips for each chosen video (METHOD: SCALE, clips per video).

    A pure function of (seed, step, row): the same views on any number of ranks and after a resume. On a GPU one kernel
    draws and copies, for videos of up to 512 clips; longer ones, and a bank that wants a gradient, are the
    reference's.

    Args:
        bank: [N, C, D] features, any floating dtype (kept).
        positions: [N, C, 7] clip positions.
        rows: int64 [B], rows of the bank, in any order.
        views: V, clips in each set; 2V <= C.
        rng: seed and step, as a state or as its int64 [2] tensor; a state's own `rows` are not used: `rows` above
            are the global ids.

    Returns:
        features [B, 2, V, D] and positions [B, 2, V, 7].

    Raises:
        ValueError: shapes, dtypes or devices do not fit; fewer than 2V clips; on CPU, and with SCALEFAST_CHECKS=1,
            also a row outside the bank (elsewhere the kernel makes NaN of it).
    """
    if bank.ndim != 3 or not bank.is_floating_point():
        raise ValueError(f"bank must be floating [N, C, D]; got {bank.shape = }, {bank.dtype = }")
    if positions.ndim != 3 or positions.shape[:2] != bank.shape[:2]:
        raise ValueError(f"positions must be {tuple(bank.shape[:2])} + (7,); got {positions.shape = }")
    if rows.ndim != 1 or rows.dtype != torch.int64:
        raise ValueError(f"rows must be int64 [B]; got {rows.shape = }, {rows.dtype = }")
    rng = RandomState.of(rng, rows)
    if views < 1 or 2 * views > bank.shape[1]:
        raise ValueError(
            f"two disjoint sets of {views = } clips need {2 * views} clips a video; "
            f"the bank has {bank.shape[1]}"
        )
    if not bank.device == positions.device == rows.device == rng.state.device:
        raise ValueError(
            f"all tensors must be on one device; got {bank.device = }, {positions.device = }, "
            f"{rows.device = }, {rng.state.device = }"
        )
    if checks_device_data(rows) and rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < len(bank):
        raise ValueError(f"rows must be in [0, {len(bank)}); got {int(rows.min())} to {int(rows.max())}")
    if serves_triton("sample_views", bank) and not _wants_gradient(bank, positions):
        from . import triton as fused

        if bank.shape[1] <= fused.MAX_CLIPS:
            return fused.sample_views(bank, positions, rows, views=views, state=rng.state)
    return reference.sample_views(bank, positions, rows, views=views, rng=rng)


def _wants_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
