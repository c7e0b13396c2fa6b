"""From checked arrays to a finished store: what `FeatureStore.create` does besides checking."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from scalefast.errors import InputError
from scalefast.features._folder import put_in_place
from scalefast.features._inputs import Sets, check_finite, even_positions
from scalefast.features._shard import ShardContent
from scalefast.features._writer import StoreWriter

__all__ = ["SHARD_BYTES", "Contents", "write_store"]

SHARD_BYTES = 32 << 20
"""Features in one shard, about; extraction has its own rule."""


class Contents(NamedTuple):
    """Checked arguments of `create`."""

    sets: Sets
    given: dict[str, Sets]
    ids: list[str]
    labels: torch.Tensor | None

    def part(self, start: int, stop: int) -> ShardContent:
        """Videos `start` to `stop` (exclusive), with numbers checked."""
        lengths, ids = self.sets.lengths[start:stop], self.ids[start:stop]
        arrays = {
            name: sets.part(start, stop) for name, sets in {"features": self.sets, **self.given}.items()
        }
        for name, values in arrays.items():
            check_finite(values, lengths=lengths, ids=ids, first_row=start, name=name)
        positions = arrays.get("positions")
        raw = arrays.get("clips")
        if positions is None:
            positions = even_positions(lengths).to(torch.float32 if raw is None else raw.dtype)
        if raw is not None and raw.dtype != positions.dtype:
            raise InputError(f"clips are {raw.dtype} and positions {positions.dtype}: they must agree")
        return ShardContent(
            features=arrays["features"],
            lengths=lengths,
            positions=positions,
            clips=raw,
            labels=None if self.labels is None else self.labels[start:stop],
            ids=ids,
        )

    def bounds(self) -> list[tuple[int, int]]:
        """Shards of at most `SHARD_BYTES` of features, whole videos."""
        sizes = np.asarray(self.sets.lengths, dtype=np.int64) * self.sets.width * self.sets.dtype.itemsize
        bounds, start, total = [], 0, 0
        for row, size in enumerate(sizes.tolist()):
            if row > start and total + size > SHARD_BYTES:
                bounds.append((start, row))
                start, total = row, 0
            total += size
        return [*bounds, (start, len(sizes))]


def write_store(folder: Path, contents: Contents, *, plan: dict[str, Any], classes: list[str] | None) -> None:
    """Write a store beside `folder` and put it in its place when it is complete."""
    bounds = contents.bounds()
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    try:
        with StoreWriter(aside, plan=plan, shards=len(bounds), classes=classes) as writer:
            for index, (start, stop) in enumerate(bounds):
                writer.write_shard(index, contents.part(start, stop))
            writer.finish()
        put_in_place(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
