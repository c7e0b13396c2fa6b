"""A step's mask, drawn in one kernel: the reference's Philox is some eighty small ones on a GPU."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from ..compilation.launch import Launch
from .triton_kernels import draw_kernel
from .triton_tile import check_number

__all__ = ["draw_launch", "draw_mask"]

_TOKENS = 256  # a program; two a thread


def draw_launch(state: Tensor, rows: Tensor, *, clips: int, threshold: int) -> tuple[Launch, Tensor]:
    """The launch and the mask [B, V] (uint8)."""
    total = len(rows) * clips
    drawn = torch.empty(len(rows), clips, dtype=torch.uint8, device=rows.device)
    arguments = (state, rows.contiguous(), drawn, threshold, total, clips)
    grid = (triton.cdiv(total, _TOKENS),)
    return Launch(draw_kernel, grid, arguments, {"TOKENS": _TOKENS}, num_warps=4), drawn


@torch.library.custom_op(
    "scalefast::draw_mask",
    mutates_args=(),
    schema="(Tensor state, Tensor rows, SymInt clips, int threshold) -> Tensor",
)
def _draw(state: Tensor, rows: Tensor, clips: int, threshold: int) -> Tensor:
    check_number(len(rows) * clips, "tokens")
    launch, drawn = draw_launch(state, rows, clips=clips, threshold=threshold)
    launch.run()
    return drawn.view(torch.bool)


@_draw.register_fake
def _(state: Tensor, rows: Tensor, clips: int, threshold: int) -> Tensor:
    return rows.new_empty(rows.shape[0], clips, dtype=torch.bool)


def draw_mask(state: Tensor, rows: Tensor, *, clips: int, threshold: int) -> Tensor:
    """Bool [B, V]: a clip is masked if its word is below `threshold`."""
    return torch.ops.scalefast.draw_mask(state, rows, clips, threshold)
