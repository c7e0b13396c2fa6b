"""Philox inside Triton kernels: the same words and the same dropped numbers as `reference.py`, bit for bit.

Other ops call these functions inside their kernels, so that no mask is ever read from memory.

    state = tl.load(p_state), tl.load(p_state + 1)                # seed and step, int64
    w0, w1, w2, w3 = philox4(seed, step, row, site, index)        # one block: 128 bits
    keep = dropout_keep(seed, step, row, site, number, limit)     # any numbers: a block each
    keep = dropout_keep8(seed, step, row, site, block, limit)     # 8 neighbours: a block for all 8

`site` is the word that `site_word` makes of site and layer, `limit` what `dropout_limit` makes of p: both on the host.
The dropout of activations, a kernel of its own, is here too.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..compilation import Shipped
from ..compilation.launch import Launch
from . import Site, dropout_limit, site_word

__all__ = ["dropout", "dropout_keep", "dropout_keep8", "dropout_lanes8", "philox4", "shipped"]

_BLOCKS = 256  # of 8 numbers, a program: two 16-byte loads a thread in bf16


@triton.jit
def philox4(seed, step, row, site, index):
    """Four uint32 for each counter (index, site, row, step) under the key `seed`.

    `seed` and `step` are int64 scalars; `row` and `index` are integers of any width or sign, scalars or tensors that
    broadcast (their low 32 bits count); `site` is an integer. All four words have the broadcast shape.
    """
    seed64 = tl.cast(seed, tl.uint64)
    key_0 = seed64.to(tl.uint32)
    key_1 = (seed64 >> 32).to(tl.uint32)
    a = tl.cast(index, tl.uint32)
    b = tl.cast(site, tl.uint32)
    c = tl.cast(row, tl.uint32)
    d = tl.cast(step, tl.uint32)
    for _ in tl.static_range(10):
        # One 32 x 32 -> 64 multiplication gives both halves.
        p = a.to(tl.uint64) * 0xD2511F53
        q = c.to(tl.uint64) * 0xCD9E8D57
        a = (q >> 32).to(tl.uint32) ^ b ^ key_0
        b = q.to(tl.uint32)
        c = (p >> 32).to(tl.uint32) ^ d ^ key_1
        d = p.to(tl.uint32)
        key_0 += 0x9E3779B9
        key_1 += 0xBB67AE85
    return a, b, c, d


@triton.jit
def dropout_keep(seed, step, row, site, number, limit):
    """Whether each number of a set is kept (not dropped): bool of the broadcast shape of `row` and `number`.

    Every number costs a whole block here, so this is for scattered numbers; `dropout_keep8` costs an eighth for
    neighbours.
    """
    w0, w1, w2, w3 = philox4(seed, step, row, site, number // 8)
    lane = number % 8
    word = tl.where(lane < 4, tl.where(lane < 2, w0, w1), tl.where(lane < 6, w2, w3)).to(
        tl.int32, bitcast=True
    )
    half = tl.where(lane % 2 == 0, word << 16, word) >> 16  # arithmetic shift: the half as two's complement
    return half >= limit


@triton.jit
def dropout_lanes8(seed, step, row, site, block):
    """The 8 numbers of each block as int32 in [-2^15, 2^15): [..., 2, 2, 2], in order.

    `row` and `block` broadcast to the leading shape [..., K]; `tl.reshape(lanes, [..., 8 * K])` puts numbers side by
    side.
    """
    w0, w1, w2, w3 = philox4(seed, step, row, site, block)
    # The last join runs fastest: [..., word div 2, word mod 2, half].
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3)).to(tl.int32, bitcast=True)
    return tl.join((words << 16) >> 16, words >> 16)


@triton.jit
def dropout_keep8(seed, step, row, site, block, limit):
    """Whether each of the 8 numbers of each block is kept: bool [..., 2, 2, 2], as `dropout_lanes8` orders them."""
    return dropout_lanes8(seed, step, row, site, block) >= limit


# Dropout of activations in one pass: read, draw, write. The same kernel on the gradient is the backward pass: drawing
# the mask again costs less than saving and reading it.


@triton.jit(do_not_specialize=["site", "limit", "numbers", "blocks", "total"])
def dropout_kernel(
    p_x,
    p_out,
    p_state,
    p_rows,
    site,
    limit,
    scale,
    numbers,
    blocks,
    total,
    ALIGNED: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """`out = x * (keep ? scale : 0)` for `total` blocks of 8 numbers, `blocks` a set of `numbers`."""
    i_block = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    i_set = i_block // blocks
    block = i_block - i_set * blocks
    live = i_block < total
    i_row = tl.load(p_rows + i_set, mask=live, other=0)
    keep = dropout_keep8(tl.load(p_state), tl.load(p_state + 1), i_row, site, block, limit)
    b_scale = tl.where(tl.reshape(keep, [BLOCKS, 8]), scale, 0.0)
    lane = tl.arange(0, 8)[None, :]
    m = live[:, None] & (block[:, None] * 8 + lane < numbers)
    if ALIGNED:  # sets follow each other without a gap in a block of 8, so loads are of 16 bytes
        m = live[:, None] & (lane < 8)
        o = i_block.to(tl.int64)[:, None] * 8 + lane
    else:
        o = i_set.to(tl.int64)[:, None] * numbers + block[:, None] * 8 + lane
    b_x = tl.load(p_x + o, mask=m, other=0.0).to(tl.float32)
    tl.store(p_out + o, (b_x * b_scale).to(p_out.dtype.element_ty), mask=m)


def _launch(x: Tensor, state: Tensor, rows: Tensor, site: int, p: float) -> tuple[Launch, Tensor]:
    sets = len(rows)
    numbers = x.numel() // max(1, sets)
    blocks = triton.cdiv(numbers, 8)
    total = sets * blocks
    if total >= 1 << 30 or blocks >= 1 << 28:
        raise ValueError(f"dropout takes fewer than 2^33 numbers, and 2^31 in a set; got {tuple(x.shape)}")
    x = x.contiguous()
    out = torch.empty_like(x)
    limit, scale = dropout_limit(p)
    # Rounded as the reference rounds it, so that the results agree to the bit.
    scale = torch.tensor(scale, dtype=x.dtype, device="cpu").item()
    launch = Launch(
        dropout_kernel,
        (triton.cdiv(total, _BLOCKS),),
        (x, out, state, rows.contiguous(), site, limit, scale, numbers, blocks, total),
        {"ALIGNED": numbers % 8 == 0, "BLOCKS": _BLOCKS},
        num_warps=4,
    )
    return launch, out


@torch.library.custom_op(
    "scalefast::dropout",
    mutates_args=(),
    schema="(Tensor x, Tensor state, Tensor rows, SymInt site, float p) -> Tensor",
)
def _dropout(x: Tensor, state: Tensor, rows: Tensor, site: int, p: float) -> Tensor:
    launch, out = _launch(x, state, rows, site, p)
    launch.run()
    return out


@_dropout.register_fake
def _(x: Tensor, state: Tensor, rows: Tensor, site: int, p: float) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, state, rows, ctx.site, ctx.p = inputs
    ctx.save_for_backward(state, rows)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.scalefast.dropout(grad, *ctx.saved_tensors, ctx.site, ctx.p), None, None, None, None


_dropout.register_autograd(_gradients, setup_context=_context)


def dropout(x: Tensor, *, state: Tensor, rows: Tensor, site: int, p: float) -> Tensor:
    """`x * dropout_multiplier(...)`, fused; `site` is the counter's word."""
    return torch.ops.scalefast.dropout(x, state, rows, site, p)


def shipped() -> list[Shipped]:
    """512 sets of 17 tokens of 512 (three dtypes), and a set whose numbers are no multiple of 8."""
    found = []
    for dtype, width in (
        (torch.bfloat16, 512),
        (torch.float16, 512),
        (torch.float32, 512),
        (torch.bfloat16, 385),
    ):
        x = torch.empty(512, 17, width, dtype=dtype, device="meta")
        state, rows = (torch.empty(n, dtype=torch.int64, device="meta") for n in (2, 512))
        launch, _ = _launch(x, state, rows, site_word(Site.HIDDEN_DROPOUT, 0), 0.1)
        name = f"dropout, 512 x 17 x {width} {str(dtype)[6:]}"
        found.append(launch.shipped(name, max_registers=96))
    return found
