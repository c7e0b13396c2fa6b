"""Set attention on a GPU: how the kernels of `triton_kernels.py` are launched, and the custom ops that torch sees.

Sets of up to 128 tokens are packed into tiles of 64 or 128 rows, whole sets only, and a program attends within one tile
and one head. Nothing is saved for the backward pass but q, k and v.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import triton
from torch import Tensor

from ..compilation import Shipped
from ..compilation.launch import Launch
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


# The custom ops. `tiles`, `owners` and `offsets` are those of a `SetLayout`, or None for padded sets; dropout is drawn
# from `state` and `rows`. One backward op serves both forms: it writes the gradients of q, k and v side by side.


@torch.library.custom_op("scalefast::set_attention_forward", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor,
    lengths: Tensor | None, tiles: Tensor | None, owners: Tensor | None, offsets: Tensor | None,
    state: Tensor | None, rows: Tensor | None, longest: int, dropout_p: float, layer: int,
) -> Tensor:  # fmt: skip
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    where = (lengths, tiles, owners, offsets, state, rows)
    _launch(forward_kernel, (q, k, v), (out,), where, longest, dropout_p, layer).run()
    return out


@_forward.register_fake
def _(q, k, v, lengths, tiles, owners, offsets, state, rows, longest, dropout_p, layer):
    return torch.empty(q.shape, dtype=q.dtype, device=q.device)


@torch.library.custom_op("scalefast::set_attention_qkv_forward", mutates_args=())
def _forward_qkv(
    qkv: Tensor,
    lengths: Tensor | None, tiles: Tensor | None, owners: Tensor | None, offsets: Tensor | None,
    state: Tensor | None, rows: Tensor | None, longest: int, dropout_p: float, layer: int,
) -> Tensor:  # fmt: skip
    q, k, v = qkv.unbind(-3)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    where = (lengths, tiles, owners, offsets, state, rows)
    _launch(forward_kernel, (q, k, v), (out,), where, longest, dropout_p, layer).run()
    return out


@_forward_qkv.register_fake
def _(qkv, lengths, tiles, owners, offsets, state, rows, longest, dropout_p, layer):
    return torch.empty((*qkv.shape[:-3], *qkv.shape[-2:]), dtype=qkv.dtype, device=qkv.device)


@torch.library.custom_op("scalefast::set_attention_backward", mutates_args=())
def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor,
    lengths: Tensor | None, tiles: Tensor | None, owners: Tensor | None, offsets: Tensor | None,
    state: Tensor | None, rows: Tensor | None, longest: int, dropout_p: float, layer: int,
) -> Tensor:  # fmt: skip
    """[..., 3, h, d]: the gradients of q, k and v of each token."""
    out = torch.empty((*q.shape[:-2], 3, *q.shape[-2:]), dtype=q.dtype, device=q.device)
    where = (lengths, tiles, owners, offsets, state, rows)
    _launch(backward_kernel, (grad, q, k, v), out.unbind(-3), where, longest, dropout_p, layer).run()
    return out


@_backward.register_fake
def _(grad, q, k, v, lengths, tiles, owners, offsets, state, rows, longest, dropout_p, layer):
    return torch.empty((*q.shape[:-2], 3, *q.shape[-2:]), dtype=q.dtype, device=q.device)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, longest, dropout_p, layer = inputs
    ctx.save_for_backward(*tensors)
    ctx.numbers = (longest, dropout_p, layer)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(grad, *ctx.saved_tensors, *ctx.numbers).unbind(-3), *[None] * 9)


def _gradient_qkv(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    qkv, *where = ctx.saved_tensors
    return (_backward(grad, *qkv.unbind(-3), *where, *ctx.numbers), *[None] * 9)


_forward.register_autograd(_gradients, setup_context=_save)
_forward_qkv.register_autograd(_gradient_qkv, setup_context=_save)


def _launch(
    kernel: Any, read: tuple[Tensor, ...], written: tuple[Tensor, ...], where: tuple[Tensor | None, ...],
    longest: int, dropout_p: float, layer: int,
) -> Launch:  # fmt: skip
    """The launch of either kernel: `read` is q, k, v, in the backward pass behind the gradient of the output.

    The forward kernel writes its output contiguously; the backward kernel is told how far the tokens of dq, dk and dv
    lie apart, each of h d numbers side by side.
    """
    q = read[-1]
    _, tiles, _, _, state, _ = where
    heads, dim = q.shape[-2:]
    sets_a_tile = tile_rows(longest) // max(1, longest)
    sets, count = (q.shape[0], -(-q.shape[0] // sets_a_tile)) if tiles is None else (0, tiles.numel() - 1)
    limit, keep_scale = (0, 1.0) if state is None else dropout_limit(dropout_p)
    constants, warps = _constants(longest, dim, q.dtype, packed=tiles is not None, dropped=state is not None)
    apart = (written[0].stride(-3),) if kernel is backward_kernel else ()
    return Launch(
        kernel,
        (count * heads if q.numel() else 0,),
        (
            *read,
            *written,
            *(None if t is None else t.contiguous() for t in where),
            sets,
            longest,
            sets_a_tile,
            heads,
            dim,
            *(stride for t in read for stride in _strides(t)),
            *apart,
            1.0 / math.sqrt(dim),
            site_word(_SITE, layer),
            limit,
            keep_scale,
        ),
        constants,
        warps,
    )


def _strides(t: Tensor) -> tuple[int, ...]:
    """Strides of set, token, head and dim; a packed tensor's sets lie nowhere in particular."""
    return t.stride() if t.ndim == 4 else (0, *t.stride())


def _tensor_cores(dtype: torch.dtype) -> bool:
    return dtype != torch.float32 or torch.get_float32_matmul_precision() != "highest"


def _constants(
    longest: int, dim: int, dtype: torch.dtype, *, packed: bool, dropped: bool
) -> tuple[dict[str, Any], int]:
    """What a kernel is compiled for, and its warps."""
    rows = tile_rows(longest)
    exact = not _tensor_cores(dtype)
    return {
        "TILE": rows,
        "DIM": max(16, triton.next_power_of_2(dim)),
        "PACKED": packed,
        "SINGLE": not packed and rows // max(1, longest) == 1,
        "WORDS": -(-longest // 32) if dropped else 1,
        "BLOCKS": min(4, triton.next_power_of_2(-(-longest // 8))) if dropped else 1,
        "PRECISION": "ieee" if exact else "tf32",
        # Without tensor cores (exact fp32) a thread keeps whole rows of its operands: twice the warps, or it spills.
    }, rows // 16 * (2 if exact else 1)


_SHAPES = ((9, 8, 32), (17, 8, 64), (33, 4, 128), (128, 8, 64))
"""Tokens a set, heads and head dimension of the configurations that ship; the first two are the reference shapes."""


def shipped() -> list[Shipped]:
    """The configurations that are compiled ahead, with their budgets on sm_90, made by the code that launches."""
    out: list[Shipped] = []
    for longest, heads, dim in _SHAPES:
        for dropped in (False, True):
            for packed in (False, True) if longest == 9 else (False,):
                out += _shipped(longest, heads, dim, torch.bfloat16, packed=packed, dropped=dropped)
    for dtype in (torch.float16, torch.float32):
        out += _shipped(9, 8, 32, dtype, packed=False, dropped=True)
    return out


def _shipped(
    longest: int, heads: int, dim: int, dtype: torch.dtype, *, packed: bool, dropped: bool
) -> Iterator[Shipped]:
    name = f"{longest} tokens, head dim {dim}, {str(dtype).removeprefix('torch.')}"
    name += (", packed" if packed else "") + (", dropout" if dropped else "")
    with torch.device("meta"):
        whole = torch.empty(*((1024 * longest,) if packed else (1024, longest)), 3, heads, dim, dtype=dtype)
        numbers = torch.empty(1025, dtype=torch.int64)
        where = (
            None,  # lengths
            *((numbers, numbers.to(torch.int32), numbers) if packed else (None, None, None)),
            *((numbers, numbers) if dropped else (None, None)),
        )
        q, k, v = whole.unbind(-3)
        grad = torch.empty(q.shape, dtype=dtype)
    numbers_of = (where, longest, 0.1 if dropped else 0.0, 0)
    dots = _tensor_cores(dtype)
    # A head dimension of 128 and fp32 without tensor cores may spill; the shapes that this library trains may not.
    budget: dict[str, Any] = {"max_spill_bytes": 0 if dim <= 64 and dots else 1024, "dots": dots}
    forward = _launch(forward_kernel, (q, k, v), (grad,), *numbers_of)
    backward = _launch(backward_kernel, (grad, q, k, v), whole.unbind(-3), *numbers_of)
    yield forward.shipped(f"set_attention forward, {name}", **budget)
    yield backward.shipped(f"set_attention backward, {name}", **budget)
