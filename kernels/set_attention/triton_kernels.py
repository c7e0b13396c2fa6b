"""The device code of set attention: one program works on one tile of whole sets and one head.

Legend: `TILE` rows of a tile (tokens, as queries and as keys), `DIM` head dimension padded to a power of two.
`live` rows are tokens; `here` rows lie in the tensor, so they are written (padding behind a set as zeros). `mark` says
which set a row belongs to, -1 for rows that are no tokens: a query sees the keys of equal mark.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..philox.triton import dropout_keep8

__all__ = ["backward_kernel", "forward_kernel"]


@triton.jit
def _rows(
    i_tile,
    p_lengths,
    p_tiles,
    p_owners,
    p_offsets,
    sets,
    length,
    sets_a_tile,
    TILE: tl.constexpr,
    PACKED: tl.constexpr,
    SINGLE: tl.constexpr,
):
    """What each row of a tile is: (set, slot in the set, token in the tensor, mark, live, here)."""
    o_row = tl.arange(0, TILE)
    if PACKED:
        i_token = tl.load(p_tiles + i_tile) + o_row
        here = i_token < tl.load(p_tiles + i_tile + 1)
        live = here
        i_set = tl.load(p_owners + i_token, mask=here, other=-1)
        slot = (i_token - tl.load(p_offsets + i_set, mask=here, other=0)).to(tl.int32)
    else:
        # A set that fills its tile alone has slots known to the compiler: at 128 tokens 127 registers, not 192.
        in_tile = tl.zeros([TILE], dtype=tl.int32) if SINGLE else o_row // length
        slot = o_row if SINGLE else o_row - in_tile * length
        i_set = i_tile * sets_a_tile + in_tile
        here = (in_tile < sets_a_tile) & (i_set < sets) & (slot < length)
        live = here
        if p_lengths is not None:
            live = here & (slot < tl.load(p_lengths + i_set, mask=here, other=0).to(tl.int32))
        i_token = i_set.to(tl.int64) * length + slot
    return i_set, slot, i_token, tl.where(live, i_set, -1), live, here


@triton.jit
def _load(
    pointer,
    i_head,
    i_set,
    slot,
    i_token,
    live,
    dim,
    stride_set,
    stride_token,
    stride_head,
    stride_dim,
    DIM: tl.constexpr,
    PACKED: tl.constexpr,
):
    """[TILE, DIM] of one head by strides; rows that are no tokens are zeros, whatever lies there."""
    o_dim = tl.arange(0, DIM)
    row = i_token * stride_token
    if not PACKED:
        row = i_set.to(tl.int64) * stride_set + slot.to(tl.int64) * stride_token
    at = row[:, None] + (i_head.to(tl.int64) * stride_head + o_dim.to(tl.int64) * stride_dim)[None, :]
    return tl.load(pointer + at, mask=live[:, None] & (o_dim < dim)[None, :], other=0.0)


@triton.jit
def _store(pointer, values, i_head, i_token, here, dim, stride_token, DIM: tl.constexpr):
    o_dim = tl.arange(0, DIM)
    at = i_token[:, None] * stride_token + (i_head * dim + o_dim)[None, :]
    tl.store(pointer + at, values.to(pointer.dtype.element_ty), mask=here[:, None] & (o_dim < dim)[None, :])


@triton.jit
def _weights(q, k, mark, scale, PRECISION: tl.constexpr):
    """Softmax of a tile, not yet divided by its row sums: (weights fp32 [TILE, TILE], 1 / row sums)."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * 1.4426950408889634)
    same = (mark[:, None] == mark[None, :]) & (mark[None, :] >= 0)
    scores = tl.where(same, scores, float("-inf"))
    top = tl.max(scores, axis=1)
    top = tl.where(top == float("-inf"), 0.0, top)  # a row that sees no key: weights 0, not NaN
    weights = tl.exp2(scores - top[:, None])
    total = tl.sum(weights, axis=1)
    return weights, 1.0 / tl.where(total == 0.0, 1.0, total)


@triton.jit
def _draw(seed, step, row, site, limit, first, TILE: tl.constexpr, BLOCKS: tl.constexpr):
    """What dropout keeps of the `8 BLOCKS` numbers from block `first` on: int32 [TILE], a bit for each."""
    block = first[:, None] + tl.arange(0, BLOCKS)[None, :]
    kept = dropout_keep8(seed, step, row[:, None], site, block, limit)
    bits = tl.reshape(kept.to(tl.int32), [TILE, 8 * BLOCKS]) << tl.arange(0, 8 * BLOCKS)[None, :]
    return tl.sum(bits, axis=1)


@triton.jit
def _kept(
    p_state,
    p_rows,
    site,
    limit,
    i_head,
    i_set,
    slot,
    live,
    TILE: tl.constexpr,
    WORDS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Which keys of its set each query keeps, numbered as in `reference.attention_dropout`: 4 words of 32 bits.

    Drawing each of a tile's entries by itself would cost a Philox block an entry, most of them for pairs of different
    sets; a block answers for 8 keys of one set here.
    """
    seed = tl.load(p_state)
    step = tl.load(p_state + 1)
    row = tl.load(p_rows + i_set, mask=live, other=0)
    first = (i_head << 21) + (slot << 9)
    w0 = _draw(seed, step, row, site, limit, first, TILE, BLOCKS)
    w1, w2, w3 = w0, w0, w0
    if WORDS > 1:
        w1 = _draw(seed, step, row, site, limit, first + 4, TILE, BLOCKS)
    if WORDS > 2:
        w2 = _draw(seed, step, row, site, limit, first + 8, TILE, BLOCKS)
        w3 = _draw(seed, step, row, site, limit, first + 12, TILE, BLOCKS)
    return w0, w1, w2, w3


@triton.jit
def _is_kept(w0, w1, w2, w3, slot, WORDS: tl.constexpr):
    """Bool [TILE, TILE]: the bit of each key's slot in its query's words. Means nothing for pairs of different sets."""
    word = w0[:, None]
    part = (slot >> 5)[None, :]
    if WORDS > 1:
        word = tl.where(part == 0, word, w1[:, None])
    if WORDS > 2:
        word = tl.where(part < 2, word, tl.where(part == 2, w2[:, None], w3[:, None]))
    return ((word >> (slot & 31)[None, :]) & 1) != 0


# Numbers that change from batch to batch are not compiled in, so that no batch compiles anew.
_RUNTIME = ["sets", "length", "sets_a_tile", "heads", "site", "limit"]


@triton.jit(do_not_specialize=_RUNTIME)
def forward_kernel(
    p_q,
    p_k,
    p_v,
    p_out,
    p_lengths,
    p_tiles,
    p_owners,
    p_offsets,
    p_state,
    p_rows,
    sets,
    length,
    sets_a_tile,
    heads,
    dim,
    q_set,
    q_token,
    q_head,
    q_dim,
    k_set,
    k_token,
    k_head,
    k_dim,
    v_set,
    v_token,
    v_head,
    v_dim,
    scale,
    site,
    limit,
    keep_scale,
    TILE: tl.constexpr,
    DIM: tl.constexpr,
    PACKED: tl.constexpr,
    SINGLE: tl.constexpr,
    WORDS: tl.constexpr,
    BLOCKS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """out = dropout(softmax(q k^T scale)) v, for the sets of one tile and one head."""
    i_tile = tl.program_id(0) // heads
    i_head = tl.program_id(0) % heads
    i_set, slot, i_token, mark, live, here = _rows(
        i_tile, p_lengths, p_tiles, p_owners, p_offsets, sets, length, sets_a_tile, TILE, PACKED, SINGLE
    )
    q = _load(p_q, i_head, i_set, slot, i_token, live, dim, q_set, q_token, q_head, q_dim, DIM, PACKED)
    k = _load(p_k, i_head, i_set, slot, i_token, live, dim, k_set, k_token, k_head, k_dim, DIM, PACKED)
    v = _load(p_v, i_head, i_set, slot, i_token, live, dim, v_set, v_token, v_head, v_dim, DIM, PACKED)
    weights, inverse = _weights(q, k, mark, scale, PRECISION)
    if p_state is not None:
        w0, w1, w2, w3 = _kept(p_state, p_rows, site, limit, i_head, i_set, slot, live, TILE, WORDS, BLOCKS)
        keep = _is_kept(w0, w1, w2, w3, slot, WORDS)
        weights = tl.where(keep, weights, 0.0)
        inverse *= keep_scale
    out = tl.dot(weights.to(v.dtype), v, input_precision=PRECISION) * inverse[:, None]
    _store(p_out, out, i_head, i_token, here, dim, heads * dim, DIM)


@triton.jit(do_not_specialize=_RUNTIME)
def backward_kernel(
    p_grad,
    p_q,
    p_k,
    p_v,
    p_dq,
    p_dk,
    p_dv,
    p_lengths,
    p_tiles,
    p_owners,
    p_offsets,
    p_state,
    p_rows,
    sets,
    length,
    sets_a_tile,
    heads,
    dim,
    g_set,
    g_token,
    g_head,
    g_dim,
    q_set,
    q_token,
    q_head,
    q_dim,
    k_set,
    k_token,
    k_head,
    k_dim,
    v_set,
    v_token,
    v_head,
    v_dim,
    d_token,
    scale,
    site,
    limit,
    keep_scale,
    TILE: tl.constexpr,
    DIM: tl.constexpr,
    PACKED: tl.constexpr,
    SINGLE: tl.constexpr,
    WORDS: tl.constexpr,
    BLOCKS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """dq, dk, dv of one tile and head, from q, k, v and the gradient of the output alone.

    Whole sets lie in a tile, so every sum over queries or keys ends here: no second pass, no atomics.
    """
    i_tile = tl.program_id(0) // heads
    i_head = tl.program_id(0) % heads
    i_set, slot, i_token, mark, live, here = _rows(
        i_tile, p_lengths, p_tiles, p_owners, p_offsets, sets, length, sets_a_tile, TILE, PACKED, SINGLE
    )
    q = _load(p_q, i_head, i_set, slot, i_token, live, dim, q_set, q_token, q_head, q_dim, DIM, PACKED)
    k = _load(p_k, i_head, i_set, slot, i_token, live, dim, k_set, k_token, k_head, k_dim, DIM, PACKED)
    v = _load(p_v, i_head, i_set, slot, i_token, live, dim, v_set, v_token, v_head, v_dim, DIM, PACKED)
    grad = _load(p_grad, i_head, i_set, slot, i_token, live, dim, g_set, g_token, g_head, g_dim, DIM, PACKED)
    weights, inverse = _weights(q, k, mark, scale, PRECISION)
    weights *= inverse[:, None]
    used = weights
    if p_state is not None:
        w0, w1, w2, w3 = _kept(p_state, p_rows, site, limit, i_head, i_set, slot, live, TILE, WORDS, BLOCKS)
        keep = _is_kept(w0, w1, w2, w3, slot, WORDS)
        used = tl.where(keep, weights * keep_scale, 0.0)
    dv = tl.dot(tl.trans(used.to(q.dtype)), grad, input_precision=PRECISION)
    _store(p_dv, dv, i_head, i_token, here, dim, d_token, DIM)
    d_weights = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
    used *= d_weights  # a dropped weight's gradient is 0 by `used`: the bits of `keep` are wanted only once
    delta = tl.sum(used, axis=1)
    d_scores = (used - weights * delta[:, None]).to(q.dtype)
    dq = tl.dot(d_scores, k, input_precision=PRECISION) * scale
    _store(p_dq, dq, i_head, i_token, here, dim, d_token, DIM)
    dk = tl.dot(tl.trans(d_scores), q, input_precision=PRECISION) * scale
    _store(p_dk, dk, i_head, i_token, here, dim, d_token, DIM)
