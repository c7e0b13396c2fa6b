"""A bank that stays on the disk: the clips of the coming batches are read ahead from memory-mapped shards.

Shapes: `B` videos in this process's part of the batch, `C` clips a video, `V` clips a set, `D` feature.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scalefast import kernels
from scalefast.features._stamps import Stamps
from scalefast.kernels import RandomState
from scalefast.training.bank.batch import Bank, Batch
from scalefast.training.bank.prefetch import prefetched
from scalefast.training.sampler import BatchPlan, part_of

if TYPE_CHECKING:
    from scalefast.features import FeatureStore

__all__ = ["StreamedBank"]

_AHEAD = 2
"""Batches that are ready before they are asked for: one on its way to the device, one being read."""


@dataclass(frozen=True, kw_only=True)
class StreamedBank(Bank):
    """Features in the files of the store, of which a batch's drawn clips alone are read."""

    store: FeatureStore
    """The store, all sets of one length."""

    stamps: Stamps
    """Of the store's files, from before they were verified."""

    def batches(self, plan: BatchPlan, *, start: int, views: int) -> Generator[Batch]:
        """Read, and on CUDA sent, by a thread that is at most two batches ahead."""
        read = self.read(plan, start=start, views=views)
        if self.world.device.type != "cuda":
            with contextlib.closing(prefetched(read, ahead=_AHEAD)) as ready:
                yield from ready
            return
        with contextlib.closing(prefetched(_sent(read, device=self.world.device), ahead=_AHEAD)) as coming:
            for batch, arrived in coming:
                yield _received(batch, arrived)

    def read(self, plan: BatchPlan, *, start: int, views: int) -> Iterator[Batch]:
        """The same batches in the host's memory, each read when it is asked for.

        Raises:
            StoreError: a file of the store was changed since it was verified.
        """
        part = part_of(plan.batch, rank=self.world.rank, world_size=self.world.size)
        clips = self.facts["clips"]
        for step, batch in plan.batches(start):
            rows = batch[part]
            chosen = kernels.draw_views(
                RandomState.create(plan.seed, step=step, rows=rows), clips=clips, views=views
            )
            features, positions = self.store.take_clips((rows[:, None, None] * clips + chosen).flatten())
            self.stamps.check()
            yield Batch(rows, *(part.unflatten(0, chosen.shape) for part in (features, positions)))


def _sent(batches: Iterator[Batch], *, device: torch.device) -> Iterator[tuple[Batch, torch.cuda.Event]]:
    """The batches on a CUDA device, perhaps still on their way, and an event that says when they have arrived.

    Two page-locked buffers take turns, so that one is read into while the other is copied from, beside the computation.
    """
    stream = torch.cuda.Stream(device)
    buffers: list[list[Tensor]] = [[], []]
    copied: list[torch.cuda.Event | None] = [None, None]
    for number, batch in enumerate(batches):
        turn, parts = number % 2, [part for part in batch if part is not None]
        if (last := copied[turn]) is not None:
            last.synchronize()  # in the reading thread: the copy from this buffer, two batches ago, is done
        buffer = buffers[turn] = buffers[turn] or [torch.empty_like(part, pin_memory=True) for part in parts]
        with torch.cuda.stream(stream):
            moved = [
                pinned.copy_(part).to(device, non_blocking=True)
                for pinned, part in zip(buffer, parts, strict=True)
            ]
            arrived = torch.cuda.Event()
            arrived.record(stream)
        copied[turn] = arrived
        yield Batch(*moved), arrived


def _received(batch: Batch, arrived: torch.cuda.Event) -> Batch:
    """The batch for the stream that trains, which waits for it; the host does not."""
    training = torch.cuda.current_stream(batch.rows.device)
    training.wait_event(arrived)
    for part in batch:
        if part is not None:
            part.record_stream(training)  # its memory is not given away before the step has read it
    return batch
