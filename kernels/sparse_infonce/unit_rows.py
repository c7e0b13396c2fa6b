"""Rows divided by their L2 norm, and the backward pass, each one kernel: `F.normalize(x, dim=1)`.

Shapes: `R` rows, `D` feature. Sums are fp32; the rows come out in the dtype in which they came.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..compilation.launch import Launch
from .launches import Tiles, launch_of

__all__ = ["unit_launches", "unit_rows"]

EPSILON = 1e-12
"""Norms below it count as it, as in `F.normalize`."""


@triton.jit(do_not_specialize=["R"])
def unit_kernel(
    p_x, p_out, p_inverse, R, D,
    BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr, EPSILON: tl.constexpr,
):  # fmt: skip
    o_r = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    b_square = tl.zeros([BLOCK_R], tl.float32)
    for start in range(0, D, BLOCK_D):
        o_d = start + tl.arange(0, BLOCK_D)
        m_tile = (o_r < R)[:, None] & (o_d < D)[None, :]
        b_x = tl.load(p_x + o_r[:, None] * D + o_d[None, :], mask=m_tile, other=0.0).to(tl.float32)
        b_square += tl.sum(b_x * b_x, 1)
    b_inverse = 1.0 / tl.maximum(tl.sqrt(b_square), EPSILON)
    tl.store(p_inverse + o_r, b_inverse, mask=o_r < R)
    for start in range(0, D, BLOCK_D):
        o_d = start + tl.arange(0, BLOCK_D)
        m_tile = (o_r < R)[:, None] & (o_d < D)[None, :]
        b_x = tl.load(p_x + o_r[:, None] * D + o_d[None, :], mask=m_tile, other=0.0).to(tl.float32)
        b_out = (b_x * b_inverse[:, None]).to(p_out.dtype.element_ty)
        tl.store(p_out + o_r[:, None] * D + o_d[None, :], b_out, mask=m_tile)


@triton.jit(do_not_specialize=["R"])
def unit_backward_kernel(
    p_grad, p_x, p_inverse, p_out, R, D,
    BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr, EPSILON: tl.constexpr,
):  # fmt: skip
    """(g - u (u . g)) / |x| with u = x / |x|; g / EPSILON where the norm was raised to it."""
    o_r = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    b_inverse = tl.load(p_inverse + o_r, mask=o_r < R, other=1.0)
    b_along = tl.zeros([BLOCK_R], tl.float32)
    for start in range(0, D, BLOCK_D):
        o_d = start + tl.arange(0, BLOCK_D)
        m_tile = (o_r < R)[:, None] & (o_d < D)[None, :]
        b_x = tl.load(p_x + o_r[:, None] * D + o_d[None, :], mask=m_tile, other=0.0).to(tl.float32)
        b_g = tl.load(p_grad + o_r[:, None] * D + o_d[None, :], mask=m_tile, other=0.0).to(tl.float32)
        b_along += tl.sum(b_x * b_inverse[:, None] * b_g, 1)
    b_along = tl.where(b_inverse < 1.0 / EPSILON, b_along, 0.0)
    for start in range(0, D, BLOCK_D):
        o_d = start + tl.arange(0, BLOCK_D)
        m_tile = (o_r < R)[:, None] & (o_d < D)[None, :]
        b_x = tl.load(p_x + o_r[:, None] * D + o_d[None, :], mask=m_tile, other=0.0).to(tl.float32)
        b_g = tl.load(p_grad + o_r[:, None] * D + o_d[None, :], mask=m_tile, other=0.0).to(tl.float32)
        b_out = (b_g - b_x * (b_inverse * b_along)[:, None]) * b_inverse[:, None]
        tl.store(p_out + o_r[:, None] * D + o_d[None, :], b_out.to(p_out.dtype.element_ty), mask=m_tile)


def _launch(name: str, kernel: Any, tensors: tuple[Tensor, ...], x: Tensor) -> Launch:
    rows, dim = x.shape
    block_dim = min(1024, triton.next_power_of_2(dim))
    block_rows = max(1, 2048 // block_dim)
    constants = {"BLOCK_R": block_rows, "BLOCK_D": block_dim, "EPSILON": EPSILON}
    return launch_of(
        f"{name}, {str(x.dtype)[6:]} {rows} x {dim}",
        kernel,
        (triton.cdiv(rows, block_rows),),
        (*tensors, rows, dim),
        constants,
        Tiles(block_rows, 1, 4, 1),
    )


def _forward_launch(x: Tensor, out: Tensor, inverse: Tensor) -> Launch:
    return _launch("unit rows", unit_kernel, (x, out, inverse), x)


def _backward_launch(grad: Tensor, x: Tensor, inverse: Tensor, out: Tensor) -> Launch:
    return _launch("unit rows backward", unit_backward_kernel, (grad, x, inverse, out), x)


def unit_launches(x: Tensor) -> tuple[Launch, Launch]:
    """Both kernels as they run on such rows: what ships."""
    inverse = x.new_empty(len(x), dtype=torch.float32)
    return _forward_launch(x, x, inverse), _backward_launch(x, x, inverse, x)


@torch.library.custom_op("scalefast::unit_rows", mutates_args=())
def _unit(x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.contiguous()
    out, inverse = torch.empty_like(x), torch.empty(len(x), dtype=torch.float32, device=x.device)
    _forward_launch(x, out, inverse).run()
    return out, inverse


@_unit.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device), x.new_empty(x.shape[0], dtype=torch.float32)


@torch.library.custom_op("scalefast::unit_rows_backward", mutates_args=())
def _unit_backward(grad: Tensor, x: Tensor, inverse: Tensor) -> Tensor:
    grad, x = grad.contiguous(), x.contiguous()
    out = torch.empty_like(x)
    _backward_launch(grad, x, inverse, out).run()
    return out


@_unit_backward.register_fake
def _(grad: Tensor, x: Tensor, inverse: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _save(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(inputs[0], output[1])


def _backpropagate(ctx: Any, grad: Tensor, _: Tensor | None) -> Tensor:
    return _unit_backward(grad, *ctx.saved_tensors)


_unit.register_autograd(_backpropagate, setup_context=_save)


def unit_rows(x: Tensor) -> Tensor:
    """[R, D] with every row divided by its norm, in x's dtype; R > 0, D > 0."""
    return _unit(x)[0]
