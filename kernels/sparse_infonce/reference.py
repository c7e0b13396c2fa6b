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
from torch.autograd.function import once_differentiable

from ..products import linear

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


class _InfoNCERows(torch.autograd.Function):
    """Rows of the one-directional loss; the backward computes each tile of logits anew and keeps none."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, temperature: Tensor, positives: Tensor,
        query_groups: Tensor | None, key_groups: Tensor | None, same_group: str,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
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
        ctx.save_for_backward(queries, keys, temperature, positives, query_groups, key_groups, lse)
        ctx.same_group = same_group
        loss = torch.where(valid, lse - target, 0.0)
        ctx.mark_non_differentiable(top1, own)
        return loss, top1 & valid, torch.where(valid, own, 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rows: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grad_rows.device.type, enabled=False):
            return _InfoNCERows._gradients(ctx, grad_rows)

    @staticmethod
    def _gradients(ctx: Any, grad_rows: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, temperature, positives, query_groups, key_groups, lse = ctx.saved_tensors
        need_q, need_k, need_t = ctx.needs_input_grad[:3]
        q, k, scale = queries.to(lse.dtype), keys.to(lse.dtype), 1.0 / temperature.to(lse.dtype)
        weight = torch.where(positives >= 0, grad_rows.to(lse.dtype), 0.0)
        grad_q = torch.empty_like(q) if need_q else None
        grad_k = torch.zeros_like(k) if need_k else None
        grad_t = torch.zeros_like(scale)
        k = k.detach().requires_grad_(need_k)
        for start in range(0, len(q), tile_rows(len(k))):
            rows = slice(start, start + tile_rows(len(k)))
            own = positives[rows].clamp(min=0)[:, None]
            q_tile = (q[rows] * scale).requires_grad_(need_q)
            with torch.enable_grad():
                product = linear(q_tile, k)
            slope = product.data  # not detach(): that would tell autograd, which then copies a whole tile
            pairs = _pairs(rows, positives, query_groups, key_groups, ctx.same_group, lse.dtype)
            if pairs.left_out is not None:
                slope.masked_fill_(pairs.left_out, float("-inf"))
            logits = slope.clone() if need_t else None
            slope.sub_(lse[rows, None]).exp_()
            if pairs.positives is not None:
                slope.sub_(pairs.positives)
            else:
                slope.scatter_add_(1, own, slope.new_full((1, 1), -1.0).expand_as(own))
            slope.mul_(weight[rows, None])  # d loss / d logit
            # A product's backward pass needs its inputs only, so that its output could become the slope in place.
            leaves = [leaf for leaf in (q_tile, k) if leaf.requires_grad]
            grads = list(torch.autograd.grad(product, leaves, slope)) if leaves else []
            if grad_q is not None:
                torch.mul(grads.pop(0), scale, out=grad_q[rows])
            if grad_k is not None:
                grad_k += grads.pop(0)
            if logits is not None:
                # Keys that are left out have slope 0 and logit -inf: their product must be 0, not NaN.
                grad_t -= (slope * logits.masked_fill_(slope == 0, 0.0)).sum() * scale
        return (
            None if grad_q is None else grad_q.to(queries.dtype),
            None if grad_k is None else grad_k.to(keys.dtype),
            grad_t.to(temperature.dtype) if need_t else None,
            None, None, None, None,
        )  # fmt: skip


def infonce_rows(
    queries: Tensor, keys: Tensor, positives: Tensor, *, temperature: Tensor,
    query_groups: Tensor | None = None, key_groups: Tensor | None = None, same_group: str = "exclude",
) -> RowStatistics:  # fmt: skip
    """Loss and statistics of every query against all keys; see the public function."""
    if len(keys) == 0 or len(queries) == 0:
        zero = (queries.sum() + keys.sum()) * 0.0 + torch.zeros(len(queries), device=queries.device)
        return RowStatistics(zero, torch.zeros_like(zero, dtype=torch.bool), zero.detach())
    # Autocast would take the products to bf16 behind the op's back: logits are fp32 whatever surrounds the call.
    with torch.autocast(queries.device.type, enabled=False):
        return RowStatistics(
            *_InfoNCERows.apply(queries, keys, temperature, positives, query_groups, key_groups, same_group)
        )
