"""Attention inside each set in plain PyTorch: the specification.

Shapes: `B` sets, `N` tokens a set (CLS included), `h` heads, `d` head dimension, `T` packed tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..philox import RandomState, Site, dropout_multiplier
from .layout import SetLayout

__all__ = ["MAX_DROPOUT_TOKENS", "attention_dropout", "packed_attention", "padded_attention"]

MAX_DROPOUT_TOKENS = 4096
"""Longest set that attention dropout numbers: head, query and key share one 32-bit index, 12 bits each for the
last two."""


def attention_dropout(rng: RandomState, *, heads: int, tokens: int, p: float, dtype: torch.dtype) -> Tensor:
    """Multipliers [B, h, N, N]: (head, query, key) has the number head 2^24 + query 2^12 + key, lanes along keys.

    It depends on nothing else, so padding and packing leave it alone.
    """
    device = rng.rows.device
    key_blocks = -(-tokens // 8)
    head = torch.arange(heads, device=device)[:, None, None] << 21
    query = torch.arange(tokens, device=device)[None, :, None] << 9
    blocks = (head + query + torch.arange(key_blocks, device=device)).reshape(-1)
    drawn = dropout_multiplier(rng, site=Site.ATTENTION_DROPOUT, blocks=blocks, p=p, dtype=dtype)
    return drawn.view(-1, heads, tokens, 8 * key_blocks)[..., :tokens]


def padded_attention(
    q: Tensor, k: Tensor, v: Tensor, *, lengths: Tensor | None, dropout_p: float, rng: RandomState | None
) -> Tensor:
    """`softmax(q k^T / sqrt(d)) v` for [B, N, h, d]; keys beyond a set's length weigh 0, such queries give 0."""
    tokens = q.shape[1]
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # [B, h, N, d]
    scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(q.shape[-1]))
    padded = None
    if lengths is not None:
        padded = torch.arange(tokens, device=q.device) >= lengths[:, None]  # [B, N]
        # The lowest finite value, not -inf: an empty set must give zeros, not 0 / 0.
        scores = scores.masked_fill(padded[:, None, None], torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1)
    if dropout_p > 0.0:
        assert rng is not None
        weights = weights * attention_dropout(
            rng, heads=q.shape[1], tokens=tokens, p=dropout_p, dtype=weights.dtype
        )
    out = (weights @ v).transpose(1, 2)
    return out if padded is None else out.masked_fill(padded[:, :, None, None], 0.0)


def packed_attention(
    q: Tensor, k: Tensor, v: Tensor, *, layout: SetLayout, dropout_p: float, rng: RandomState | None
) -> Tensor:
    """The same for [T, h, d], sets one behind the other."""
    place = layout.set_of_token() * layout.max_length + layout.slot_of_token()
    sets = layout.lengths.numel()

    def pad(x: Tensor) -> Tensor:
        empty = x.new_zeros(sets * layout.max_length, *x.shape[1:])
        return empty.index_copy(0, place, x).view(sets, layout.max_length, *x.shape[1:])

    out = padded_attention(pad(q), pad(k), pad(v), lengths=layout.lengths, dropout_p=dropout_p, rng=rng)
    return out.reshape(-1, *q.shape[1:])[place]
