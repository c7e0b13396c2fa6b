"""Sparse-output InfoNCE in plain PyTorch: the specification.

Shapes: `M` queries, `N` keys, `D` feature. Logits live one tile of rows at a time: memory is O((M + N) D +
tile).

Row i, with s_ij = q_i . k_j / T and A_i the keys that count for it:

    loss_i = log sum_{j in A_i} exp s_ij - mean_{j in P_i} s_ij
    d loss_i / d s_ij = p_ij - [j in P_i] / |P_i|,     p_ij = exp(s_ij - lse_i)

`P_i` is {positive_i}; with `same_group="positive"` also all keys of the query's group. `A_i` is every key;
with `same_group="exclude"` without the keys of the query's group, the positive excepted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..products import linear, linear_gradients

__all__ = ["RowStatistics", "infonce_rows", "tile_rows"]

_TILE_ELEMENTS = 1 << 22
"""Logits held at a time: 16 MB in fp32, which stays in a server's last-level cache."""


class RowStatistics(NamedTuple):
    """What one pass over the logits of a row gives, each [M]."""

    rows: Tensor
    """Loss of each row, in nats; 0 where the row has no positive."""
    top1: Tensor
    """Bool: no counted key has a larger logit than the row's positive."""
    positive_logit: Tensor
    """Logit (similarity / T) of the row's positive."""


def tile_rows(keys: int) -> int:
    """Rows of logits to hold at a time against so many keys."""
    return max(1, _TILE_ELEMENTS // max(1, keys))


class _Tile(NamedTuple):
    """The pairs of a tile of rows: which keys are left out, and which are positives beside the row's own."""

    left_out: Tensor | None
    positives: Tensor | None  # weights that sum to 1 in each row, or None: the row's own positive alone


def _pairs(
    rows: slice,
    positives: Tensor,
    query_groups: Tensor | None,
    key_groups: Tensor | None,
    same_group: str,
    dtype: torch.dtype,
) -> _Tile:
    if query_groups is None or key_groups is None:
        return _Tile(None, None)
    group = query_groups[rows, None]
    same = (group == key_groups[None, :]) & (group >= 0)
    own = positives[rows].clamp(min=0)[:, None]
    if same_group == "exclude":
        return _Tile(same.scatter(1, own, False), None)
    weights = same.scatter(1, own, True).to(dtype)
    return _Tile(None, weights / weights.sum(1, keepdim=True))


@torch.library.custom_op("scalefast::infonce_rows_reference", mutates_args=())
def _forward(
    queries: Tensor, keys: Tensor, temperature: Tensor, positives: Tensor,
    query_groups: Tensor | None, key_groups: Tensor | None, same_group: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Loss, top-1, positive logit and log-sum-exp of every row."""
    # Autocast would take the products to bf16 behind the op's back: logits are fp32 whatever surrounds the call.
    with torch.autocast(queries.device.type, enabled=False):
        work = torch.float64 if queries.dtype == torch.float64 else torch.float32
        q, k, scale = queries.to(work), keys.to(work), 1.0 / temperature.to(work)
        valid = positives >= 0
        own = (q * k[positives.clamp(min=0)]).sum(1) * scale
        lse = torch.empty_like(own)
        target = own.clone()
        top1 = torch.empty_like(valid)
        for start in range(0, len(q), tile_rows(len(k))):
            rows = slice(start, start + tile_rows(len(k)))
            logits = linear(q[rows] * scale, k)
            pairs = _pairs(rows, positives, query_groups, key_groups, same_group, work)
            if pairs.left_out is not None:
                logits.masked_fill_(pairs.left_out, float("-inf"))
            if pairs.positives is not None:
                target[rows] = (logits * pairs.positives).sum(1)
            # The positive's logit is taken from the tile, so that the same rounding stands on both sides of
            # the comparison.
            at_own = logits.gather(1, positives[rows].clamp(min=0)[:, None]).squeeze(1)
            highest = logits.amax(1)
            top1[rows] = at_own >= highest
            lse[rows] = logits.sub_(highest[:, None]).exp_().sum(1).log_() + highest
        loss = torch.where(valid, lse - target, 0.0)
        return loss, top1 & valid, torch.where(valid, own, 0.0), lse


@torch.library.custom_op("scalefast::infonce_rows_reference_backward", mutates_args=())
def _backward(
    grad_rows: Tensor, queries: Tensor, keys: Tensor, temperature: Tensor, positives: Tensor,
    query_groups: Tensor | None, key_groups: Tensor | None, lse: Tensor, same_group: str,
    need_q: bool, need_k: bool, need_t: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of queries, keys and temperature, each empty if it is not needed; logits are computed again."""
    with torch.autocast(queries.device.type, enabled=False):
        q, k, scale = queries.to(lse.dtype), keys.to(lse.dtype), 1.0 / temperature.to(lse.dtype)
        weight = torch.where(positives >= 0, grad_rows.to(lse.dtype), 0.0)
        grad_q = torch.empty_like(q) if need_q else q.new_empty(0)
        grad_k = torch.zeros_like(k) if need_k else k.new_empty(0)
        grad_t = torch.zeros_like(scale)
        for start in range(0, len(q), tile_rows(len(k))):
            rows = slice(start, start + tile_rows(len(k)))
            own = positives[rows].clamp(min=0)[:, None]
            q_tile = q[rows] * scale
            slope = linear(q_tile, k)
            pairs = _pairs(rows, positives, query_groups, key_groups, same_group, lse.dtype)
            if pairs.left_out is not None:
                slope.masked_fill_(pairs.left_out, float("-inf"))
            logits = slope.clone() if need_t else None
            slope.sub_(lse[rows, None]).exp_()
            if pairs.positives is not None:
                slope.sub_(pairs.positives)
            else:
                slope.scatter_add_(1, own, slope.new_full((1, 1), -1.0).expand_as(own))
            slope.mul_(weight[rows, None])  # d loss / d logit
            by_q, by_k = linear_gradients(slope, q_tile, k, wanted=(need_q, need_k))
            if by_q is not None:
                torch.mul(by_q, scale, out=grad_q[rows])
            if by_k is not None:
                grad_k += by_k
            if logits is not None:
                # Keys that are left out have slope 0 and logit -inf: their product must be 0, not NaN.
                grad_t -= (slope * logits.masked_fill_(slope == 0, 0.0)).sum() * scale
        return grad_q.to(queries.dtype), grad_k.to(keys.dtype), grad_t.to(temperature.dtype)


@_forward.register_fake
def _(queries, keys, temperature, positives, query_groups, key_groups, same_group):  # type: ignore[no-untyped-def]
    work = torch.float64 if queries.dtype == torch.float64 else torch.float32
    rows = queries.new_empty(len(queries), dtype=work)
    return rows, positives.new_empty(len(queries), dtype=torch.bool), rows.clone(), rows.clone()


@_backward.register_fake
def _(grad_rows, queries, keys, temperature, positives, query_groups, key_groups, lse, same_group, *need):  # type: ignore[no-untyped-def]
    need_q, need_k, _ = need
    grad_q = torch.empty_like(queries) if need_q else queries.new_empty(0)
    grad_k = torch.empty_like(keys) if need_k else keys.new_empty(0)
    return grad_q, grad_k, torch.empty_like(temperature)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.same_group = inputs
    ctx.save_for_backward(*tensors, output[3])
    ctx.mark_non_differentiable(*output[1:])


def _gradients(ctx: Any, grad_rows: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    need = ctx.needs_input_grad[:3]
    grads = _backward(grad_rows, *ctx.saved_tensors, ctx.same_group, *need)
    given = (grad if needed else None for grad, needed in zip(grads, need, strict=True))
    return (*given, None, None, None, None)


_forward.register_autograd(_gradients, setup_context=_keep)


def infonce_rows(
    queries: Tensor, keys: Tensor, positives: Tensor, *, temperature: Tensor,
    query_groups: Tensor | None = None, key_groups: Tensor | None = None, same_group: str = "exclude",
) -> RowStatistics:  # fmt: skip
    """Loss and statistics of every query against all keys; see the public function."""
    if len(keys) == 0 or len(queries) == 0:
        zero = (queries.sum() + keys.sum()) * 0.0 + torch.zeros(len(queries), device=queries.device)
        return RowStatistics(zero, torch.zeros_like(zero, dtype=torch.bool), zero.detach())
    rows, top1, positive_logit, _ = _forward(
        queries, keys, temperature, positives, query_groups, key_groups, same_group
    )
    return RowStatistics(rows, top1, positive_logit)
