"""The features that a run trains on, whole in memory, and where they came from.

Shapes: `N` videos, `C` clips a video, `D` feature, `B` videos in the batch, `V` clips a set.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scalefast import kernels
from scalefast.errors import DataError, InputError
from scalefast.kernels import RandomState
from scalefast.training._bytes import tensor_bytes

if TYPE_CHECKING:
    from scalefast.features import FeatureStore

__all__ = ["Bank", "load_bank"]

_GPU_SHARE = 0.6
"""Share of a GPU's free memory that the bank may take; the rest is for the step."""

_ROWS_AT_A_TIME = 4096


@dataclass(frozen=True, kw_only=True)
class Bank:
    """All clip features of a store, checked, on the device that draws views from them."""

    features: Tensor
    """[N, C, D], in the dtype of the store."""

    positions: Tensor
    """float32 [N, C, 7]."""

    facts: dict[str, Any]
    """What identifies the store: sizes, dtype, checksums of the contents, provenance. JSON values."""

    device: torch.device
    """Where the training step runs; the bank itself stays on the CPU if it does not fit there."""

    def __len__(self) -> int:
        return len(self.features)

    def draw(self, rows: Tensor, *, views: int, rng: RandomState) -> tuple[Tensor, Tensor]:
        """Two disjoint sets of `views` clips of each video: [B, 2, V, D] and [B, 2, V, 7], on `device`."""
        home = self.features.device
        if home != rng.state.device:
            rows = rows.to(home)
            rng = RandomState(rng.state.to(home), rows)
        features, positions = kernels.sample_views(self.features, self.positions, rows, views=views, rng=rng)
        return features.to(self.device), positions.to(self.device)


def load_bank(store: FeatureStore | str | os.PathLike[str], *, views: int, device: torch.device) -> Bank:
    """Read a store whole, verify it, and put it where training wants it.

    Raises:
        InputError: sets of different lengths, or fewer than `2 * views` clips a video.
        DataError: a damaged store, or a feature or position that is NaN or infinite (the video is named).
    """
    opened = _open(store)
    lengths = torch.as_tensor(opened.lengths)
    fewest, most = (int(lengths.min()), int(lengths.max())) if len(lengths) else (0, 0)
    if len(opened) < 2:
        raise InputError(f"pretraining contrasts videos and needs at least 2; the store holds {len(opened)}")
    if fewest != most:
        raise InputError(
            f"the store holds from {fewest} to {most} clips a video; pretraining needs the same number for "
            f"every video (at least 2 x views = {2 * views})"
        )
    if most < 2 * views:
        remedy = f"extract more clips, or take views={most // 2}" if most > 1 else "extract more clips"
        raise InputError(
            f"the store holds {most} clips a video, but two disjoint sets of views={views} need {2 * views}: "
            f"{remedy}"
        )
    features, positions = opened.load("cpu")
    for name, values in (("feature", features), ("position", positions)):
        _check_finite(values, name=name, ids=opened.ids)
    facts = _facts(opened, features, positions)
    if _fits(features, positions, device):
        features, positions = features.to(device), positions.to(device)
    return Bank(features=features, positions=positions, facts=facts, device=device)


def _open(store: FeatureStore | str | os.PathLike[str]) -> FeatureStore:
    if isinstance(store, (str, os.PathLike)):
        from scalefast.features import FeatureStore

        return FeatureStore.open(Path(store))
    return store


def _check_finite(values: Tensor, *, name: str, ids: tuple[str, ...]) -> None:
    for start in range(0, len(values), _ROWS_AT_A_TIME):
        part = values[start : start + _ROWS_AT_A_TIME]
        bad = ~part.isfinite().flatten(1).all(1)
        if bad.any():
            row = start + int(bad.nonzero()[0])
            raise DataError(
                f"video {ids[row]!r} (row {row} of the store) has a {name} that is NaN or "
                f"infinite; every {name} must be finite: extract it again or leave it out"
            )


def _facts(store: FeatureStore, features: Tensor, positions: Tensor) -> dict[str, Any]:
    videos, clips, width = features.shape
    return {
        "videos": videos,
        "clips": clips,
        "feature_dim": width,
        "dtype": str(features.dtype).removeprefix("torch."),
        "features_crc32": f"{zlib.crc32(tensor_bytes(features)):08x}",
        "positions_crc32": f"{zlib.crc32(tensor_bytes(positions)):08x}",
        "ids_crc32": f"{zlib.crc32(json.dumps(list(store.ids)).encode()):08x}",
        "provenance": store.provenance,
    }


def _fits(features: Tensor, positions: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return features.nbytes + positions.nbytes <= _GPU_SHARE * free
