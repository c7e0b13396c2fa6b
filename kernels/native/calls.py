"""The library's functions for tensors: contiguous on the CPU, fp32 or bf16, outputs made here or by the caller.

Shapes: `M` rows, `N` columns or tokens, `B` sets, `V` clips, `H` width, `h` heads, `d` head dimension.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from ..philox import Site, dropout_limit, site_word
from . import library

__all__ = ["attend", "best_columns", "drop", "embed", "infonce_rows", "infonce_slopes", "moments"]

_FORMATS = {torch.float32: 0, torch.bfloat16: 1}
_NO_DROPOUT = -32768


def infonce_rows(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Largest logit and log-sum-exp of each row of fp32 [M, N]."""
    most, lse = logits.new_empty(len(logits)), logits.new_empty(len(logits))
    library().scalefast_infonce_rows(
        _pointer(logits), *_sizes(*logits.shape), _pointer(most), _pointer(lse), torch.get_num_threads()
    )
    return most, lse


def infonce_slopes(logits: Tensor, *, positives: Tensor, lse: Tensor, weights: Tensor) -> None:
    """fp32 [M, N] becomes `weights * (exp(logits - lse) - [column == positives])`; all others [M].

    A positive outside [0, N) is in none of these columns.
    """
    library().scalefast_infonce_slopes(
        _pointer(logits), *_sizes(*logits.shape), _pointer(positives), _pointer(lse), _pointer(weights),
        torch.get_num_threads(),
    )  # fmt: skip


def best_columns(values: Tensor, *, first: int, best: Tensor, place: Tensor, held: int) -> bool:
    """Merge fp32 [M, N], whose columns have the numbers first, first + 1, ..., into the best of each row.

    Args:
        values: fp32 [M, N].
        first: number of the first column.
        best, place: fp32 and int64 [M, k], of which `held` columns are filled: the best so far, largest first.
        held: columns that are filled; min(k, held + N) are afterwards.

    Returns:
        Whether there was no NaN; where there was, the result means nothing.
    """
    odd = library().scalefast_topk(
        _pointer(values), *_sizes(*values.shape, first), _pointer(best), _pointer(place), *_sizes(held, best.shape[1]),
        torch.get_num_threads(),
    )  # fmt: skip
    return int(odd) == 0


def moments(x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, standard deviation and largest value over the clips of [B, V, H], each fp32 [B, H].

    Args:
        x: dense but for a gap between sets.
        lengths: int64 [B], clips that are there, at least 1; None: all V.
    """
    sets, clips, width = x.shape
    assert x.device.type == "cpu" and x.stride()[1:] == (width, 1)
    mean, std, most = (torch.empty(sets, width) for _ in range(3))
    library().scalefast_moments(
        ctypes.c_void_p(x.data_ptr()), _pointer(lengths), *_sizes(sets, clips, width, x.stride(0)), _FORMATS[x.dtype],
        _pointer(mean), _pointer(std), _pointer(most), torch.get_num_threads(),
    )  # fmt: skip
    return mean, std, most


def embed(x: Tensor, positions: Tensor, mask: Tensor | None, mask_token: Tensor, cls_token: Tensor) -> Tensor:
    """[B, V, H], bool [B, V] or None, fp32 [H] twice -> [B, 1 + V, H] in the dtype of x."""
    sets, clips, width = x.shape
    out = x.new_empty(sets, 1 + clips, width)
    library().scalefast_embed_sets(
        _pointer(x), _pointer(positions), _pointer(mask), _pointer(mask_token), _pointer(cls_token),
        *_sizes(sets, clips, width), _FORMATS[x.dtype], _pointer(out), torch.get_num_threads(),
    )  # fmt: skip
    return out


def attend(
    qkv: Tensor,
    *,
    lengths: Tensor | None,
    dropout_p: float,
    state: Tensor,
    rows: Tensor,
    layer: int,
    grad: Tensor | None = None,
) -> Tensor:
    """Attention of [B, N, 3, h, d] -> [B, N, h, d]; with `grad`, that of its output, the gradient of qkv instead.

    Args:
        qkv: q, k and v of every token.
        lengths: int64 [B] or None.
        dropout_p: probability; 0 draws nothing.
        state, rows, layer: as a `RandomState` has them.
        grad: [B, N, h, d] or None.
    """
    sets, tokens, _, heads, dim = qkv.shape
    out = qkv.new_empty(sets, tokens, heads, dim) if grad is None else torch.empty_like(qkv)
    limit, kept = dropout_limit(dropout_p) if dropout_p > 0 else (_NO_DROPOUT, 1.0)
    seed, step = state.tolist()
    failed = library().scalefast_set_attention(
        _pointer(qkv), _pointer(grad), _pointer(lengths), _pointer(rows), *_sizes(sets, tokens, heads, dim),
        _FORMATS[qkv.dtype], limit, ctypes.c_float(kept), *_sizes(seed, step),
        ctypes.c_uint32(site_word(Site.ATTENTION_DROPOUT, layer)), _pointer(out), torch.get_num_threads(),
    )  # fmt: skip
    if failed:
        raise MemoryError("set attention: no memory for the buffers of a thread")
    return out


def drop(x: Tensor, *, dropout_p: float, state: Tensor, rows: Tensor, site: int) -> Tensor:
    """[S, ...] times 1 / (1 - p) where it is kept, else 0; `site` is the counter word, layer included."""
    out = torch.empty_like(x)
    limit, kept = dropout_limit(dropout_p)
    seed, step = state.tolist()
    library().scalefast_dropout(
        _pointer(x), _pointer(rows), *_sizes(len(x), x[:1].numel()), _FORMATS[x.dtype], limit, ctypes.c_float(kept),
        *_sizes(seed, step), ctypes.c_uint32(site), _pointer(out), torch.get_num_threads(),
    )  # fmt: skip
    return out


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    if tensor is None:
        return ctypes.c_void_p(None)
    assert tensor.is_contiguous() and tensor.device.type == "cpu"
    return ctypes.c_void_p(tensor.data_ptr())


def _sizes(*values: int) -> tuple[ctypes.c_int64, ...]:
    return tuple(ctypes.c_int64(value) for value in values)
