"""The gather of masked tokens on a GPU: launches, and their registration with PyTorch.

Shapes: `B` sets, `V` clips a set, `H` width, `C` capacity.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from ..compilation.launch import Launch
from .triton_kernels import count_kernel, place_kernel, spread_kernel
from .triton_tile import check_number, rows_along_last, tile_of

__all__ = ["count_launch", "gather_masked", "place_launch", "spread_launch"]

_WARPS = 4
_ELEMENTS = 4096
_BACKWARD_ELEMENTS = 2048
_CHUNK = 1024  # tokens that are counted together


def count_launch(mask: Tensor) -> tuple[Launch, Tensor]:
    """Masked tokens of each chunk: int32 [chunks]."""
    total = mask.numel()
    chunks = triton.cdiv(total, _CHUNK)
    counts = torch.empty(max(1, chunks), dtype=torch.int32, device=mask.device)
    mask = mask.contiguous().view(torch.uint8)
    return Launch(count_kernel, (chunks,), (mask, counts, total), {"CHUNK": _CHUNK}, _WARPS), counts


def place_launch(
    tokens: Tensor, mask: Tensor, counts: Tensor | None = None, *, capacity: int
) -> tuple[Launch, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Rows, index, count and each token's rank (int32 [B V], -1 = not in the rows)."""
    sets, clips, width = tokens.shape
    total, device = sets * clips, tokens.device
    tokens, mask = rows_along_last(tokens), mask.contiguous().view(torch.uint8)
    counts = torch.empty(1, dtype=torch.int32, device=device) if counts is None else counts
    rows = torch.empty(capacity, width, dtype=tokens.dtype, device=device)
    index = torch.empty(capacity, dtype=torch.int64, device=device)
    count = torch.empty(1, dtype=torch.int32, device=device)
    rank = torch.empty(total, dtype=torch.int32, device=device)
    tile = tile_of(width, _ELEMENTS)
    tile["ROWS"] = min(tile["ROWS"], 64)  # divides _CHUNK, so that a block of tokens lies in one chunk
    blocks = triton.cdiv(total, tile["ROWS"])
    launch = Launch(
        place_kernel,
        (blocks + triton.cdiv(capacity, tile["ROWS"]), triton.cdiv(max(1, width), tile["WIDTH"])),
        (
            tokens,
            mask,
            counts,
            rows,
            index,
            count,
            rank,
            total,
            clips,
            width,
            capacity,
            triton.cdiv(total, _CHUNK),
            blocks,
            *tokens.stride()[:2],
        ),
        tile | {"CHUNK": _CHUNK},
        _WARPS,
    )
    return launch, (rows, index, count, rank)


def spread_launch(grad: Tensor, rank: Tensor, *, sets: int, clips: int) -> tuple[Launch, Tensor]:
    """The tokens' gradient [B, V, H] of the rows' [C, H]."""
    total, width = len(rank), grad.shape[1]
    out = torch.empty(sets, clips, width, dtype=grad.dtype, device=grad.device)
    tile = tile_of(width, _BACKWARD_ELEMENTS)
    grid = (triton.cdiv(total, tile["ROWS"]), triton.cdiv(width, tile["WIDTH"]))
    return Launch(spread_kernel, grid, (grad.contiguous(), rank, out, total, width), tile, _WARPS), out


@torch.library.custom_op(
    "scalefast::gather_masked_forward",
    mutates_args=(),
    schema="(Tensor tokens, Tensor mask, SymInt capacity) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _gather_forward(tokens: Tensor, mask: Tensor, capacity: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_number(max(mask.numel(), capacity), "tokens, and capacity,")
    count, counts = count_launch(mask)
    place, outputs = place_launch(tokens, mask, counts, capacity=capacity)
    count.run()
    place.run()
    return outputs


@_gather_forward.register_fake
def _(tokens: Tensor, mask: Tensor, capacity: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        tokens.new_empty(capacity, tokens.shape[2]),
        tokens.new_empty(capacity, dtype=torch.int64),
        tokens.new_empty(1, dtype=torch.int32),
        tokens.new_empty(tokens.shape[0] * tokens.shape[1], dtype=torch.int32),
    )


@torch.library.custom_op(
    "scalefast::gather_masked_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor rank, SymInt sets, SymInt clips) -> Tensor",
)
def _gather_backward(grad: Tensor, rank: Tensor, sets: int, clips: int) -> Tensor:
    launch, out = spread_launch(grad, rank, sets=sets, clips=clips)
    launch.run()
    return out


@_gather_backward.register_fake
def _(grad: Tensor, rank: Tensor, sets: int, clips: int) -> Tensor:
    return grad.new_empty(sets, clips, grad.shape[1])


def _context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(output[3])
    ctx.sets, ctx.clips = inputs[0].shape[:2]


def _gradients(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    rank = ctx.saved_tensors[0]
    return torch.ops.scalefast.gather_masked_backward(grad, rank, ctx.sets, ctx.clips), None, None


_gather_forward.register_autograd(_gradients, setup_context=_context)


def gather_masked(tokens: Tensor, mask: Tensor, *, capacity: int) -> tuple[Tensor, Tensor, Tensor]:
    """`reference.gather_masked` with a capacity, fused."""
    rows, index, count, _ = torch.ops.scalefast.gather_masked_forward(tokens, mask, capacity)
    return rows, index, count
