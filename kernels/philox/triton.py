"""Philox inside Triton kernels: the same words and the same dropped numbers as `reference.py`, bit for bit.

Other ops call these functions inside their kernels, so that no mask is ever read from memory.

    state = tl.load(p_state), tl.load(p_state + 1)                # seed and step, int64
    w0, w1, w2, w3 = philox4(seed, step, row, site, index)        # one block: 128 bits
    keep = dropout_keep(seed, step, row, site, number, limit)     # any numbers: a block each
    keep = dropout_keep8(seed, step, row, site, block, limit)     # 8 neighbours: a block for all 8

`site` is the word that `site_word` makes of site and layer, `limit` what `dropout_limit` makes of p: both on the host.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["dropout_keep", "dropout_keep8", "dropout_lanes8", "philox4"]


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
