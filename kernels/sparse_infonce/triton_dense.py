"""The kernel of the chunked form: rows of dots that a matrix product wrote.

Conventions are those of `triton_kernels.py`: dots stay raw, `base` is the log2 of a sum of exp2, `GROUPS` is 0, 1 or 2.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["dense_kernel"]


@triton.jit(do_not_specialize=["M", "N", "first"])
def dense_kernel(
    p_s, p_positives, p_temperature, p_query_groups, p_key_groups, p_weight,
    p_loss, p_top1, p_logit, p_base, p_count, p_slope,
    M, N, first,
    BLOCK: tl.constexpr, GROUPS: tl.constexpr, STATISTICS: tl.constexpr, SLOPE: tl.constexpr,
):  # fmt: skip
    """One row of dots that a matrix product wrote: its statistics, its slopes, or both.

    The N keys of the row begin at key `first`. Slopes are weight_i (softmax_ij - [j positive]).
    """
    row = tl.program_id(0).to(tl.int64)
    own = tl.load(p_positives + row)
    valid = own >= 0
    own = tl.maximum(own, 0).to(tl.int32) - first
    scale = 1.0 / tl.load(p_temperature)
    c = 1.4426950408889634 * scale
    p_row = p_s + row * N
    if GROUPS:
        group = tl.load(p_query_groups + row)
    if STATISTICS:
        own_dot = tl.load(p_row + own)
        b_max = tl.zeros([BLOCK], tl.float32) + own_dot
        b_sum = tl.zeros([BLOCK], tl.float32)
        b_target = tl.zeros([BLOCK], tl.float32)
        b_count = tl.zeros([BLOCK], tl.float32)
        for start in range(0, N, BLOCK):
            o_n = start + tl.arange(0, BLOCK)
            b_s = tl.load(p_row + o_n, mask=o_n < N, other=float("-inf"))
            if GROUPS:
                same = (tl.load(p_key_groups + first + o_n, mask=o_n < N, other=-1) == group) & (group >= 0)
            if GROUPS == 1:
                b_s = tl.where(same & (o_n != own), float("-inf"), b_s)
            if GROUPS == 2:
                right = same | (o_n == own)
                b_target += tl.where(right, b_s, 0.0)
                b_count += right.to(tl.float32)
            b_new = tl.maximum(b_max, b_s)
            b_sum = b_sum * tl.exp2((b_max - b_new) * c) + tl.exp2((b_s - b_new) * c)
            b_max = b_new
        largest = tl.max(b_max, 0)
        log = tl.log2(tl.sum(b_sum * tl.exp2((b_max - largest) * c), 0))
        right_dot = own_dot
        count = 1.0
        if GROUPS == 2:
            count = tl.sum(b_count, 0)
            right_dot = tl.sum(b_target, 0) / count
            tl.store(p_count + row, count)
        loss = (largest - right_dot) * scale + log * 0.6931471805599453
        tl.store(p_loss + row, tl.where(valid, loss, 0.0))
        tl.store(p_top1 + row, (own_dot >= largest) & valid)
        tl.store(p_logit + row, tl.where(valid, own_dot * scale, 0.0))
        tl.store(p_base + row, largest)
        tl.store(p_base + M + row, log)
    else:
        largest = tl.load(p_base + row)
        log = tl.load(p_base + M + row)
        count = 1.0
        if GROUPS == 2:
            count = tl.load(p_count + row)
    if SLOPE:
        weight = tl.load(p_weight + row)
        for start in range(0, N, BLOCK):
            o_n = start + tl.arange(0, BLOCK)
            b_p = tl.exp2((tl.load(p_row + o_n, mask=o_n < N, other=float("-inf")) - largest) * c - log)
            right = o_n == own
            if GROUPS:
                same = (tl.load(p_key_groups + first + o_n, mask=o_n < N, other=-1) == group) & (group >= 0)
            if GROUPS == 1:
                b_p = tl.where(same & (o_n != own), 0.0, b_p)
            if GROUPS == 2:
                right = right | same
            b_p = (b_p - tl.where(right, 1.0 / count, 0.0)) * weight
            tl.store(p_slope + row * N + o_n, b_p.to(p_slope.dtype.element_ty), mask=o_n < N)
