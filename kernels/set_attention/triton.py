"""Set attention on a GPU: how the kernels of `triton_kernels.py` are launched, and the custom ops that torch sees.

Sets of up to 128 tokens are packed into tiles of 64 or 128 rows, whole sets only, and a program attends within one tile
and one head. Nothing is saved for the backward pass but q, k and v.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from ..compilation import Shipped
from ..philox import RandomState, Site, dropout_limit, site_word
from .layout import SetLayout, most_tokens, tile_rows
from .triton_kernels import backward_kernel, forward_kernel

__all__ = ["MAX_HEAD_DIM", "packed_attention", "padded_attention", "shipped"]

MAX_HEAD_DIM = 128
_SITE = int(Site.ATTENTION_DROPOUT)


def padded_attention(
    q: Tensor, k: Tensor, v: Tensor, *, lengths: Tensor | None, dropout_p: float, rng: RandomState | None
) -> Tensor:
    """`reference.padded_attention` on [B, N, h, d] with N up to 128 (fp32: 64) and d up to 128, by any strides."""
    assert q.shape[1] <= most_tokens(q.dtype) and q.shape[3] <= MAX_HEAD_DIM
    state, rows, layer = _random(rng)
    return _forward(q, k, v, lengths, None, None, None, state, rows, q.shape[1], dropout_p, layer)


def packed_attention(
    q: Tensor, k: Tensor, v: Tensor, *, layout: SetLayout, dropout_p: float, rng: RandomState | None
) -> Tensor:
    """`reference.packed_attention` on [T, h, d], sets one behind the other."""
    assert layout.max_length <= most_tokens(q.dtype) and q.shape[2] <= MAX_HEAD_DIM
    state, rows, layer = _random(rng)
    tiles, owners = layout.tiles()
    longest = layout.max_length
    return _forward(q, k, v, None, tiles, owners, layout.offsets, state, rows, longest, dropout_p, layer)


def padded_attention_qkv(
    qkv: Tensor, *, lengths: Tensor | None, dropout_p: float, rng: RandomState | None
) -> Tensor:
    """`padded_attention` on one projection [B, N, 3, h, d], whose gradient is written in one piece."""
    state, rows, layer = _random(rng)
    return _forward_qkv(qkv, lengths, None, None, None, state, rows, qkv.shape[1], dropout_p, layer)


def packed_attention_qkv(
    qkv: Tensor, *, layout: SetLayout, dropout_p: float, rng: RandomState | None
) -> Tensor:
    """`packed_attention` on one projection [T, 3, h, d]."""
    state, rows, layer = _random(rng)
    tiles, owners = layout.tiles()
    longest = layout.max_length
    return _forward_qkv(qkv, None, tiles, owners, layout.offsets, state, rows, longest, dropout_p, layer)


def _random(rng: RandomState | None) -> tuple[Tensor | None, Tensor | None, int]:
    return (None, None, 0) if rng is None else (rng.state, rng.rows, rng.layer)


@torch.library.custom_op("scalefast::set_attention_forward", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    tiles: Tensor | None,
    owners: Tensor | None,
    offsets: Tensor | None,
    state: Tensor | None,
    rows: Tensor | None,
    longest: int,
    dropout_p: float,
    layer: int,
) -> Tensor:
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    launch = _Launch(q, lengths, tiles, owners, offsets, state, rows, longest, dropout_p, layer)
    launch(forward_kernel, (q, k, v), (out,), (q, k, v))
    return out


@_forward.register_fake
def _(q, k, v, lengths, tiles, owners, offsets, state, rows, longest, dropout_p, layer):
    return torch.empty(q.shape, dtype=q.dtype, device=q.device)


@torch.library.custom_op("scalefast::set_attention_backward", mutates_args=())
def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    tiles: Tensor | None,
    owners: Tensor | None,
    offsets: Tensor | None,
    state: Tensor | None,
    rows: Tensor | None,
    longest: int,
    dropout_p: float,
    layer: int,
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty(q.shape, dtype=q.dtype, device=q.device) for _ in range(3))
    launch = _Launch(q, lengths, tiles, owners, offsets, state, rows, longest, dropout_p, layer)
    launch(backward_kernel, (grad, q, k, v), (dq, dk, dv), (grad, q, k, v), (dq.shape[-2] * dq.shape[-1],))
    return dq, dk, dv


@_backward.register_fake
def _(grad, q, k, v, lengths, tiles, owners, offsets, state, rows, longest, dropout_p, layer):
    return tuple(torch.empty(q.shape, dtype=q.dtype, device=q.device) for _ in range(3))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:9])
    ctx.numbers = inputs[9:]


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(grad, *ctx.saved_tensors, *ctx.numbers), *[None] * 9)


_forward.register_autograd(_gradients, setup_context=_setup_context)


@torch.library.custom_op("scalefast::set_attention_qkv_forward", mutates_args=())
def _forward_qkv(
    qkv: Tensor,
    lengths: Tensor | None,
    tiles: Tensor | None,
    owners: Tensor | None,
    offsets: Tensor | None,
    state: Tensor | None,
    rows: Tensor | None,
    longest: int,
    dropout_p: float,
    layer: int,
) -> Tensor:
    q, k, v = qkv.unbind(-3)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    launch = _Launch(q, lengths, tiles, owners, offsets, state, rows, longest, dropout_p, layer)
    launch(forward_kernel, (q, k, v), (out,), (q, k, v))
    return out


@_forward_qkv.register_fake
def _(qkv, lengths, tiles, owners, offsets, state, rows, longest, dropout_p, layer):
    return torch.empty((*qkv.shape[:-3], *qkv.shape[-2:]), dtype=qkv.dtype, device=qkv.device)


@torch.library.custom_op("scalefast::set_attention_qkv_backward", mutates_args=())
def _backward_qkv(
    grad: Tensor,
    qkv: Tensor,
    lengths: Tensor | None,
    tiles: Tensor | None,
    owners: Tensor | None,
    offsets: Tensor | None,
    state: Tensor | None,
    rows: Tensor | None,
    longest: int,
    dropout_p: float,
    layer: int,
) -> Tensor:
    q, k, v = qkv.unbind(-3)
    out = torch.empty(qkv.shape, dtype=qkv.dtype, device=qkv.device)
    launch = _Launch(q, lengths, tiles, owners, offsets, state, rows, longest, dropout_p, layer)
    a_token = 3 * q.shape[-2] * q.shape[-1]
    launch(backward_kernel, (grad, q, k, v), out.unbind(-3), (grad, q, k, v), (a_token,))
    return out


@_backward_qkv.register_fake
def _(grad, qkv, lengths, tiles, owners, offsets, state, rows, longest, dropout_p, layer):
    return torch.empty(qkv.shape, dtype=qkv.dtype, device=qkv.device)


def _setup_context_qkv(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:7])
    ctx.numbers = inputs[7:]


def _gradients_qkv(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (_backward_qkv(grad, *ctx.saved_tensors, *ctx.numbers), *[None] * 9)


_forward_qkv.register_autograd(_gradients_qkv, setup_context=_setup_context_qkv)


@dataclass(frozen=True)
class _Launch:
    """One launch: what forward and backward share."""

    q: Tensor
    lengths: Tensor | None
    tiles: Tensor | None
    owners: Tensor | None
    offsets: Tensor | None
    state: Tensor | None
    rows: Tensor | None
    longest: int
    dropout_p: float
    layer: int

    def __call__(
        self,
        kernel: Any,
        read: tuple[Tensor, ...],
        written: tuple[Tensor, ...],
        strided: tuple[Tensor, ...],
        further: tuple[int, ...] = (),
    ) -> None:
        if self.q.numel() == 0:
            return
        heads, dim = self.q.shape[-2:]
        rows = tile_rows(self.longest)
        sets_a_tile = rows // self.longest
        if self.tiles is None:
            sets = self.q.shape[0]
            tiles = -(-sets // sets_a_tile)
        else:
            sets, tiles = 0, self.tiles.numel() - 1
        dropped = self.state is not None
        limit, keep_scale = dropout_limit(self.dropout_p) if dropped else (0, 1.0)
        constants, warps = _constants(
            self.longest, dim, self.q.dtype, packed=self.tiles is not None, dropped=dropped
        )
        optional = (self.lengths, self.tiles, self.owners, self.offsets, self.state, self.rows)
        with torch.cuda.device_of(self.q) if self.q.is_cuda else contextlib.nullcontext():
            kernel[(tiles * heads,)](
                *read,
                *written,
                *(None if t is None else t.contiguous() for t in optional),
                sets,
                self.longest,
                sets_a_tile,
                heads,
                dim,
                *(stride for t in strided for stride in _strides(t)),
                *further,
                1.0 / math.sqrt(dim),
                site_word(_SITE, self.layer),
                limit,
                keep_scale,
                **constants,
                num_warps=warps,
                num_stages=1,
                enable_fp_fusion=True,  # stated, since the default changes with Triton 3.10
            )


def _strides(t: Tensor) -> tuple[int, ...]:
    """Strides of set, token, head and dim; a packed tensor's sets lie nowhere in particular."""
    return t.stride() if t.ndim == 4 else (0, *t.stride())


def _constants(
    longest: int, dim: int, dtype: torch.dtype, *, packed: bool, dropped: bool
) -> tuple[dict[str, Any], int]:
    """What a kernel is compiled for, and its warps."""
    rows = tile_rows(longest)
    exact = dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    return {
        "TILE": rows,
        "DIM": max(16, triton.next_power_of_2(dim)),
        "PACKED": packed,
        "SINGLE": not packed and rows // longest == 1,
        "WORDS": -(-longest // 32) if dropped else 1,
        "BLOCKS": min(4, triton.next_power_of_2(-(-longest // 8))) if dropped else 1,
        "PRECISION": "ieee" if exact else "tf32",
        # Without tensor cores (exact fp32) a thread keeps whole rows of its operands: twice the warps, or it spills.
    }, rows // 16 * (2 if exact else 1)


_SHAPES = ((9, 8, 32), (17, 8, 64), (33, 4, 128), (128, 8, 64))
"""Tokens a set, heads and head dimension of the configurations that ship; the first two are the reference shapes."""


def shipped() -> list[Shipped]:
    """The configurations that are compiled ahead, with their budgets on sm_90."""
    out = []
    for longest, heads, dim in _SHAPES:
        for dropped in (False, True):
            for packed in (False, True) if longest == 9 else (False,):
                out += _shipped(longest, heads, dim, torch.bfloat16, packed=packed, dropped=dropped)
    for dtype in (torch.float16, torch.float32):
        out += _shipped(9, 8, 32, dtype, packed=False, dropped=True)
    return out


def _shipped(
    longest: int, heads: int, dim: int, dtype: torch.dtype, *, packed: bool, dropped: bool
) -> list[Shipped]:
    constants, warps = _constants(longest, dim, dtype, packed=packed, dropped=dropped)
    name = f"{longest} tokens, head dim {dim}, {str(dtype).removeprefix('torch.')}"
    name += (", packed" if packed else "") + (", dropout" if dropped else "")
    optional = (
        None,  # lengths
        *((torch.int64, torch.int32, torch.int64) if packed else (None, None, None)),
        *((torch.int64, torch.int64) if dropped else (None, None)),
    )
    sizes = (0 if packed else 1024, longest, constants["TILE"] // longest, heads, dim)
    width = heads * dim
    fused = (0 if packed else longest * 3 * width, 3 * width, dim, 1)  # q, k, v of one projection
    plain = (0 if packed else longest * width, width, dim, 1)
    limit, keep_scale = dropout_limit(0.1 if dropped else 0.0)
    last = (1.0 / math.sqrt(dim), site_word(_SITE, 0), limit, keep_scale)
    dots = constants["PRECISION"] != "ieee"
    small = dim <= 64 and dots
    # A head dimension of 128 and fp32 without tensor cores may spill; the shapes that this library trains may not.
    common = {"constants": constants, "num_warps": warps, "num_stages": 1, "dots": dots}
    forward = (*[dtype] * 4, *optional, *sizes, *fused * 3, *last)
    backward = (*[dtype] * 7, *optional, *sizes, *plain, *fused * 3, width, *last)
    spill = 0 if small else 1024
    return [
        Shipped(f"set_attention forward, {name}", forward_kernel, forward, max_spill_bytes=spill, **common),
        Shipped(
            f"set_attention backward, {name}", backward_kernel, backward, max_spill_bytes=spill, **common
        ),
    ]
