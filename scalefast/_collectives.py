"""What the losses need of torch.distributed; without it every function is the identity of one process.

Ranks may bring different numbers of rows. A sum over ranks in the forward pass of a loss that every rank then
differentiates is undone by DDP's averaging: see `global_mean`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gather_rows", "global_mean", "global_offset", "world_size"]


def world_size(group: dist.ProcessGroup | None = None) -> int:
    """Ranks in the group; 1 without torch.distributed."""
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def _row_counts(rows: int, group: dist.ProcessGroup | None, device: torch.device) -> list[int]:
    counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world_size(group))]
    dist.all_gather(counts, torch.tensor([rows], device=device), group=group)
    return [int(count) for count in counts]


class _GatherRows(torch.autograd.Function):
    """All ranks' rows; the gradient of a row is the sum of what every rank found for it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int], group: dist.ProcessGroup | None) -> Tensor:
        ctx.counts, ctx.group, ctx.rank = counts, group, dist.get_rank(group)
        longest = max(counts)
        padded = rows.new_zeros(longest, *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, group=group)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        total = grads[0].contiguous()
        dist.all_reduce(total, group=ctx.group)
        start = sum(ctx.counts[: ctx.rank])
        return total[start : start + ctx.counts[ctx.rank]], None, None


def gather_rows(rows: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """[n, D] of each rank -> [sum of n, D], in rank order, differentiable."""
    if world_size(group) == 1:
        return rows
    return _GatherRows.apply(rows, _row_counts(len(rows), group, rows.device), group)


def global_offset(rows: int, group: dist.ProcessGroup | None) -> int:
    """Where this rank's rows begin in `gather_rows`."""
    if world_size(group) == 1:
        return 0
    device = torch.device("cuda") if dist.get_backend(group) == "nccl" else torch.device("cpu")
    return sum(_row_counts(rows, group, device)[: dist.get_rank(group)])


def global_mean(
    rows: Tensor, hits: Tensor, *, valid: Tensor, group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor]:
    """Mean loss and hit rate over the valid rows of all ranks.

    The value is the global mean on every rank. Its gradient is that of `world size * local sum / global
    count`, so that gradients averaged over ranks are those of one process that sees all rows.

    Args:
        rows: [M] losses, 0 where not valid.
        hits: bool [M].
        valid: bool [M].

    Returns:
        loss and accuracy, 0-d; both 0 if no row is valid anywhere.
    """
    local = rows.sum()
    sums = torch.stack([valid.sum().to(local.dtype), local.detach(), (hits & valid).sum().to(local.dtype)])
    ranks = world_size(group)
    if ranks > 1:
        dist.all_reduce(sums, group=group)
    count = sums[0].clamp(min=1)
    loss = local * (ranks / count)
    if ranks > 1:
        loss = loss + (sums[1] / count - loss).detach()
    return loss, sums[2] / count
