"""A bank that fills a store on the way: the first epoch trains on shards as they are finished, later ones read them.

The store is that of an ordinary extraction whose list stands in the order of the run's first epoch. So the first
batches need the first shards only, an interrupted run keeps its finished shards, and the bytes are those of
`extract` on that list.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scalefast.errors import DataError
from scalefast.features._job import Extraction, built_shards
from scalefast.features._shard import Shard, ShardContent
from scalefast.features._stages import StageClock
from scalefast.features._writer import StoreWriter
from scalefast.features.extraction import finish_store, open_writer
from scalefast.online._fresh import draw_sets, on_device
from scalefast.online._ledger import Ledger
from scalefast.training.bank.batch import Bank, Batch
from scalefast.training.sampler import BatchPlan
from scalefast.video import LedgerRow

__all__ = ["KeptBank", "in_first_order"]


@dataclass(frozen=True, kw_only=True)
class KeptBank(Bank):
    """Features in a store that the run itself fills."""

    job: Extraction
    """Videos, backbone and clips."""

    workers: int | None
    """Processes that decode."""

    ledger: Ledger
    """Is told what became of each video."""

    keep: str | os.PathLike[str]
    """Folder of the store, or its URL."""

    even = False

    def batches(self, plan: BatchPlan, *, start: int, views: int) -> Generator[Batch]:
        """Every batch; videos that cannot be decoded are left out.

        Raises:
            DataError: none of a batch's videos can be decoded. StoreError: the folder holds another store (of another
                seed, for example, which has another order), or cannot be written.
        """
        job = in_first_order(self.job, plan)
        clock = StageClock()
        with (
            open_writer(job, self.keep, overwrite=False) as writer,
            _Filling(job, writer, self, clock) as filling,
        ):
            for step, rows in plan.batches(start):
                if step // plan.steps_per_epoch == 0:
                    filling.need(plan.share(step).stop)
                else:
                    filling.complete()
                found = filling.clips([self.job.videos[row].id for row in rows.tolist()])
                if not found:
                    raise DataError(f"none of the {len(rows):,} videos of step {step + 1} can be decoded")
                features, positions = (torch.stack(part) for part in zip(*found.values(), strict=True))
                batch = draw_sets(
                    plan,
                    step=step,
                    rows=rows[list(found)],
                    features=features,
                    positions=positions,
                    views=views,
                )
                yield on_device(batch, self.world.device)
            filling.complete()
        self.ledger.close(self.world, clock=clock, resumed=False)


def in_first_order(job: Extraction, plan: BatchPlan) -> Extraction:
    """The extraction with its list in the order of the run's first epoch: that of the store."""
    entries = tuple(job.videos[row] for row in plan.order(0).tolist())
    return replace(job, videos=replace(job.videos, entries=entries))


class _Filling:
    """The store on its way: which clips it has, and the extraction that brings the others."""

    def __init__(self, job: Extraction, writer: StoreWriter, bank: KeptBank, clock: StageClock) -> None:
        self._job, self._writer, self._bank, self._clock = job, writer, bank, clock
        self._parts = job.parts
        self._shards: list[Shard] = []
        self._places: dict[str, tuple[int, int]] = {}
        todo = {index: part for index, part in enumerate(self._parts) if index not in writer.entries}
        self._making: Generator[tuple[int, ShardContent]] = built_shards(
            job, todo, workers=bank.workers, clock=clock, told=lambda entry, result: None
        )
        self._finished = False

    def __enter__(self) -> _Filling:
        return self

    def __exit__(self, *_: object) -> None:
        self._making.close()

    def need(self, videos: int) -> None:
        """Have at least the first `videos` of the store's list."""
        assert self._job.shard_videos is not None
        while len(self._shards) < min(-(-videos // self._job.shard_videos), len(self._parts)):
            index = len(self._shards)
            if index not in self._writer.entries:
                made, content = next(self._making)
                assert made == index
                with self._clock("write"):
                    self._writer.write_shard(index, content)
            shard = self._writer.shard(index)
            self._shards.append(shard)
            for place, name in enumerate(shard.read_text("ids")):
                self._places[name] = (index, place)
            for name, status, reason, frames in shard.read_text("ledger"):
                self._bank.ledger.take(LedgerRow(path=name, status=status, reason=reason, frames=frames))

    def complete(self) -> None:
        """Have all of it, as a finished store."""
        if not self._finished:
            self.need(len(self._job.videos))
            finish_store(self._writer)
            self._finished = True

    def clips(self, ids: list[str]) -> dict[int, tuple[Tensor, Tensor]]:
        """Place in `ids` -> features [C, D] and positions float32 [C, 7], of those videos that are there."""
        found = {}
        for number, name in enumerate(ids):
            if name in self._places:
                index, place = self._places[name]
                shard, unit = self._shards[index], torch.tensor([place]).numpy()
                width = self._job.recipe.clips
                features = shard.read_units("features", unit, width=width)[0]
                positions = shard.read_units("positions", unit, width=width)[0, :, 0]
                found[number] = (features.clone(), positions.float().clone())
        return found
