"""Sparse-output InfoNCE on a CPU: PyTorch's products, and the C library's one pass over each strip of logits.

Shapes: `M` queries, `N` keys, `D` feature. As the reference, of which it serves calls without groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..native import calls, serves_native
from ..products import linear, linear_gradients
from .reference import RowStatistics, tile_rows

__all__ = ["MOST_KEYS", "infonce_rows", "serves_rows"]

MOST_KEYS = 8192
"""Keys of a tile of logits. Strips of all keys would be thin where keys are many, 128 rows of 32,768 keys and 4 of a
million, and each would pass over all keys and their gradient."""


def serves_rows(queries: Tensor, keys: Tensor, *, groups: bool) -> bool:
    """Whether the library serves a call."""
    return not groups and min(queries.numel(), keys.numel()) > 0 and serves_native(queries)


@torch.library.custom_op("scalefast::infonce_rows_native", mutates_args=())
def _forward(
    queries: Tensor, keys: Tensor, temperature: Tensor, positives: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, top-1, positive logit and log-sum-exp of every row."""
    with torch.autocast("cpu", enabled=False):
        q, k, scale = queries.float(), keys.float(), 1.0 / temperature.float()
        valid = positives >= 0
        own = (q * k[positives.clamp(min=0)]).sum(1) * scale
        lse, top1 = torch.empty_like(own), torch.empty_like(valid)
        for rows in _strips(len(q), len(k)):
            q_strip, column = q[rows] * scale, positives[rows, None].clamp(min=0)
            highest = at_own = torch.full_like(lse[rows], -torch.inf)
            total = highest  # log-sum-exp so far
            for some in _tiles(len(k)):
                logits = linear(q_strip, k[some])
                here = column - some.start
                inside = ((here >= 0) & (here < logits.shape[1])).squeeze(1)
                found = logits.gather(1, here.clamp(0, logits.shape[1] - 1)).squeeze(1)
                at_own = torch.where(inside, found, at_own)
                top, part = calls.infonce_rows(logits)
                highest = torch.maximum(highest, top)
                total = part if some.start == 0 else torch.logaddexp(total, part)
                del logits  # before the next tile is made
            lse[rows], top1[rows] = total, at_own >= highest
        return torch.where(valid, lse - own, 0.0), top1 & valid, torch.where(valid, own, 0.0), lse


@torch.library.custom_op("scalefast::infonce_rows_native_backward", mutates_args=())
def _backward(
    grad_rows: Tensor, queries: Tensor, keys: Tensor, temperature: Tensor, positives: Tensor, lse: Tensor,
    need_q: bool, need_k: bool, need_t: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of queries, keys and temperature, each empty if it is not needed; logits are computed again."""
    with torch.autocast("cpu", enabled=False):
        q, k, scale = queries.float(), keys.float(), 1.0 / temperature.float()
        weight = torch.where(positives >= 0, grad_rows.float(), 0.0)
        grad_q = torch.zeros_like(q) if need_q else q.new_empty(0)
        grad_k = torch.zeros_like(k) if need_k else k.new_empty(0)
        grad_t = torch.zeros_like(scale)
        for rows in _strips(len(q), len(k)):
            q_strip = q[rows] * scale
            for some in _tiles(len(k)):
                slope = linear(q_strip, k[some])
                logits = slope.clone() if need_t else None
                calls.infonce_slopes(
                    slope, positives=positives[rows] - some.start, lse=lse[rows], weights=weight[rows]
                )
                by_q, by_k = linear_gradients(slope, q_strip, k[some], wanted=(need_q, need_k))
                if by_q is not None:
                    grad_q[rows] += by_q
                if by_k is not None:
                    grad_k[some] += by_k
                if logits is not None:
                    grad_t -= (slope * logits).sum() * scale
                del slope, by_q, by_k, logits
        if need_q:
            grad_q *= scale
        return grad_q.to(queries.dtype), grad_k.to(keys.dtype), grad_t.to(temperature.dtype)


def _strips(rows: int, keys: int) -> list[slice]:
    height = tile_rows(min(keys, MOST_KEYS))
    return [slice(start, start + height) for start in range(0, rows, height)]


def _tiles(keys: int) -> Iterator[slice]:
    return (slice(start, min(keys, start + MOST_KEYS)) for start in range(0, keys, MOST_KEYS))


@_forward.register_fake
def _(queries, keys, temperature, positives):  # type: ignore[no-untyped-def]
    rows = queries.new_empty(len(queries), dtype=torch.float32)
    return rows, positives.new_empty(len(queries), dtype=torch.bool), rows.clone(), rows.clone()


@_backward.register_fake
def _(grad_rows, queries, keys, temperature, positives, lse, need_q, need_k, need_t):  # type: ignore[no-untyped-def]
    grad_q = torch.empty_like(queries) if need_q else queries.new_empty(0)
    grad_k = torch.empty_like(keys) if need_k else keys.new_empty(0)
    return grad_q, grad_k, torch.empty_like(temperature)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, output[3])
    ctx.mark_non_differentiable(*output[1:])


def _gradients(ctx: Any, grad_rows: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    need = ctx.needs_input_grad[:3]
    grads = _backward(grad_rows, *ctx.saved_tensors, *need)
    return (*(grad if needed else None for grad, needed in zip(grads, need, strict=True)), None)


_forward.register_autograd(_gradients, setup_context=_keep)


def infonce_rows(queries: Tensor, keys: Tensor, positives: Tensor, *, temperature: Tensor) -> RowStatistics:
    """Loss and statistics of every query against all keys."""
    rows, top1, positive_logit, _ = _forward(queries, keys, temperature, positives)
    return RowStatistics(rows, top1, positive_logit)
