"""What the losses need of torch.distributed; without it every function is the identity of one process.

Ranks may bring different numbers of rows. A sum over ranks in the forward pass of a loss that every rank then
differentiates is undone by DDP's averaging: see `global_mean`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Ranks", "gather_rows", "global_mean", "global_offset", "world_size"]


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


def gather_rows(
    rows: Tensor, group: dist.ProcessGroup | None, *, counts: Sequence[int] | None = None
) -> Tensor:
    """[n, D] of each rank -> [sum of n, D], in rank order, differentiable.

    `counts`: rows of each rank, where they are known; else the ranks ask each other, and the host waits for the answer.
    """
    if world_size(group) == 1:
        return rows
    known = _row_counts(len(rows), group, rows.device) if counts is None else list(counts)
    return _GatherRows.apply(rows, known, group)


def global_offset(rows: int, group: dist.ProcessGroup | None, *, counts: Sequence[int] | None = None) -> int:
    """Where this rank's rows begin in `gather_rows`."""
    if world_size(group) == 1:
        return 0
    if counts is None:
        device = torch.device("cuda") if dist.get_backend(group) == "nccl" else torch.device("cpu")
        counts = _row_counts(rows, group, device)
    return sum(counts[: dist.get_rank(group)])


@dataclass(frozen=True)
class Ranks:
    """The ranks that share a batch of videos, and what a loss asks of them."""

    group: dist.ProcessGroup | None = None
    """None: the default group if there is one."""

    shares: Sequence[int] | None = None
    """Videos of each rank, where they are known; all rows below are then so and so many a video."""

    def gather(self, rows: Tensor) -> Tensor:
        """`gather_rows`."""
        return gather_rows(rows, self.group, counts=self._counts(rows))

    def offset(self, rows: Tensor) -> int:
        """`global_offset` of these rows."""
        return global_offset(len(rows), self.group, counts=self._counts(rows))

    def _counts(self, rows: Tensor) -> list[int] | None:
        if self.shares is None or world_size(self.group) == 1:
            return None
        own = self.shares[dist.get_rank(self.group)]
        assert len(self.shares) == world_size(self.group) and len(rows) % own == 0
        return [len(rows) // own * share for share in self.shares]


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
