"""A bank of which every process holds a part: the holder of a video draws its views and sends them on.

Shapes: `N` videos, `C` clips a video, `D` feature, `V` clips a set.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from scalefast import kernels
from scalefast.kernels import RandomState
from scalefast.training.bank.batch import Bank, Batch
from scalefast.training.sampler import BatchPlan, part_of

__all__ = ["ShardedBank"]


@dataclass(frozen=True, kw_only=True)
class ShardedBank(Bank):
    """A part of the features on the device of each process, part `rank` of `world.size` equal ones.

    Each process trains on the videos that it would train on with the whole bank, so that results are the same to
    the bit and the work is even. A step sends (W - 1) / W of its batch: 11 MB for 512 videos of 16 clips of 768
    numbers in fp16 with 8 processes, all of them together.
    """

    features: Tensor
    """[n, C, D]: rows `held` of the store."""

    positions: Tensor
    """float32 [n, C, 7]."""

    @property
    def held(self) -> slice:
        """Rows of the store that this process holds."""
        return part_of(len(self), rank=self.world.rank, world_size=self.world.size)

    def batches(self, plan: BatchPlan, *, start: int, views: int) -> Generator[Batch]:
        """One exchange a batch; what goes where follows from the plan, which every process knows."""
        for step, rows in plan.batches(start):
            shares = [self._part(plan.batch, rank) for rank in range(self.world.size)]
            mine = rows[shares[self.world.rank]]
            holds = (rows >= self.held.start) & (rows < self.held.stop)
            drawn = self._draw(rows[holds], step=step, seed=plan.seed, views=views)
            owners = self._owner(mine)
            sent = [int(holds[share].sum()) for share in shares]
            received = torch.bincount(owners, minlength=self.world.size).tolist()
            # Rows come ordered by their holder, and in the order of the batch from each of them.
            place = torch.argsort(torch.argsort(owners, stable=True)).to(self.world.device)
            features, positions = (_exchange(part, sent, received)[place] for part in drawn)
            yield Batch(mine.to(self.world.device), features, positions)

    def _part(self, count: int, rank: int) -> slice:
        return part_of(count, rank=rank, world_size=self.world.size)

    def _owner(self, rows: Tensor) -> Tensor:
        stops = torch.tensor([self._part(len(self), rank).stop for rank in range(self.world.size)])
        return torch.bucketize(rows, stops, right=True)

    def _draw(self, rows: Tensor, *, step: int, seed: int, views: int) -> tuple[Tensor, Tensor]:
        """Both sets of these videos, which this process holds: [n, 2, V, D] and [n, 2, V, 7]."""
        rows = rows.to(self.world.device)
        rng = RandomState.create(seed, step=step, rows=rows)
        chosen = kernels.draw_views(rng, clips=self.features.shape[1], views=views)
        video = (rows - self.held.start)[:, None, None]
        return self.features[video, chosen], self.positions[video, chosen]


def _exchange(rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
    """Rows to every process, `sent[i]` to process i, and theirs, `received[i]` from process i; any dtype, as bytes."""
    packed = rows.flatten(1).view(torch.uint8)
    arrived = packed.new_empty(sum(received), packed.shape[1])
    dist.all_to_all_single(arrived, packed, received, sent)
    return arrived.view(rows.dtype).view(-1, *rows.shape[1:])
