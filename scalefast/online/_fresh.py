"""A bank without a store: each epoch's clips are decoded and go through the backbone when their step comes.

Worker processes decode ahead, in the order of the run. On a GPU the backbone runs in a thread and on a stream of
its own, one batch ahead of the step that trains, so that decoding, backbone and step overlap; on a CPU, where they
would take the cores from each other, it runs between the steps.

Shapes: `B` videos of this process's part of the batch, `C` clips a video, `V` clips a set, `D` feature.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scalefast import kernels
from scalefast.errors import DataError
from scalefast.features._decode import Decoded
from scalefast.features._job import Extraction
from scalefast.features._shard_builder import ShardBuilder
from scalefast.features._stages import StageClock
from scalefast.kernels import RandomState
from scalefast.online._ledger import Ledger
from scalefast.training.bank.batch import Bank, Batch
from scalefast.training.bank.prefetch import prefetched
from scalefast.training.sampler import BatchPlan, part_of
from scalefast.video import VideoEntry

__all__ = ["FreshBank", "draw_sets", "on_device"]


@dataclass(frozen=True, kw_only=True)
class FreshBank(Bank):
    """Features that are made for one step and forgotten."""

    job: Extraction
    """Videos, backbone and clips."""

    workers: int | None
    """Processes that decode."""

    ledger: Ledger
    """Is told what became of each video."""

    even = False

    def batches(self, plan: BatchPlan, *, start: int, views: int) -> Generator[Batch]:
        """This process's part of every batch; videos that cannot be decoded are left out.

        Raises:
            DataError: none of a batch's videos can be decoded.
        """
        clock = StageClock()
        made = self._made(plan, start=start, views=views, clock=clock)
        if self.world.device.type == "cuda":
            made = prefetched(_on_own_stream(made, device=self.world.device), ahead=1)
        with contextlib.closing(made):
            for batch in made:
                yield on_device(batch, self.world.device)
        self.ledger.close(self.world, clock=clock, resumed=start > 0)

    def _made(self, plan: BatchPlan, *, start: int, views: int, clock: StageClock) -> Generator[Batch]:
        """The batches in the host's memory."""
        build = self.job.builder(clock)
        decoding = self.job.decoded(self._videos(plan, start=start), workers=self.workers)
        with contextlib.closing(decoding) as decoded:
            for step, rows in self._parts(plan, start=start):
                kept, features, positions = self._read(build(), rows, decoded, step=step, clock=clock)
                yield draw_sets(
                    plan, step=step, rows=kept, features=features, positions=positions, views=views
                )

    def _parts(self, plan: BatchPlan, *, start: int) -> Iterator[tuple[int, Tensor]]:
        part = part_of(plan.batch, rank=self.world.rank, world_size=self.world.size)
        return ((step, rows[part]) for step, rows in plan.batches(start))

    def _videos(self, plan: BatchPlan, *, start: int) -> Iterator[tuple[VideoEntry, int]]:
        """What is decoded, and for which epoch, in the order in which the run needs it."""
        for step, rows in self._parts(plan, start=start):
            for row in rows.tolist():
                yield self.job.videos[row], step // plan.steps_per_epoch

    def _read(
        self, builder: ShardBuilder, rows: Tensor, decoded: Iterator[Decoded], *, step: int, clock: StageClock
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The rows that could be decoded, their features [B, C, D] and positions [B, C, 7]."""
        kept = []
        for row in rows.tolist():
            with clock("decode"):
                entry, result = self.job.videos[row], next(decoded)
            self.ledger.note(entry, result)
            builder.add(entry, result)
            if result.clips is not None:
                kept.append(row)
        if not kept:
            raise DataError(f"none of the {len(rows):,} videos of step {step + 1} can be decoded")
        content = builder.finish()
        clips = self.job.recipe.clips
        return (
            torch.tensor(kept),
            content.features.unflatten(0, (-1, clips)),
            content.positions.unflatten(0, (-1, clips)),
        )


def draw_sets(
    plan: BatchPlan, *, step: int, rows: Tensor, features: Tensor, positions: Tensor, views: int
) -> Batch:
    """Two disjoint sets of `views` clips of each video, those that a store's bank would draw in this step.

    Args:
        plan: of the run.
        step: the 0-based step.
        rows: int64 [B], the videos' places in the list.
        features: [B, C, D].
        positions: float32 [B, C, 7].
        views: V.
    """
    rng = RandomState.create(plan.seed, step=step, rows=rows)
    chosen = kernels.draw_views(rng, clips=features.shape[1], views=views)
    videos = torch.arange(len(rows))[:, None, None]
    return Batch(rows, features[videos, chosen], positions[videos, chosen])


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch where the step is computed."""
    return Batch._make(None if part is None else part.to(device) for part in batch)


def _on_own_stream(batches: Iterator[Batch], *, device: torch.device) -> Generator[Batch]:
    """The batches, made on a stream that does not wait for the training step; they come in the host's memory."""
    with torch.cuda.stream(torch.cuda.Stream(device)):
        yield from batches
