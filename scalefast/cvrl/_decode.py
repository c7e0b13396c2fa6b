"""The part of a run over clips that runs in worker processes: from a file to clips. Imports no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from scalefast.video import (
    AugmentationRecipe,
    ClipRecipe,
    ClipSpec,
    ShortDecodeError,
    VideoMeta,
    clip_positions,
    decode_clips,
    probe,
    sample_clip_pair,
    sample_clips,
)

__all__ = ["ClipItem", "ClipJob", "ClipPlan", "DecodedClips", "PairPlan", "RandomPlan", "time_limit"]

_SECONDS, _BYTES_A_SECOND = 60.0, 256 << 10  # as extraction has them


class ClipItem(NamedTuple):
    """One video of one epoch."""

    path: str
    id: str
    epoch: int
    meta: VideoMeta | None
    """What an earlier epoch found out about the file; None: it is looked at again."""


class DecodedClips(NamedTuple):
    """A video's clips."""

    clips: np.ndarray
    """uint8 [V, T, S, S, 3]."""
    positions: np.ndarray
    """Raw positions float32 [V, 7]."""
    meta: VideoMeta


class ClipPlan(Protocol):
    """Which clips of a video a step takes; picklable, a pure function."""

    def __call__(self, meta: VideoMeta, *, video_id: str, epoch: int) -> list[ClipSpec]:
        """V clips."""


@dataclass(frozen=True, kw_only=True)
class PairPlan:
    """CVRL's two clips."""

    recipe: ClipRecipe
    augmentation: AugmentationRecipe
    """Area and aspect of the crop, and the probability of mirroring."""
    seed: int
    power: float

    def __call__(self, meta: VideoMeta, *, video_id: str, epoch: int) -> list[ClipSpec]:
        pair = sample_clip_pair(
            meta,
            self.recipe,
            self.augmentation,
            seed=self.seed,
            video_id=video_id,
            epoch=epoch,
            power=self.power,
        )
        return list(pair)


@dataclass(frozen=True, kw_only=True)
class RandomPlan:
    """The random clips of a recipe, as extraction takes them."""

    recipe: ClipRecipe
    seed: int

    def __call__(self, meta: VideoMeta, *, video_id: str, epoch: int) -> list[ClipSpec]:
        return sample_clips(meta, self.recipe, seed=self.seed, video_id=video_id, epoch=epoch)


@dataclass(frozen=True, kw_only=True)
class ClipJob:
    """What a worker does with each item."""

    plan: ClipPlan

    def __call__(self, item: ClipItem) -> DecodedClips:
        meta = item.meta or probe(item.path)
        specs = self.plan(meta, video_id=item.id, epoch=item.epoch)
        try:
            clips = decode_clips(item.path, specs)
        except ShortDecodeError as early:  # fewer frames than packets: planned again with those that decode
            meta = replace(meta, num_frames=early.frames, exact=True)
            specs = self.plan(meta, video_id=item.id, epoch=item.epoch)
            clips = decode_clips(item.path, specs)
        return DecodedClips(clips, clip_positions(specs, meta), meta)


def time_limit(item: ClipItem) -> float:
    """Seconds after which a file that is still being decoded counts as hanging."""
    try:
        return _SECONDS + os.stat(item.path).st_size / _BYTES_A_SECOND
    except OSError:
        return _SECONDS
