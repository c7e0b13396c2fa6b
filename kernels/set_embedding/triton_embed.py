"""Set embedding on a GPU: launches, and their registration with PyTorch.

Shapes: `B` sets, `V` clips a set, `H` width, `C` capacity.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from ..compilation.launch import Launch
from .triton_kernels import embed_backward_kernel, embed_kernel, sum_kernel
from .triton_tile import check_number, rows_along_last, tile_of

__all__ = ["backward_launches", "embed_drawn", "embed_launch", "embed_sets"]

_WARPS = 4
_ELEMENTS = 2048  # a tile: 16 elements a thread, two 16-byte loads in bf16
_BACKWARD_BYTES = 8192  # a tile: two 16-byte loads a thread
_BACKWARD_WARPS = 8
_PROGRAMS = 512  # that share the sums of the tokens' gradients; fixed, so that any GPU gives the same bits


# Embedding, forward


def embed_launch(
    x: Tensor,
    position: Tensor,
    mask: Tensor | None,
    mask_token: Tensor,
    cls_token: Tensor,
    *,
    state: Tensor | None = None,
    rows: Tensor | None = None,
    threshold: int = 0,
) -> tuple[Launch, Tensor, Tensor | None]:
    """The launch, the tokens and, if it is drawn, the mask (uint8)."""
    sets, clips, width = x.shape
    total = sets * (clips + 1)
    check_number(total, "tokens")
    x, position = rows_along_last(x), rows_along_last(position)
    out = torch.empty(sets, clips + 1, width, dtype=x.dtype, device=x.device)
    drawn = None if state is None else torch.empty(sets, clips, dtype=torch.uint8, device=x.device)
    tile = tile_of(width, _ELEMENTS)
    # A set without channels still has its mask drawn.
    columns = max(1, width) if drawn is not None else width
    launch = Launch(
        embed_kernel,
        (triton.cdiv(total, tile["ROWS"]), triton.cdiv(columns, tile["WIDTH"])),
        (
            x,
            position,
            None if mask is None else mask.contiguous().view(torch.uint8),
            mask_token.contiguous(),
            cls_token.contiguous(),
            out,
            state,
            None if rows is None else rows.contiguous(),
            drawn,
            threshold,
            total,
            clips,
            width,
            *x.stride()[:2],
            *position.stride()[:2],
        ),
        tile,
        _WARPS,
    )
    return launch, out, drawn


@torch.library.custom_op(
    "scalefast::embed_sets_forward",
    mutates_args=(),
    schema="(Tensor x, Tensor position, Tensor? mask, Tensor mask_token, Tensor cls_token) -> Tensor",
)
def _embed_forward(
    x: Tensor, position: Tensor, mask: Tensor | None, mask_token: Tensor, cls_token: Tensor
) -> Tensor:
    launch, out, _ = embed_launch(x, position, mask, mask_token, cls_token)
    launch.run()
    return out


@_embed_forward.register_fake
def _(x: Tensor, position: Tensor, mask: Tensor | None, mask_token: Tensor, cls_token: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1] + 1, x.shape[2])


@torch.library.custom_op(
    "scalefast::embed_drawn_forward",
    mutates_args=(),
    schema="(Tensor x, Tensor position, Tensor mask_token, Tensor cls_token, Tensor state, Tensor rows, int threshold)"
    " -> (Tensor, Tensor)",
)
def _drawn_forward(
    x: Tensor,
    position: Tensor,
    mask_token: Tensor,
    cls_token: Tensor,
    state: Tensor,
    rows: Tensor,
    threshold: int,
) -> tuple[Tensor, Tensor]:
    launch, out, drawn = embed_launch(
        x, position, None, mask_token, cls_token, state=state, rows=rows, threshold=threshold
    )
    assert drawn is not None
    launch.run()
    return out, drawn.view(torch.bool)


@_drawn_forward.register_fake
def _(
    x: Tensor,
    position: Tensor,
    mask_token: Tensor,
    cls_token: Tensor,
    state: Tensor,
    rows: Tensor,
    threshold: int,
) -> tuple[Tensor, Tensor]:
    sets, clips, width = x.shape
    return x.new_empty(sets, clips + 1, width), x.new_empty(sets, clips, dtype=torch.bool)


# Embedding, backward


def backward_launches(
    grad: Tensor,
    mask: Tensor | None,
    dtypes: tuple[torch.dtype, torch.dtype, torch.dtype],
    *,
    wants_x: bool,
    wants_position: bool,
) -> tuple[list[Launch], tuple[Tensor, Tensor, Tensor, Tensor]]:
    sets, slots, width = grad.shape
    total, device = sets * slots, grad.device
    grad = grad.contiguous()
    grad_x = torch.empty(_clips_of(grad, wants_x), dtype=grad.dtype, device=device)
    grad_position = torch.empty(_clips_of(grad, wants_position), dtype=dtypes[0], device=device)
    if not grad.numel():
        token, cls = (torch.zeros(width, dtype=d, device=device) for d in dtypes[1:])
        return [], (grad_x, grad_position, token, cls)
    token, cls = (torch.empty(width, dtype=d, device=device) for d in dtypes[1:])
    tile = tile_of(width, _BACKWARD_BYTES // grad.element_size())
    programs = min(_PROGRAMS, triton.cdiv(total, tile["ROWS"]))
    partial = torch.empty(programs, 2, width, dtype=torch.float32, device=device)
    shares = Launch(
        embed_backward_kernel,
        (programs, triton.cdiv(width, tile["WIDTH"])),
        (
            grad,
            None if mask is None else mask.contiguous().view(torch.uint8),
            grad_x if wants_x else None,
            grad_position if wants_position else None,
            partial,
            total,
            slots - 1,
            width,
        ),
        tile,
        _BACKWARD_WARPS,
    )
    sums = Launch(
        sum_kernel,
        (triton.cdiv(width, 32), 2),
        (partial, token, cls, programs, width),
        {"SHARES": 128, "COLUMNS": 32},
        _WARPS,
    )
    return [shares, sums], (grad_x, grad_position, token, cls)


@torch.library.custom_op(
    "scalefast::embed_sets_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor? mask, ScalarType position_dtype, ScalarType token_dtype, ScalarType cls_dtype, "
    "bool wants_x, bool wants_position) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _embed_backward(
    grad: Tensor,
    mask: Tensor | None,
    position_dtype: torch.dtype,
    token_dtype: torch.dtype,
    cls_dtype: torch.dtype,
    wants_x: bool,
    wants_position: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    launches, outputs = backward_launches(
        grad, mask, (position_dtype, token_dtype, cls_dtype), wants_x=wants_x, wants_position=wants_position
    )
    for launch in launches:
        launch.run()
    return outputs


@_embed_backward.register_fake
def _(
    grad: Tensor,
    mask: Tensor | None,
    position_dtype: torch.dtype,
    token_dtype: torch.dtype,
    cls_dtype: torch.dtype,
    wants_x: bool,
    wants_position: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        grad.new_empty(_clips_of(grad, wants_x)),
        grad.new_empty(_clips_of(grad, wants_position), dtype=position_dtype),
        grad.new_empty(grad.shape[2], dtype=token_dtype),
        grad.new_empty(grad.shape[2], dtype=cls_dtype),
    )


def _clips_of(grad: Tensor, wanted: bool) -> tuple[int, ...]:
    return (grad.shape[0], grad.shape[1] - 1, grad.shape[2]) if wanted else (0,)


def _backward(
    ctx: Any, grad: Tensor, mask: Tensor | None, needs: tuple[bool, bool]
) -> tuple[Tensor | None, ...]:
    """Gradients of x, position, mask token and CLS."""
    wants_x, wants_position = needs
    # Without a mask x and position have one gradient: it is written once.
    shared = mask is None and wants_x and wants_position and ctx.dtypes[0] == grad.dtype
    grad_x, grad_position, token, cls = torch.ops.scalefast.embed_sets_backward(
        grad, mask, *ctx.dtypes, wants_x and not shared, wants_position
    )
    grad_x = grad_position if shared else grad_x
    return (
        grad_x if wants_x else None,
        grad_position if wants_position else None,
        None if mask is None else token,
        cls,
    )


def _embed_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, position, mask, mask_token, cls_token = inputs
    ctx.save_for_backward(mask)
    ctx.dtypes = (position.dtype, mask_token.dtype, cls_token.dtype)


def _embed_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, position, token, cls = _backward(ctx, grad, ctx.saved_tensors[0], ctx.needs_input_grad[:2])
    return x, position, None, token, cls


def _drawn_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, position, mask_token, cls_token, _, _, _ = inputs
    ctx.save_for_backward(output[1])
    ctx.dtypes = (position.dtype, mask_token.dtype, cls_token.dtype)


def _drawn_gradients(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(ctx, grad, ctx.saved_tensors[0], ctx.needs_input_grad[:2]), None, None, None)


_embed_forward.register_autograd(_embed_gradients, setup_context=_embed_context)
_drawn_forward.register_autograd(_drawn_gradients, setup_context=_drawn_context)


# What the public functions call


def embed_sets(
    x: Tensor, position: Tensor, mask: Tensor | None, mask_token: Tensor, cls_token: Tensor
) -> Tensor:
    """`reference.embed_sets`, fused."""
    return torch.ops.scalefast.embed_sets_forward(x, position, mask, mask_token, cls_token)


def embed_drawn(
    x: Tensor,
    position: Tensor,
    mask_token: Tensor,
    cls_token: Tensor,
    *,
    state: Tensor,
    rows: Tensor,
    threshold: int,
) -> tuple[Tensor, Tensor]:
    """The same with the mask drawn in the kernel: tokens and mask, true where a clip's word is below `threshold`."""
    return torch.ops.scalefast.embed_drawn_forward(x, position, mask_token, cls_token, state, rows, threshold)
