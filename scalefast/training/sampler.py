"""Which videos each step sees: a pure function of (seed, epoch, step), whatever the number of processes.

Nothing is kept between steps, so a run that resumes in the middle of an epoch, a run on more processes and an
uninterrupted run see the same batches in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scalefast.errors import InputError
from scalefast.kernels import RandomState, philox

__all__ = ["BatchPlan", "part_of"]

_CPU = torch.device("cpu")

_ROWS_AT_A_TIME = 1 << 16
"""Rows whose random bits are drawn at a time, so that they stay in cache: 0.57 s for a million rows instead of 1.4
(2-core EPYC, Zen 5, on a loaded machine, 2026-11-21)."""


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

    def order(self, epoch: int, *, device: torch.device = _CPU) -> Tensor:
        """All rows of the store in the order of the 0-based `epoch`: an int64 permutation, the same on any device.

        Rows sorted by 64 random bits each: Philox with the seed and the counter index = row, site = ORDER
        and step = epoch.
        """
        rng = RandomState.create(self.seed, step=epoch, rows=torch.zeros(1, dtype=torch.int64, device=device))
        keys = torch.empty(self.num_videos, dtype=torch.int64, device=device)
        for start in range(0, self.num_videos, _ROWS_AT_A_TIME):
            stop = min(start + _ROWS_AT_A_TIME, self.num_videos)
            index = torch.arange(start, stop, device=device)
            high, low = (word[0] for word in rng.words(philox.Site.ORDER, index)[:2])
            keys[start:stop] = (high << 32) | low
        return torch.argsort(keys, stable=True)

    def batches(self, start: int, *, device: torch.device = _CPU) -> Iterator[tuple[int, Tensor]]:
        """Every step from the 0-based `start` on, and the rows of its whole batch: int64 [batch]."""
        for step in range(start, self.total_steps):
            if step == start or step % self.steps_per_epoch == 0:
                order = self.order(step // self.steps_per_epoch, device=device)
            yield step, order[self.share(step)]

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
        part = part_of(self.batch, rank=rank, world_size=world_size)
        return slice(start + part.start, start + part.stop)

    def shares(self, world_size: int) -> list[int]:
        """Videos of every process in a step, which are the same in all steps."""
        parts = (part_of(self.batch, rank=rank, world_size=world_size) for rank in range(world_size))
        return [part.stop - part.start for part in parts]


def part_of(count: int, *, rank: int, world_size: int) -> slice:
    """The part of `count` things that a process takes: consecutive ones, equal to within one over the processes."""
    return slice(rank * count // world_size, (rank + 1) * count // world_size)
