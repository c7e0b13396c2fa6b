"""Which frames and which box each clip of a video takes.

A pure function of (seed, epoch, video id): it depends neither on other videos nor on their number or order,
so that leaving out a bad file changes no other video's clips.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from scalefast.errors import InputError
from scalefast.video._meta import VideoMeta
from scalefast.video._recipe import ClipRecipe

__all__ = ["ClipSpec", "sample_clips", "uniform_draws"]

_DRAWS = 5  # numbers that one random clip uses: start, scale, top, left, flip


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """One clip of a video: what to decode, what to cut out."""

    frames: tuple[int, ...]
    """T positions in decode order, not decreasing but where a clip goes on at the beginning of a short video."""
    box: tuple[float, float, float, float]
    """(top, left, height, width) in pixels of the upright frame, before resizing."""
    flip: bool
    """Mirrored left to right after cropping."""
    size: int
    """Side of the square output, pixels."""
    t0: float
    """Seconds: start of the first frame."""
    t1: float
    """Seconds: end of the last frame; behind the video's end where a clip goes on at its beginning."""


def sample_clips(
    meta: VideoMeta, recipe: ClipRecipe, *, seed: int, video_id: str, epoch: int = 0
) -> list[ClipSpec]:
    """The clips of one video.

    Frames: a clip spans `recipe.span(fps)` frames from a real-valued start in [0, frames - span]; T of them
    spread evenly from its first to its last. A video that is too short starts at 0, and its last frame is
    repeated (as SlowFast does). random: start uniform. even: clip k of n starts at (frames - span) k / n,
    as the authors' extraction does, so that the last never reaches the end.

    Args:
        meta: the video; `num_frames`, `fps` and the upright size are used.
        recipe: the kind of clips.
        seed: seed of the run, 0 to 2^64 - 1.
        video_id: the video's id; its hash keys the draws.
        epoch: draws another set of random clips.

    Returns:
        `recipe.clips` clips; even ones in the order of time, then of place.

    Raises:
        InputError: seed or epoch out of range, or a video without frames.
    """
    _check_key(seed, epoch)
    if meta.num_frames < 1 or meta.fps <= 0 or meta.height < 1 or meta.width < 1:
        raise InputError(f"a video without frames, rate or size has no clips: {meta}")
    if recipe.sampling == "even":
        return _even_clips(meta, recipe)
    draws = uniform_draws(seed=seed, video_id=video_id, epoch=epoch, count=_DRAWS * recipe.clips)
    return [_random_clip(meta, recipe, draws[_DRAWS * k : _DRAWS * (k + 1)]) for k in range(recipe.clips)]


def uniform_draws(*, seed: int, video_id: str, epoch: int, count: int, purpose: int = 0) -> list[float]:
    """`count` numbers in [0, 1) from Philox-4x64-10: key (seed, hash of the id), counter (.., .., epoch, purpose).

    Raw 64-bit words are converted here, because numpy keeps the bit streams of its generators from release to
    release, but not what its distributions make of them.
    """
    _check_key(seed, epoch)
    digest = hashlib.blake2b(video_id.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    key = np.array([seed, int.from_bytes(digest, "little")], dtype=np.uint64)
    counter = np.array([0, 0, epoch, purpose], dtype=np.uint64)
    raw = np.random.Philox(key=key, counter=counter).random_raw(count)
    return [(int(word) >> 11) * 2.0**-53 for word in raw]


def _check_key(seed: int, epoch: int) -> None:
    if not 0 <= seed < 1 << 64 or not 0 <= epoch < 1 << 64:
        raise InputError(f"expected 0 <= seed, epoch < 2**64: {seed = }, {epoch = }")


def _random_clip(meta: VideoMeta, recipe: ClipRecipe, draws: list[float]) -> ClipSpec:
    start = draws[0] * _slack(meta, recipe)
    low, high = recipe.short_side
    scale = low + min(int(draws[1] * (high - low + 1)), high - low)
    side = min(meta.height, meta.width) * recipe.size / scale
    box = (draws[2] * (meta.height - side), draws[3] * (meta.width - side), side, side)
    return _clip(meta, recipe, start=start, box=box, flip=recipe.flip and draws[4] < 0.5)


def _even_clips(meta: VideoMeta, recipe: ClipRecipe) -> list[ClipSpec]:
    side = float(min(meta.height, meta.width))
    places = [0.5] if recipe.spatial_crops == 1 else [0.0, 0.5, 1.0]
    boxes = [(p * (meta.height - side), p * (meta.width - side), side, side) for p in places]
    starts = recipe.clips // recipe.spatial_crops
    slack = _slack(meta, recipe)
    return [
        _clip(meta, recipe, start=slack * k / starts, box=box, flip=False)
        for k in range(starts)
        for box in boxes
    ]


def _slack(meta: VideoMeta, recipe: ClipRecipe) -> float:
    return max(meta.num_frames - recipe.span(meta.fps), 0.0)


def _clip(
    meta: VideoMeta, recipe: ClipRecipe, *, start: float, box: tuple[float, float, float, float], flip: bool
) -> ClipSpec:
    step = (recipe.span(meta.fps) - 1) / max(recipe.num_frames - 1, 1)
    last = meta.num_frames - 1
    # The sum of a start and whole steps may fall a rounding error below a whole frame.
    frames = tuple(min(max(math.floor(start + step * i + 1e-6), 0), last) for i in range(recipe.num_frames))
    return ClipSpec(
        frames=frames,
        box=box,
        flip=flip,
        size=recipe.size,
        t0=frames[0] / meta.fps,
        t1=(frames[-1] + 1) / meta.fps,
    )
