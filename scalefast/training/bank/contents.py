"""Reading a store, or a part of it, once from end to end: verified, checked for NaN, summed, and kept where wanted.

Shapes: `N` videos, `C` clips a video, `D` feature.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from scalefast._text import counted
from scalefast.errors import DataError, InputError
from scalefast.training._bytes import Crc32

if TYPE_CHECKING:
    from scalefast.features import FeatureStore

__all__ = ["Sums", "check_sets", "describe", "read_part"]

_BYTES_AT_A_TIME = 64 << 20


class Sums(NamedTuple):
    """Checksums of the contents of a part of a store."""

    features: Crc32
    """Of the features, in their own dtype."""

    positions: Crc32
    """Of the positions as float32."""

    @classmethod
    def joined(cls, parts: Sequence[Sums]) -> Sums:
        """Of parts that follow each other."""
        whole = cls(Crc32(), Crc32())
        for part in parts:
            whole = cls(whole.features.joined(part.features), whole.positions.joined(part.positions))
        return whole


def check_sets(store: FeatureStore, *, views: int) -> None:
    """Refuse a store that a run cannot draw two disjoint sets of `views` clips from.

    Raises:
        InputError: sets of different lengths, fewer than `2 * views` clips a video, or fewer than 2 videos.
    """
    lengths = torch.as_tensor(store.lengths)
    fewest, most = (int(lengths.min()), int(lengths.max())) if len(lengths) else (0, 0)
    if len(store) < 2:
        raise InputError(f"pretraining contrasts videos and needs at least 2; the store holds {len(store)}")
    if fewest != most:
        raise InputError(
            f"the store holds from {fewest} to {most} clips a video; pretraining needs the same number for "
            f"every video (at least 2 x views = {2 * views})"
        )
    if most < 2 * views:
        remedy = f"extract more clips, or take views={most // 2}" if most > 1 else "extract more clips"
        raise InputError(
            f"the store holds {counted(most, 'clip')} a video, but two disjoint sets of views={views} need "
            f"{2 * views}: {remedy}"
        )


def read_part(store: FeatureStore, part: slice, *, into: tuple[Tensor, Tensor] | None = None) -> Sums:
    """Read these videos, some at a time, and copy them into features [n, C, D] and positions [n, C, 7] if given.

    Raises:
        DataError: a damaged block, or a feature or position that is NaN or infinite (the video is named).
    """
    videos = max(1, _BYTES_AT_A_TIME // max(1, store.features.nbytes // len(store)))
    sums = Sums(Crc32(), Crc32())
    for start in range(part.start, part.stop, videos):
        stop = min(start + videos, part.stop)
        features, positions = store.features[start:stop], store.positions[start:stop].float()
        _check_finite(features, name="feature", ids=store.ids, first=start)
        _check_finite(positions, name="position", ids=store.ids, first=start)
        sums = Sums(sums.features.of_more(features), sums.positions.of_more(positions))
        if into is not None:
            place = slice(start - part.start, stop - part.start)
            into[0][place], into[1][place] = features.to(into[0].device), positions.to(into[1].device)
    return sums


def describe(store: FeatureStore, sums: Sums) -> dict[str, Any]:
    """What identifies a store, for run.json."""
    videos, clips, width = store.features.shape
    return {
        "videos": videos,
        "clips": clips,
        "feature_dim": width,
        "dtype": str(store.features.dtype).removeprefix("torch."),
        "features_crc32": f"{sums.features.value:08x}",
        "positions_crc32": f"{sums.positions.value:08x}",
        "ids_crc32": f"{zlib.crc32(json.dumps(list(store.ids)).encode()):08x}",
        "provenance": store.provenance,
    }


def _check_finite(values: Tensor, *, name: str, ids: Sequence[str], first: int) -> None:
    bad = ~values.isfinite().flatten(1).all(1)
    if bad.any():
        row = first + int(bad.nonzero()[0])
        raise DataError(
            f"video {ids[row]!r} (row {row} of the store) has a {name} that is NaN or "
            f"infinite; every {name} must be finite: extract it again or leave it out"
        )
