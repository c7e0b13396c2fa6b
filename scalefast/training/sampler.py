"""Which videos each step sees: a pure function of (seed, epoch, step), whatever the number of processes.

Nothing is kept between steps, so a run that resumes in the middle of an epoch, a run on more processes and an
uninterrupted run see the same batches in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scalefast.errors import InputError
from scalefast.kernels import RandomState, philox

__all__ = ["BatchPlan"]


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The batches of a run over `num_videos` videos.

    The batch is `min(batch_size, num_videos)` videos. Where there are more videos than a batch holds, the
    last incomplete batch of an epoch is dropped: every epoch shuffles anew, so each one leaves out other
    videos.
    """

    num_videos: int
    """Videos in the store."""

    batch_size: int
    """Videos asked for in a step, over all processes together."""

    epochs: int
    """Passes over the videos."""

    seed: int
    """Seed of the run."""

    def __post_init__(self) -> None:
        if self.num_videos < 2:
            raise InputError(
                f"pretraining contrasts videos and needs at least 2, but the store holds {self.num_videos}"
            )

    @property
    def batch(self) -> int:
        """Videos that a step really holds, over all processes together."""
        return min(self.batch_size, self.num_videos)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return self.num_videos // self.batch

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def dropped(self) -> int:
        """Videos that an epoch leaves out, others every time."""
        return self.num_videos - self.batch * self.steps_per_epoch

    def order(self, epoch: int) -> Tensor:
        """All rows of the store in the order of the 0-based `epoch`: an int64 permutation.

        Rows sorted by 64 random bits each: Philox with the seed and the counter index = row, site = ORDER
        and step = epoch.
        """
        rng = RandomState.create(self.seed, step=epoch, rows=torch.zeros(1, dtype=torch.int64))
        high, low = (word[0] for word in rng.words(philox.Site.ORDER, torch.arange(self.num_videos))[:2])
        return torch.argsort((high << 32) | low, stable=True)

    def share(self, step: int, *, rank: int = 0, world_size: int = 1) -> slice:
        """Where in the order of its epoch the rows stand that process `rank` takes in the 0-based `step`.

        Processes take consecutive parts of the batch, equal to within one video, so that their rows in rank
        order are the batch.

        Raises:
            InputError: there are more processes than videos in the batch.
        """
        if self.batch < world_size:
            raise InputError(f"{world_size} processes cannot share a batch of {self.batch} videos")
        start = (step % self.steps_per_epoch) * self.batch
        return slice(start + rank * self.batch // world_size, start + (rank + 1) * self.batch // world_size)
