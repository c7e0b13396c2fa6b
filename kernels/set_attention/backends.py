"""Attention by other libraries, for sets above 128 tokens and on request (`attention_backend=`).

None of them can drop the weights that our numbers say (`reference.attention_dropout`), so all refuse dropout. Those
that know only sequences one behind the other get packed tensors: padded sets with `lengths` are packed for them, which
reads the number of tokens back to the host.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .layout import SetLayout

__all__ = ["PEERS", "by_flash_attn", "by_sdpa", "by_varlen", "by_xformers", "serve"]

_GRID_LIMIT = 65_535
"""Most (set, head) pairs that one call of torch's memory-efficient attention serves on CUDA."""
_HALF = (torch.float16, torch.bfloat16)


def serve(
    backend: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    lengths: Tensor | None,
    layout: SetLayout | None,
    dropout_p: float,
) -> Tensor:
    """Padded [B, N, h, d] (with or without lengths) or packed [T, h, d] (with a layout), by a backend of `PEERS`.

    Raises:
        ValueError: the backend cannot serve this dtype, device or dropout. ImportError: it is not installed.
    """
    if dropout_p > 0.0:
        raise ValueError(
            f"attention_backend={backend!r} serves no dropout: it cannot drop the weights that scalefast's random "
            f"numbers name; use 'auto', 'triton' or 'reference' for {dropout_p = }"
        )
    return PEERS[backend](q, k, v, lengths, layout)


def by_sdpa(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None, layout: SetLayout | None = None
) -> Tensor:
    """torch's scaled_dot_product_attention; ragged sets by a mask, packed ones padded for it."""
    if layout is None:
        return _padded_sdpa(q, k, v, lengths)
    if layout.total == 0:
        return _zeros(q, k, v)
    place = _places(layout, layout.max_length)
    sets, longest = layout.lengths.numel(), layout.max_length
    q, k, v = (_spread(t, place, sets, longest) for t in (q, k, v))
    return _padded_sdpa(q, k, v, layout.lengths).flatten(0, 1)[place]


def _padded_sdpa(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None) -> Tensor:
    sets, tokens, heads, _ = q.shape
    mask = padding = None
    if lengths is not None:
        slot = torch.arange(tokens, device=q.device)
        padding = slot >= lengths[:, None]
        # An empty set sees its first slot, whose output is cleared below: a row that sees nothing is NaN in some of
        # torch's implementations.
        mask = (slot < lengths.clamp(min=1)[:, None])[:, None, None]
    many = max(1, _GRID_LIMIT // heads)
    if _needs_chunks(q) and sets > many:
        parts = [slice(i, i + many) for i in range(0, sets, many)]
        out = torch.cat([_sdpa(q[p], k[p], v[p], None if mask is None else mask[p]) for p in parts])
    else:
        out = _sdpa(q, k, v, mask)
    return out if padding is None else out.masked_fill(padding[:, :, None, None], 0.0)


def _needs_chunks(q: Tensor) -> bool:
    return q.is_cuda


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def by_flash_attn(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None, layout: SetLayout | None = None
) -> Tensor:
    """FlashAttention 2 (package flash-attn) or 4 (flash-attn-4), sequences of varying length."""
    function = _flash_attn_function()
    _require_cuda("flash-attn", q, _HALF)
    if q.shape[-1] > 256:
        raise ValueError(f"attention_backend='flash-attn' serves head dimensions up to 256; got {q.shape = }")

    def attend(q: Tensor, k: Tensor, v: Tensor, layout: SetLayout) -> Tensor:
        offsets, longest = layout.offsets.to(torch.int32), layout.max_length
        # By keyword: version 4 has other positional arguments than version 2.
        out = function(
            q,
            k,
            v,
            cu_seqlens_q=offsets,
            cu_seqlens_k=offsets,
            max_seqlen_q=longest,
            max_seqlen_k=longest,
        )
        return out[0] if isinstance(out, tuple) else out  # version 4 returns (output, log-sum-exp)

    return _through_packed(attend, q, k, v, lengths, layout)


def by_varlen(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None, layout: SetLayout | None = None
) -> Tensor:
    """torch.nn.attention.varlen."""
    try:
        function: Callable[..., Tensor] = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    except ImportError as error:
        raise ImportError(
            f"attention_backend='varlen' needs torch.nn.attention.varlen, which torch {torch.__version__} lacks"
        ) from error
    _require_cuda("varlen", q, _HALF)

    def attend(q: Tensor, k: Tensor, v: Tensor, layout: SetLayout) -> Tensor:
        offsets, longest = layout.offsets.to(torch.int32), layout.max_length
        return function(q, k, v, offsets, offsets, longest, longest)

    return _through_packed(attend, q, k, v, lengths, layout)


def by_xformers(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None, layout: SetLayout | None = None
) -> Tensor:
    """xformers' memory-efficient attention with a block-diagonal mask, built from lengths on the host."""
    attention, mask = _xformers_functions()
    _require_cuda("xformers", q, (*_HALF, torch.float32))

    def attend(q: Tensor, k: Tensor, v: Tensor, layout: SetLayout) -> Tensor:
        bias = mask.from_seqlens([n for n in layout.lengths.tolist() if n])
        return attention(q[None], k[None], v[None], attn_bias=bias)[0]

    return _through_packed(attend, q, k, v, lengths, layout)


PEERS: dict[str, Callable[..., Tensor]] = {
    "sdpa": by_sdpa,
    "flash-attn": by_flash_attn,
    "xformers": by_xformers,
    "varlen": by_varlen,
}
"""By the name that `attention_backend` takes."""


def _flash_attn_function() -> Callable[..., Any]:
    found = "no flash_attn_varlen_func"
    for name in ("flash_attn", "flash_attn.cute"):  # versions 2 and 4
        try:
            function = getattr(importlib.import_module(name), "flash_attn_varlen_func", None)
        except ImportError as error:
            found = str(error)
            continue
        if function is not None:
            return function
    raise ImportError(
        "attention_backend='flash-attn' needs the package flash-attn (2, built from source) or flash-attn-4; "
        f"neither can be imported: {found}"
    )


def _xformers_functions() -> tuple[Callable[..., Tensor], Any]:
    try:
        attention = importlib.import_module("xformers.ops").memory_efficient_attention
        return attention, importlib.import_module("xformers.ops.fmha.attn_bias").BlockDiagonalMask
    except ImportError as error:
        raise ImportError(
            f"attention_backend='xformers' needs the package xformers, which cannot be imported: {error}"
        ) from error


def _require_cuda(backend: str, q: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    if not q.is_cuda or q.dtype not in dtypes:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(
            f"attention_backend={backend!r} serves CUDA tensors in {names}; got {q.device = }, {q.dtype = }"
        )


def _through_packed(
    attend: Callable[[Tensor, Tensor, Tensor, SetLayout], Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    layout: SetLayout | None,
) -> Tensor:
    """Any form by a function of packed tensors; what lies in padding becomes zeros."""
    if q.numel() == 0 or (layout is not None and layout.total == 0):
        return _zeros(q, k, v)
    if layout is not None:
        return attend(q, k, v, layout)
    sets, tokens = q.shape[:2]
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    if lengths is None:
        return attend(q, k, v, _dense_layout(sets, tokens, q.device)).unflatten(0, (sets, tokens))
    layout = SetLayout.from_lengths(lengths)
    place = _places(layout, tokens)
    if layout.total == 0:
        return _zeros(q, k, v).unflatten(0, (sets, tokens))
    return _spread(attend(q[place], k[place], v[place], layout), place, sets, tokens)


def _zeros(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The output where there is no token, whatever lies in the padding; gradients are zeros too."""
    return (q + k + v).masked_fill(torch.ones((), dtype=torch.bool, device=q.device), 0.0)


def _dense_layout(sets: int, tokens: int, device: torch.device) -> SetLayout:
    """The layout of equal sets, from host numbers alone."""
    offsets = torch.arange(sets + 1, device=device) * tokens
    return SetLayout(torch.full((sets,), tokens, device=device), offsets, tokens, sets * tokens)


def _places(layout: SetLayout, tokens: int) -> Tensor:
    """int64 [T]: where each packed token lies in [B * tokens]."""
    return layout.set_of_token() * tokens + layout.slot_of_token()


def _spread(x: Tensor, place: Tensor, sets: int, tokens: int) -> Tensor:
    """Packed [T, ...] to padded [B, tokens, ...], zeros elsewhere."""
    empty = x.new_zeros(sets * tokens, *x.shape[1:])
    return empty.index_copy(0, place, x).view(sets, tokens, *x.shape[1:])
