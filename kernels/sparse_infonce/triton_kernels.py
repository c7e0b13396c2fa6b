"""The kernels of `sparse_infonce`, and the functions that they share.

Shapes: `M` queries, `N` keys, `D` feature, `S` parts into which the keys (or queries) of a loop are split.

Dots stay raw until the end: with s_ij = q_i . k_j and c = log2(e) / T a probability is exp2((s_ij - max) c), and the
comparison for top-1 is one between raw dots. The backward pass needs `base` [2, M]: a row's largest dot, and log2 of
its sum of exp2. Their sum as one number would lose the last bits of a large logit.

`GROUPS` is 0 (none), 1 (keys of the query's group are left out) or 2 (they are positives). `SHIFT` moves fp16
probabilities up by a power of two before they become a dot's operand: unmoved, those under 6e-8 would be 0.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["combine_kernel", "positive_kernel", "query_kernel", "row_kernel", "slope_kernel"]


@triton.jit
def load_tile(p_rows, o_rows, o_dim, rows_left, D, EVEN_D: tl.constexpr):
    """Rows `o_rows` counted from the pointer, 0 beyond `rows_left` and D."""
    m_tile = o_rows[:, None] < rows_left
    if not EVEN_D:
        m_tile = m_tile & (o_dim[None, :] < D)
    return tl.load(p_rows + o_rows[:, None] * D + o_dim[None, :], mask=m_tile, other=0.0)


@triton.jit
def load_own(p_positives, o_m, M):
    """Key of each query (0 for a row without one, whose results are dropped), and whether it has one."""
    b_own = tl.load(p_positives + o_m, mask=o_m < M, other=-1)
    return tl.maximum(b_own, 0).to(tl.int32), b_own >= 0


@triton.jit(do_not_specialize=["M", "N"])
def positive_kernel(
    p_q, p_k, p_positives, p_own,
    M, N, D,
    BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, EVEN_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Dot of each query with its own key: the diagonal of a tile, so that the tensor core rounds as in `row_kernel`."""
    first = tl.program_id(0).to(tl.int64) * BLOCK_M
    o_row, o_dim = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    b_own, _ = load_own(p_positives, first + o_row, M)
    b_q = load_tile(p_q + first * D, o_row, o_dim, M - first, D, EVEN_D)
    m_k = (first + o_row < M)[:, None]
    if not EVEN_D:
        m_k = m_k & (o_dim[None, :] < D)
    b_k = tl.load(p_k + b_own.to(tl.int64)[:, None] * D + o_dim[None, :], mask=m_k, other=0.0)
    b_s = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION)
    b_s = tl.sum(tl.where(o_row[:, None] == o_row[None, :], b_s, 0.0), 1)
    tl.store(p_own + first + o_row, b_s, mask=first + o_row < M)


@triton.jit(do_not_specialize=["M", "N", "tiles"])
def row_kernel(
    p_q, p_k, p_positives, p_own, p_temperature, p_query_groups, p_key_groups,
    p_max, p_sum, p_target, p_count, p_acc,
    M, N, D, tiles,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    EVEN_N: tl.constexpr, EVEN_D: tl.constexpr, GROUPS: tl.constexpr, DIRECTION: tl.constexpr,
    SHIFT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Softmax of a block of queries over one part of the keys, as attention with V = K.

    Each part writes the largest dot among its keys and the positive, [S, M], the sum of exp2 against it, and with
    DIRECTION the sum of exp2 times key, [S, M, D]. The positive's dot comes from `positive_kernel` and replaces the
    tile's: to take it out of the tile would be a reduction in every step, which spills; and so nothing hangs on the
    last bits of the two being the same.
    """
    first = tl.program_id(0).to(tl.int64) * BLOCK_M
    part = tl.program_id(1)
    o_row, o_col, o_dim = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    o_m = first + o_row
    b_own, _ = load_own(p_positives, o_m, M)
    b_own_dot = tl.load(p_own + o_m, mask=o_m < M, other=0.0)
    b_q = load_tile(p_q + first * D, o_row, o_dim, M - first, D, EVEN_D)
    c = 1.4426950408889634 / tl.load(p_temperature)
    b_max = b_own_dot
    b_sum = tl.zeros([BLOCK_M], tl.float32)
    b_target = tl.zeros([BLOCK_M], tl.float32)
    b_count = tl.zeros([BLOCK_M], tl.float32)
    b_acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    if GROUPS:
        b_group = tl.load(p_query_groups + o_m, mask=o_m < M, other=-1)
    begin = part * tiles * BLOCK_N
    for start in tl.range(begin, tl.minimum(begin + tiles * BLOCK_N, N), BLOCK_N):
        b_k = load_tile(p_k + tl.cast(start, tl.int64) * D, o_col, o_dim, N - start, D, EVEN_D)
        b_s = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION)
        is_own = o_col[None, :] == (b_own - start)[:, None]
        b_s = tl.where(is_own, b_own_dot[:, None], b_s)
        if GROUPS:
            b_key_group = tl.load(p_key_groups + start + o_col, mask=o_col < N - start, other=-1)
            same = (b_group[:, None] == b_key_group[None, :]) & (b_group >= 0)[:, None]
        if GROUPS == 1:
            b_s = tl.where(same & ~is_own, float("-inf"), b_s)
        if not EVEN_N:
            b_s = tl.where((o_col < N - start)[None, :], b_s, float("-inf"))
        if GROUPS == 2:
            right = same | is_own
            b_target += tl.sum(tl.where(right, b_s, 0.0), 1)
            b_count += tl.sum(right.to(tl.float32), 1)
        b_new = tl.maximum(b_max, tl.max(b_s, 1))
        b_p = tl.exp2((b_s - b_new[:, None]) * c + SHIFT)
        b_shrink = tl.exp2((b_max - b_new) * c)
        b_sum = b_sum * b_shrink + tl.sum(b_p, 1)
        if DIRECTION:
            b_acc = tl.dot(b_p.to(b_k.dtype), b_k, b_acc * b_shrink[:, None], input_precision=PRECISION)
        b_max = b_new
    o_out = part.to(tl.int64) * M + o_m
    tl.store(p_max + o_out, b_max, mask=o_m < M)
    tl.store(p_sum + o_out, b_sum, mask=o_m < M)
    if GROUPS == 2:
        tl.store(p_target + o_out, b_target, mask=o_m < M)
        tl.store(p_count + o_out, b_count, mask=o_m < M)
    if DIRECTION:
        m_acc = (o_m < M)[:, None] & (o_dim < D)[None, :]
        tl.store(
            p_acc + (part.to(tl.int64) * M + first) * D + o_row[:, None] * D + o_dim[None, :],
            b_acc,
            mask=m_acc,
        )


@triton.jit(do_not_specialize=["M", "parts"])
def combine_kernel(
    p_k, p_positives, p_own, p_temperature, p_max, p_sum, p_target, p_count, p_acc,
    p_loss, p_top1, p_logit, p_base, p_positive_count, p_direction,
    M, D, parts,
    BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
    GROUPS: tl.constexpr, DIRECTION: tl.constexpr, SHIFT: tl.constexpr,
):  # fmt: skip
    """The parts of each row put together, in the order of the keys: loss, statistics, direction of the gradient.

    The direction is sum_j softmax_ij k_j - k_p(i); the query's gradient is that times weight / T.
    """
    o_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    o_dim = tl.arange(0, BLOCK_D)
    m_row = o_m < M
    b_own, valid = load_own(p_positives, o_m, M)
    b_own_dot = tl.load(p_own + o_m, mask=m_row, other=0.0)
    scale = 1.0 / tl.load(p_temperature)
    c = 1.4426950408889634 * scale
    b_max = b_own_dot
    for part in range(0, parts):
        b_max = tl.maximum(b_max, tl.load(p_max + tl.cast(part, tl.int64) * M + o_m, mask=m_row, other=0.0))
    b_sum = tl.zeros([BLOCK_M], tl.float32)
    b_acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    b_target = tl.zeros([BLOCK_M], tl.float32)
    b_count = tl.zeros([BLOCK_M], tl.float32)
    m_tile = m_row[:, None] & (o_dim < D)[None, :]
    for part in range(0, parts):
        o_part = tl.cast(part, tl.int64) * M + o_m
        b_shrink = tl.exp2((tl.load(p_max + o_part, mask=m_row, other=0.0) - b_max) * c)
        b_sum += tl.load(p_sum + o_part, mask=m_row, other=1.0) * b_shrink
        if DIRECTION:
            b_part_acc = tl.load(p_acc + o_part[:, None] * D + o_dim[None, :], mask=m_tile, other=0.0)
            b_acc += b_part_acc * b_shrink[:, None]
        if GROUPS == 2:
            b_target += tl.load(p_target + o_part, mask=m_row, other=0.0)
            b_count += tl.load(p_count + o_part, mask=m_row, other=1.0)
    b_log = tl.log2(b_sum) - SHIFT
    b_right = b_own_dot
    if GROUPS == 2:
        b_right = b_target / b_count
        tl.store(p_positive_count + o_m, b_count, mask=m_row)
    # The difference of the dots first: a row whose positive stands alone has loss 0 however large its logit is.
    b_loss = (b_max - b_right) * scale + b_log * 0.6931471805599453
    tl.store(p_loss + o_m, tl.where(valid, b_loss, 0.0), mask=m_row)
    tl.store(p_top1 + o_m, (b_own_dot >= b_max) & valid, mask=m_row)
    tl.store(p_logit + o_m, tl.where(valid, b_own_dot * scale, 0.0), mask=m_row)
    tl.store(p_base + o_m, b_max, mask=m_row)
    tl.store(p_base + M + o_m, b_log, mask=m_row)
    if DIRECTION:
        b_k = tl.load(p_k + b_own.to(tl.int64)[:, None] * D + o_dim[None, :], mask=m_tile, other=0.0)
        b_direction = tl.where(valid[:, None], b_acc / b_sum[:, None] - b_k.to(tl.float32), 0.0)
        tl.store(p_direction + o_m[:, None] * D + o_dim[None, :], b_direction, mask=m_tile)


@triton.jit(do_not_specialize=["M", "X", "Y", "tiles"])
def slope_kernel(
    p_x, p_y, p_positives, p_base, p_count, p_weight, p_factor, p_temperature, p_query_groups, p_key_groups,
    p_out,
    M, X, Y, D, tiles,
    BLOCK_X: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_D: tl.constexpr,
    EVEN_Y: tl.constexpr, EVEN_D: tl.constexpr, GROUPS: tl.constexpr, KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of a block of X by a loop over one part of Y, from the slopes of their logits.

    KEYS: X are keys and Y queries (whose rows the statistics belong to), else the other way round.
    """
    first = tl.program_id(0).to(tl.int64) * BLOCK_X
    part = tl.program_id(1)
    o_x, o_y, o_dim = tl.arange(0, BLOCK_X), tl.arange(0, BLOCK_Y), tl.arange(0, BLOCK_D)
    b_x = load_tile(p_x + first * D, o_x, o_dim, X - first, D, EVEN_D)
    c = 1.4426950408889634 / tl.load(p_temperature)
    if not KEYS:
        b_own, _ = load_own(p_positives, first + o_x, M)
        b_max = tl.load(p_base + first + o_x, mask=first + o_x < M, other=float("inf"))[:, None]
        b_log = tl.load(p_base + M + first + o_x, mask=first + o_x < M, other=0.0)[:, None]
        b_weight = tl.load(p_weight + first + o_x, mask=first + o_x < M, other=0.0)[:, None]
        if GROUPS == 2:
            b_share = 1.0 / tl.load(p_count + first + o_x, mask=first + o_x < M, other=1.0)[:, None]
    if GROUPS:
        if KEYS:
            b_group_x = tl.load(p_key_groups + first + o_x, mask=first + o_x < X, other=-1)
        else:
            b_group_x = tl.load(p_query_groups + first + o_x, mask=first + o_x < X, other=-1)
    b_acc = tl.zeros([BLOCK_X, BLOCK_D], tl.float32)
    begin = part * tiles * BLOCK_Y
    for start in tl.range(begin, tl.minimum(begin + tiles * BLOCK_Y, Y), BLOCK_Y):
        b_y = load_tile(p_y + tl.cast(start, tl.int64) * D, o_y, o_dim, Y - start, D, EVEN_D)
        b_s = tl.dot(b_x, tl.trans(b_y), input_precision=PRECISION)
        if KEYS:
            o_m = start + o_y
            b_own, _ = load_own(p_positives, o_m, M)
            b_max = tl.load(p_base + o_m, mask=o_m < M, other=float("inf"))[None, :]
            b_log = tl.load(p_base + M + o_m, mask=o_m < M, other=0.0)[None, :]
            b_weight = tl.load(p_weight + o_m, mask=o_m < M, other=0.0)[None, :]
            if GROUPS == 2:
                b_share = 1.0 / tl.load(p_count + o_m, mask=o_m < M, other=1.0)[None, :]
            is_own = o_x[:, None] == (b_own - first.to(tl.int32))[None, :]
        else:
            is_own = o_y[None, :] == (b_own - start)[:, None]
        if GROUPS:
            if KEYS:
                b_group_y = tl.load(p_query_groups + start + o_y, mask=o_y < Y - start, other=-1)
            else:
                b_group_y = tl.load(p_key_groups + start + o_y, mask=o_y < Y - start, other=-1)
            same = (b_group_x[:, None] == b_group_y[None, :]) & (b_group_x >= 0)[:, None]
        b_p = tl.exp2((b_s - b_max) * c - b_log)
        if GROUPS == 1:
            b_p = tl.where(same & ~is_own, 0.0, b_p)
        if not EVEN_Y and not KEYS:
            b_p = tl.where((o_y < Y - start)[None, :], b_p, 0.0)
        if GROUPS == 2:
            b_p -= tl.where(same | is_own, b_share, 0.0)
        else:
            b_p -= is_own.to(tl.float32)
        b_acc = tl.dot((b_p * b_weight).to(b_y.dtype), b_y, b_acc, input_precision=PRECISION)
    b_acc *= tl.load(p_factor)
    m_out = (first + o_x < X)[:, None] & (o_dim < D)[None, :]
    o_out = (part.to(tl.int64) * X + first) * D + o_x[:, None] * D + o_dim[None, :]
    tl.store(p_out + o_out, b_acc.to(p_out.dtype.element_ty), mask=m_out)


@triton.jit(do_not_specialize=["M"])
def query_kernel(
    p_q, p_direction, p_weight, p_temperature, p_grad, p_slope,
    M, D,
    BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, GRADIENT: tl.constexpr, TEMPERATURE: tl.constexpr,
):  # fmt: skip
    """A query's gradient from its direction, and its share in the temperature's.

    sum_j softmax_ij s_ij - s_ip is q_i . direction_i / T: the temperature needs no pass of its own.
    """
    o_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    scale = 1.0 / tl.load(p_temperature)
    b_weight = tl.load(p_weight + o_m, mask=o_m < M, other=0.0) * scale
    b_slope = tl.zeros([BLOCK_M], tl.float32)
    for start in range(0, D, BLOCK_D):
        o_dim = start + tl.arange(0, BLOCK_D)
        m_tile = (o_m < M)[:, None] & (o_dim < D)[None, :]
        o_tile = o_m[:, None] * D + o_dim[None, :]
        b_grad = tl.load(p_direction + o_tile, mask=m_tile, other=0.0) * b_weight[:, None]
        if GRADIENT:
            tl.store(p_grad + o_tile, b_grad.to(p_grad.dtype.element_ty), mask=m_tile)
        if TEMPERATURE:
            b_slope += tl.sum(tl.load(p_q + o_tile, mask=m_tile, other=0.0).to(tl.float32) * b_grad, 1)
    if TEMPERATURE:
        tl.store(p_slope + o_m, -b_slope * scale, mask=o_m < M)
