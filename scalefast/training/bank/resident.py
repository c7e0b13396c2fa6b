"""A bank that lies whole on the device that trains: a batch is its rows, and the step draws the views itself."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from torch import Tensor

from scalefast import kernels
from scalefast.kernels import RandomState
from scalefast.training.bank.batch import Bank, Batch
from scalefast.training.sampler import BatchPlan, part_of

__all__ = ["ResidentBank"]


@dataclass(frozen=True, kw_only=True)
class ResidentBank(Bank):
    """All features on the device of `world`."""

    features: Tensor
    """[N, C, D], in the dtype of the store."""

    positions: Tensor
    """float32 [N, C, 7]."""

    def batches(self, plan: BatchPlan, *, start: int, views: int) -> Generator[Batch]:
        """Rows alone, made on the device: nothing crosses to it in a step."""
        part = part_of(plan.batch, rank=self.world.rank, world_size=self.world.size)
        for _, rows in plan.batches(start, device=self.world.device):
            yield Batch(rows[part])

    def sets(self, batch: Batch, *, views: int, rng: RandomState) -> tuple[Tensor, Tensor]:
        """Draws them."""
        return kernels.sample_views(self.features, self.positions, batch.rows, views=views, rng=rng)
