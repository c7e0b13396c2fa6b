"""The device code of set embedding and of the gather of masked tokens.

Legend: a tile is `ROWS` tokens by `WIDTH` channels; `o_h` channels, `i_set` and `clip` where a token lies (slot 0 of a
set is CLS, slot 1 + v its clip v), `live` rows that exist, `inside` channels that exist. Row numbers are int32,
addresses int64. Everything here moves memory once and computes next to nothing.

Numbers that do not help the compiler (`do_not_specialize`) would only have it compile anew when a batch differs.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..philox import Site
from ..philox.triton import philox4

__all__ = [
    "draw_kernel",
    "count_kernel",
    "embed_backward_kernel",
    "embed_kernel",
    "place_kernel",
    "spread_kernel",
    "sum_kernel",
]

_MASK_SITE = tl.constexpr(int(Site.MASK))


@triton.jit(do_not_specialize=["threshold", "total", "clips"])
def draw_kernel(p_state, p_rows, p_drawn, threshold, total, clips, TOKENS: tl.constexpr):
    """Whether each clip is masked: its word is below `threshold`."""
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    live = token < total
    i_set = token // clips
    i_row = tl.load(p_rows + i_set, mask=live, other=0)
    word, _, _, _ = philox4(tl.load(p_state), tl.load(p_state + 1), i_row, _MASK_SITE, token - i_set * clips)
    tl.store(p_drawn + token, (word.to(tl.int64) < threshold).to(tl.uint8), mask=live)


@triton.jit(do_not_specialize=["threshold", "total", "clips"])
def embed_kernel(
    p_x,
    p_position,
    p_mask,
    p_mask_token,
    p_cls,
    p_out,
    p_state,
    p_rows,
    p_drawn,
    threshold,
    total,
    clips,
    width,
    x_set,
    x_clip,
    position_set,
    position_clip,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """`out[b, 0] = cls`, `out[b, 1 + v] = (mask[b, v] ? mask_token : x[b, v]) + position[b, v]`.

    With `p_state` the mask is drawn here and written to `p_drawn`; without `p_mask` too, nothing is masked.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    o_h = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    live, inside = row < total, o_h < width
    i_set = row // (clips + 1)
    clip = row - i_set * (clips + 1) - 1
    is_clip = live & (clip >= 0)
    i_token = i_set.to(tl.int64) * clips + clip
    wanted = is_clip
    masked = is_clip & (clip < 0)
    if p_state is not None:
        i_row = tl.load(p_rows + i_set, mask=live, other=0)
        word, _, _, _ = philox4(tl.load(p_state), tl.load(p_state + 1), i_row, _MASK_SITE, clip)
        masked = is_clip & (word.to(tl.int64) < threshold)
        tl.store(p_drawn + i_token, masked.to(tl.uint8), mask=is_clip & (tl.program_id(1) == 0))
        wanted = is_clip & (masked == 0)
    elif p_mask is not None:
        masked = tl.load(p_mask + i_token, mask=is_clip, other=0) != 0
        wanted = is_clip & (masked == 0)
    # A masked clip's features are not even read: a quarter of x at the usual ratio.
    p_x += i_set.to(tl.int64)[:, None] * x_set + clip[:, None].to(tl.int64) * x_clip + o_h[None, :]
    b_x = tl.load(p_x, mask=wanted[:, None] & inside[None, :], other=0.0)
    p_position += i_set.to(tl.int64)[:, None] * position_set + clip[:, None].to(tl.int64) * position_clip
    b_position = tl.load(p_position + o_h[None, :], mask=is_clip[:, None] & inside[None, :], other=0.0)
    # Rounded to x's dtype first, as the reference does, so that both agree to the bit.
    dtype = p_out.dtype.element_ty
    b_token = tl.load(p_mask_token + o_h, mask=inside, other=0.0).to(dtype).to(tl.float32)
    b_cls = tl.load(p_cls + o_h, mask=inside, other=0.0).to(dtype).to(tl.float32)
    b_out = tl.where(masked[:, None], b_token[None, :], b_x.to(tl.float32)) + b_position.to(dtype).to(
        tl.float32
    )
    b_out = tl.where((clip < 0)[:, None], b_cls[None, :], b_out)
    p_out += row.to(tl.int64)[:, None] * width + o_h[None, :]
    tl.store(p_out, b_out.to(dtype), mask=live[:, None] & inside[None, :])


@triton.jit(do_not_specialize=["total", "clips"])
def embed_backward_kernel(
    p_grad,
    p_mask,
    p_grad_x,
    p_grad_position,
    p_partial,
    total,
    clips,
    width,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Gradients of x and position (each if its pointer is there), and this program's share of the tokens' sums.

    `p_partial` is fp32 [programs, 2, width]: mask token, CLS. Programs take tiles in turn, as the shape alone
    decides.
    """
    o_h = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = o_h < width
    b_token = tl.zeros([ROWS, WIDTH], tl.float32)
    b_cls = tl.zeros([ROWS, WIDTH], tl.float32)
    for first in range(tl.program_id(0) * ROWS, total, tl.num_programs(0) * ROWS):
        row = first + tl.arange(0, ROWS)
        live = row < total
        i_set = row // (clips + 1)
        clip = row - i_set * (clips + 1) - 1
        is_clip = live & (clip >= 0)
        i_token = i_set.to(tl.int64) * clips + clip
        m_out = is_clip[:, None] & inside[None, :]
        p_row = p_grad + row.to(tl.int64)[:, None] * width + o_h[None, :]
        b_grad = tl.load(p_row, mask=live[:, None] & inside[None, :], other=0.0)
        o_out = i_token[:, None] * width + o_h[None, :]
        b_cls += tl.where((clip < 0)[:, None], b_grad.to(tl.float32), 0.0)
        if p_grad_position is not None:
            tl.store(p_grad_position + o_out, b_grad.to(p_grad_position.dtype.element_ty), mask=m_out)
        if p_mask is not None:
            masked = (tl.load(p_mask + i_token, mask=is_clip, other=0) != 0)[:, None]
            b_token += tl.where(masked, b_grad.to(tl.float32), 0.0)
            if p_grad_x is not None:
                tl.store(p_grad_x + o_out, tl.where(masked, 0.0, b_grad), mask=m_out)
        elif p_grad_x is not None:
            tl.store(p_grad_x + o_out, b_grad, mask=m_out)
    p_partial += tl.program_id(0).to(tl.int64) * 2 * width + o_h
    tl.store(p_partial, tl.sum(b_token, 0), mask=inside)
    tl.store(p_partial + width, tl.sum(b_cls, 0), mask=inside)


@triton.jit(do_not_specialize=["programs"])
def sum_kernel(p_partial, p_token, p_cls, programs, width, SHARES: tl.constexpr, COLUMNS: tl.constexpr):
    """Sums the programs' shares in their order: the mask token's gradient and CLS's, one a program of axis 1."""
    o_h = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = o_h < width
    p_partial += tl.program_id(1) * width + o_h[None, :]
    b_sum = tl.zeros([SHARES, COLUMNS], tl.float32)
    for first in range(0, programs, SHARES):
        share = first + tl.arange(0, SHARES)
        m = (share < programs)[:, None] & inside[None, :]
        b_sum += tl.load(p_partial + share.to(tl.int64)[:, None] * 2 * width, mask=m, other=0.0)
    total = tl.sum(b_sum, 0)
    if tl.program_id(1) == 0:
        tl.store(p_token + o_h, total.to(p_token.dtype.element_ty), mask=inside)
    else:
        tl.store(p_cls + o_h, total.to(p_cls.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["total"])
def count_kernel(p_mask, p_counts, total, CHUNK: tl.constexpr):
    """Masked tokens of each chunk: int32."""
    o = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    b_mask = tl.load(p_mask + o, mask=o < total, other=0)
    tl.store(p_counts + tl.program_id(0), tl.sum(b_mask.to(tl.int32), 0))


@triton.jit(do_not_specialize=["total", "clips", "capacity", "chunks", "blocks"])
def place_kernel(
    p_tokens,
    p_mask,
    p_counts,
    p_rows,
    p_index,
    p_count,
    p_rank,
    total,
    clips,
    width,
    capacity,
    chunks,
    blocks,
    tokens_set,
    tokens_clip,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """The first `blocks` programs copy the masked ones of ROWS tokens to their rank; the rest pad ROWS rows each.

    A token's rank is the masked tokens of earlier chunks, plus those before it in its own chunk. Every row has one
    writer.
    """
    i_block = tl.program_id(0)
    first_column = tl.program_id(1) == 0
    o_h = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = o_h < width
    o_chunk = tl.arange(0, CHUNK)
    if i_block < blocks:
        token = i_block * ROWS + tl.arange(0, ROWS)
        chunk = i_block * ROWS // CHUNK
        b_before = tl.zeros([CHUNK], tl.int32)
        for first in range(0, chunk, CHUNK):
            b_before += tl.load(p_counts + first + o_chunk, mask=first + o_chunk < chunk, other=0)
        o_own = chunk * CHUNK + o_chunk
        b_before += tl.load(p_mask + o_own, mask=o_own < i_block * ROWS, other=0).to(tl.int32)
        chosen = tl.load(p_mask + token, mask=token < total, other=0).to(tl.int32)
        rank = tl.sum(b_before, 0) + tl.cumsum(chosen, 0) - 1
        kept = (chosen != 0) & (rank < capacity)
        tl.store(p_index + rank, token.to(tl.int64), mask=kept & first_column)
        tl.store(p_rank + token, tl.where(kept, rank, -1), mask=(token < total) & first_column)
        i_set = token // clips
        o_token = i_set.to(tl.int64) * tokens_set + (token - i_set * clips).to(tl.int64) * tokens_clip
        m = kept[:, None] & inside[None, :]
        b_row = tl.load(p_tokens + o_token[:, None] + o_h[None, :], mask=m, other=0.0)
        tl.store(p_rows + rank.to(tl.int64)[:, None] * width + o_h[None, :], b_row, mask=m)
    else:
        b_count = tl.zeros([CHUNK], tl.int32)
        for first in range(0, chunks, CHUNK):
            b_count += tl.load(p_counts + first + o_chunk, mask=first + o_chunk < chunks, other=0)
        count = tl.sum(b_count, 0)
        row = (i_block - blocks) * ROWS + tl.arange(0, ROWS)
        padding = (row >= count) & (row < capacity)
        tl.store(p_index + row, tl.full([ROWS], -1, tl.int64), mask=padding & first_column)
        p_padding = p_rows + row.to(tl.int64)[:, None] * width + o_h[None, :]
        zeros = tl.zeros([ROWS, WIDTH], p_rows.dtype.element_ty)
        tl.store(p_padding, zeros, mask=padding[:, None] & inside[None, :])
        if (i_block == blocks) & first_column:
            tl.store(p_count, count)


@triton.jit(do_not_specialize=["total"])
def spread_kernel(p_grad, p_rank, p_out, total, width, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """The gather's gradient: every token takes the row of its rank, or zeros if it has none (-1)."""
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    o_h = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    live, inside = token < total, o_h < width
    rank = tl.load(p_rank + token, mask=live, other=-1)
    p_row = p_grad + rank.to(tl.int64)[:, None] * width + o_h[None, :]
    b_row = tl.load(p_row, mask=(rank >= 0)[:, None] & inside[None, :], other=0.0)
    p_out += token.to(tl.int64)[:, None] * width + o_h[None, :]
    tl.store(p_out, b_row, mask=live[:, None] & inside[None, :])
