"""The kernels of the symmetric loss in one pass over the logits.

Shapes: `M` queries and as many keys, `D` feature, `S` parts of the columns, `R` blocks of rows.

Rows of q and k have length 1, so that no logit exceeds 1 / T. With that as the maximum of every row and every column at
once, e_ij = exp2((s_ij - 1) c) is the same number for both, where s_ij = q_i . k_j and c = log2(e) / T.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_kernels import load_own, load_tile

__all__ = ["meet_kernel", "pair_kernel", "sums_kernel"]


@triton.jit(do_not_specialize=["M", "first_row", "tiles"])
def sums_kernel(
    p_q, p_k, p_positives, p_own, p_temperature,
    p_row_sum, p_row_max, p_column_sum, p_column_max,
    M, D, first_row, tiles,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    EVEN_M: tl.constexpr, EVEN_N: tl.constexpr, EVEN_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sums of e and largest dots of a block of rows over one part of the columns, [S, M]; and of every column over that
    block, [R, M]. Blocks of rows count from `first_row`."""
    first = first_row + tl.program_id(0).to(tl.int64) * BLOCK_M
    part = tl.program_id(1)
    o_row, o_col, o_dim = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    o_m = first + o_row
    b_own, _ = load_own(p_positives, o_m, M)
    b_own_dot = tl.load(p_own + o_m, mask=o_m < M, other=0.0)
    b_q = load_tile(p_q + first * D, o_row, o_dim, M - first, D, EVEN_D)
    c = 1.4426950408889634 / tl.load(p_temperature)
    b_max = b_own_dot
    b_sum = tl.zeros([BLOCK_M], tl.float32)
    o_block = tl.program_id(0).to(tl.int64) * M
    begin = part * tiles * BLOCK_N
    for start in tl.range(begin, tl.minimum(begin + tiles * BLOCK_N, M), BLOCK_N):
        b_k = load_tile(p_k + tl.cast(start, tl.int64) * D, o_col, o_dim, M - start, D, EVEN_D)
        b_s = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION)
        b_s = tl.where(o_col[None, :] == (b_own - start)[:, None], b_own_dot[:, None], b_s)
        if not EVEN_N:
            b_s = tl.where((o_col < M - start)[None, :], b_s, float("-inf"))
        if not EVEN_M:
            b_s = tl.where((o_m < M)[:, None], b_s, float("-inf"))
        b_e = tl.exp2((b_s - 1.0) * c)
        b_sum += tl.sum(b_e, 1)
        b_max = tl.maximum(b_max, tl.max(b_s, 1))
        o_out = o_block + start + o_col
        tl.store(p_column_sum + o_out, tl.sum(b_e, 0), mask=start + o_col < M)
        tl.store(p_column_max + o_out, tl.max(b_s, 0), mask=start + o_col < M)
    o_out = part.to(tl.int64) * M + o_m
    tl.store(p_row_sum + o_out, b_sum, mask=o_m < M)
    tl.store(p_row_max + o_out, b_max, mask=o_m < M)


@triton.jit(do_not_specialize=["M", "row_parts", "column_parts"])
def meet_kernel(
    p_positives, p_own, p_temperature, p_row_sum, p_row_max, p_column_sum, p_column_max,
    p_loss, p_top1, p_logit, p_base,
    M, row_parts, column_parts,
    BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Each query with its key's column: loss of both directions, whether both find each other, both sums [2, M]."""
    o_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    m_row = o_m < M
    b_own, _ = load_own(p_positives, o_m, M)
    b_own_dot = tl.load(p_own + o_m, mask=m_row, other=0.0)
    scale = 1.0 / tl.load(p_temperature)
    b_row, b_column = tl.zeros([BLOCK_M], tl.float32), tl.zeros([BLOCK_M], tl.float32)
    b_max = b_own_dot
    for part in range(0, row_parts):
        o_part = tl.cast(part, tl.int64) * M + o_m
        b_row += tl.load(p_row_sum + o_part, mask=m_row, other=1.0)
        b_max = tl.maximum(b_max, tl.load(p_row_max + o_part, mask=m_row, other=0.0))
    for part in range(0, column_parts):
        o_part = tl.cast(part, tl.int64) * M + b_own
        b_column += tl.load(p_column_sum + o_part, mask=m_row, other=1.0)
        b_max = tl.maximum(b_max, tl.load(p_column_max + o_part, mask=m_row, other=0.0))
    b_logs = 0.34657359027997264 * (tl.log2(b_row) + tl.log2(b_column))  # ln 2 / 2
    tl.store(p_loss + o_m, (1.0 - b_own_dot) * scale + b_logs, mask=m_row)
    tl.store(p_top1 + o_m, b_own_dot >= b_max, mask=m_row)
    tl.store(p_logit + o_m, b_own_dot * scale, mask=m_row)
    tl.store(p_base + o_m, b_row, mask=m_row)
    tl.store(p_base + M + o_m, b_column, mask=m_row)


@triton.jit(do_not_specialize=["M", "tiles"])
def pair_kernel(
    p_x, p_y, p_own, p_weight, p_strength_x, p_strength_y, p_temperature,
    p_out,
    M, D, tiles,
    BLOCK_X: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_D: tl.constexpr,
    EVEN_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of a block of X by a loop over one part of Y; X are the queries and Y the keys, or the other way round.

    A logit's slope is e (strength_x + strength_y), half the weight over the row's sum and half over the column's,
    less the weight at the pair of X's own.
    """
    first = tl.program_id(0).to(tl.int64) * BLOCK_X
    part = tl.program_id(1)
    o_x, o_y, o_dim = tl.arange(0, BLOCK_X), tl.arange(0, BLOCK_Y), tl.arange(0, BLOCK_D)
    b_x = load_tile(p_x + first * D, o_x, o_dim, M - first, D, EVEN_D)
    m_x = first + o_x < M
    b_own, _ = load_own(p_own, first + o_x, M)
    b_weight = tl.load(p_weight + first + o_x, mask=m_x, other=0.0)
    b_strength_x = tl.load(p_strength_x + first + o_x, mask=m_x, other=0.0)
    scale = 1.0 / tl.load(p_temperature)
    c = 1.4426950408889634 * scale
    b_acc = tl.zeros([BLOCK_X, BLOCK_D], tl.float32)
    begin = part * tiles * BLOCK_Y
    for start in tl.range(begin, tl.minimum(begin + tiles * BLOCK_Y, M), BLOCK_Y):
        b_y = load_tile(p_y + tl.cast(start, tl.int64) * D, o_y, o_dim, M - start, D, EVEN_D)
        b_strength_y = tl.load(p_strength_y + start + o_y, mask=o_y < M - start, other=0.0)
        b_s = tl.dot(b_x, tl.trans(b_y), input_precision=PRECISION)
        b_slope = tl.exp2((b_s - 1.0) * c) * (b_strength_x[:, None] + b_strength_y[None, :])
        b_slope -= tl.where(o_y[None, :] == (b_own - start)[:, None], b_weight[:, None], 0.0)
        b_acc = tl.dot(b_slope.to(b_y.dtype), b_y, b_acc, input_precision=PRECISION)
    m_out = m_x[:, None] & (o_dim < D)[None, :]
    o_out = (part.to(tl.int64) * M + first) * D + o_x[:, None] * D + o_dim[None, :]
    tl.store(p_out + o_out, (b_acc * scale).to(p_out.dtype.element_ty), mask=m_out)
