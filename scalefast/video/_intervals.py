"""CVRL's pair of clips of one video: near each other more often than far apart.

Source: Qian et al., "Spatiotemporal Contrastive Video Representation Learning" (CVPR 2021, arXiv 2008.03800),
section 3.2 (temporal interval sampler) and the released code for the general power.
"""

from __future__ import annotations

import math

from scalefast.errors import InputError
from scalefast.video._augmentation import AugmentationRecipe, crop_box
from scalefast.video._meta import VideoMeta
from scalefast.video._recipe import ClipRecipe
from scalefast.video._sampling import ClipSpec, uniform_draws

__all__ = ["draw_interval", "sample_clip_pair"]

_DRAWS = 12  # interval, start, order, a second start, and four for the box and flip of each clip


def draw_interval(u: float, *, longest: float, power: float = 1.0) -> float:
    """The interval k in [0, M] whose cumulative probability is u.

    F(k) = (p + 1) k / (p M) - k^(p + 1) / (p M^(p + 1)), whose density falls from k = 0 to nothing at M; p = 1 is the
    paper's f(k) = (2 / M) (1 - k / M).

    Args:
        u: uniform, in [0, 1].
        longest: M, in any unit; that of the result.
        power: p > 0; the larger, the more uniform.

    Raises:
        InputError: an argument out of range.
    """
    if not (0.0 <= u <= 1.0 and longest >= 0.0 and power > 0.0):
        raise InputError(
            f"expected 0 <= u <= 1, longest >= 0, power > 0; got {u = }, {longest = }, {power = }"
        )
    if power == 1.0:
        return longest * (1.0 - math.sqrt(1.0 - u))
    low, high = 0.0, 1.0
    for _ in range(60):  # F has no inverse in closed form; 60 halvings are below a double's precision
        middle = (low + high) / 2
        if ((power + 1) * middle - middle ** (power + 1)) / power < u:
            low = middle
        else:
            high = middle
    return longest * (low + high) / 2


def sample_clip_pair(
    meta: VideoMeta,
    recipe: ClipRecipe,
    augmentation: AugmentationRecipe,
    *,
    seed: int,
    video_id: str,
    epoch: int = 0,
    power: float = 1.0,
) -> tuple[ClipSpec, ClipSpec]:
    """Two clips of one video for contrastive training, a pure function of (seed, epoch, video id).

    M = frames - (n - 1) steps; the interval by `draw_interval`, the earlier clip's start uniform on [0, M - k), and
    either clip first with probability one half. In a video too short for a clip both starts are uniform over its
    frames, and frames are counted on from the beginning behind the last. Each clip has its own box
    (area and aspect of `augmentation`) and mirroring.

    Args:
        meta: the video; `num_frames`, `fps` and the upright size are used.
        recipe: `num_frames`, `stride`, `nominal_fps` and `size` of a clip are used.
        augmentation: the crop's area and aspect, and the probability of mirroring.
        seed: seed of the run, 0 to 2^64 - 1.
        video_id: the video's id; its hash keys the draws.
        epoch: draws another pair.
        power: of the sampler, > 0.

    Raises:
        InputError: an argument out of range, or a video without frames.
    """
    if meta.num_frames < 1 or meta.fps <= 0 or meta.height < 1 or meta.width < 1:
        raise InputError(f"a video without frames, rate or size has no clips: {meta}")
    draws = uniform_draws(seed=seed, video_id=video_id, epoch=epoch, count=_DRAWS, purpose=1)
    step = recipe.stride * meta.fps / recipe.nominal_fps
    longest = meta.num_frames - (recipe.num_frames - 1) * step
    if longest >= 1.0:
        interval = draw_interval(draws[0], longest=longest, power=power)
        earlier = draws[1] * (longest - interval)
        starts = [earlier, earlier + interval]
        if draws[2] < 0.5:
            starts.reverse()
    else:
        starts = [draws[1] * meta.num_frames, draws[3] * meta.num_frames]
    first, second = (
        _clip(meta, recipe, augmentation, start=start, step=step, draws=draws[4 + 4 * k : 8 + 4 * k])
        for k, start in enumerate(starts)
    )
    return first, second


def _clip(
    meta: VideoMeta,
    recipe: ClipRecipe,
    augmentation: AugmentationRecipe,
    *,
    start: float,
    step: float,
    draws: list[float],
) -> ClipSpec:
    # The sum of a start and whole steps may fall a rounding error below a whole frame.
    counted = [math.floor(start + step * i + 1e-6) for i in range(recipe.num_frames)]
    frames = tuple(frame % meta.num_frames for frame in counted)
    return ClipSpec(
        frames=frames,
        box=crop_box(augmentation, height=meta.height, width=meta.width, draws=draws[:3]),
        flip=draws[3] < augmentation.flip,
        size=recipe.size,
        t0=counted[0] / meta.fps,
        t1=(counted[-1] + 1) / meta.fps,
    )
