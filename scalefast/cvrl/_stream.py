"""Batches of decoded clips, in the order of the run's plan, whatever the number of workers and processes.

Shapes: `B` videos of this process in a step, `V` clips of a video, `T` frames, `S` pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scalefast.cvrl._decode import ClipItem, ClipJob, ClipPlan, DecodedClips, time_limit
from scalefast.errors import DataError
from scalefast.training.distributed import World
from scalefast.training.sampler import BatchPlan
from scalefast.video import VideoEntry, VideoMeta, isolated_map

__all__ = ["Batch", "stream_batches"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a process trains on in a step."""

    rows: Tensor
    """int64 [B], on the CPU: numbers of the videos in the run's list."""
    epoch: int
    """From 0."""
    step: int
    """From 0."""
    clips: Tensor
    """uint8 [B, V, T, S, S, 3], on the CPU."""
    positions: Tensor
    """float32 [B, V, 7], raw."""
    durations: Tensor
    """float64 [B], seconds."""


def stream_batches(
    entries: Sequence[VideoEntry],
    *,
    plan: BatchPlan,
    clips: ClipPlan,
    world: World,
    start: int,
    workers: int | None,
) -> Generator[Batch, None, None]:
    """The batches of this process from step `start` on; closing the generator ends the workers.

    A video's clips depend on (seed, epoch, id) alone. The next batch is decoded while the present one is trained on.

    Raises:
        DataError: a file cannot be decoded; nothing takes its place.
    """
    if start >= plan.total_steps:
        return
    metas: dict[int, VideoMeta] = {}
    order = functools.lru_cache(maxsize=2)(plan.order)  # two epochs are under way where one ends

    def share(step: int) -> list[int]:
        mine = plan.share(step, rank=world.rank, world_size=world.size)
        return order(step // plan.steps_per_epoch)[mine].tolist()

    def items() -> Iterator[ClipItem]:
        for step in range(start, plan.total_steps):
            epoch = step // plan.steps_per_epoch
            for row in share(step):
                entry = entries[row]
                yield ClipItem(str(entry.path), entry.id, epoch, metas.get(row))

    job, window = ClipJob(plan=clips), 2 * len(share(start))
    outcomes = isolated_map(job, items(), workers=workers, timeout=time_limit, window=window)
    try:
        for step in range(start, plan.total_steps):
            rows, decoded = share(step), []
            for row in rows:
                outcome = next(outcomes)
                if outcome.value is None:
                    raise DataError(_lost(entries[row], outcome.failure, outcome.message))
                metas[row] = outcome.value.meta
                decoded.append(outcome.value)
            yield _batch(rows, decoded, step=step, epoch=step // plan.steps_per_epoch)
    finally:
        outcomes.close()  # type: ignore[attr-defined]  # a generator


def _batch(rows: list[int], decoded: list[DecodedClips], *, step: int, epoch: int) -> Batch:
    return Batch(
        rows=torch.tensor(rows),
        epoch=epoch,
        step=step,
        clips=torch.from_numpy(np.stack([each.clips for each in decoded])),
        positions=torch.from_numpy(np.stack([each.positions for each in decoded])),
        durations=torch.tensor([each.meta.duration for each in decoded], dtype=torch.float64),
    )


def _lost(entry: VideoEntry, failure: str | None, message: str) -> str:
    why = message if failure == "error" else f"its decoder ended by a {failure}"
    return (
        f"{entry.id} could not be decoded in training, though its ledger says that it can: {why}. The run stops, "
        "nothing takes its place; mend the file and resume, or scan again and begin a new run"
    )
