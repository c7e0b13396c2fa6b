"""Timing a whole run on videos: some of them decoded and put through the backbone, then training on their features."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from scalefast.doctor.machine import cores
from scalefast.doctor.profile import Profile
from scalefast.doctor.profile_store import Training, time_training, trained_on
from scalefast.errors import DataError, InputError

if TYPE_CHECKING:
    from scalefast.backbones import FrozenBackbone
    from scalefast.training import PretrainConfig
    from scalefast.video import VideoEntry, VideoList

__all__ = ["profile_videos"]

_SAMPLE = 6
"""Videos that are decoded, evenly spread over the list."""


_BESIDE = {
    "cuda": ("decoding and the GPU's backbone work side by side: extraction takes the longer of the two",)
}
"""Device of the backbone -> what the sum of the stages leaves out."""


class _Extraction(NamedTuple):
    decode: float
    """Seconds a video, in one process."""
    backbone: float
    """Seconds a video."""
    features: torch.Tensor
    """[n, C, D] of the videos that were looked at."""
    lost: int
    """Videos that do not decode."""


def profile_videos(
    videos: VideoList, *, backbone: FrozenBackbone, config: PretrainConfig, sample: int = _SAMPLE
) -> Profile:
    """What a run over all stages spends its time on: extraction with this backbone, then training; nothing is kept.

    Decoding is divided by the cores that this process may use, as extraction's workers divide it.

    Raises:
        InputError: fewer than 2 videos. DataError: none of the videos that were tried decodes.
    """
    from scalefast.video import train_recipe

    if len(videos) < 2:
        raise InputError(
            f"{videos.source}: pretraining contrasts videos and needs at least 2, found {len(videos)}"
        )
    recipe = train_recipe(
        num_frames=backbone.num_frames, stride=backbone.stride, size=backbone.size, clips=2 * config.views
    )
    count = min(sample, len(videos))
    chosen = [videos[i * len(videos) // count] for i in range(count)]
    measured = _extract(chosen, recipe=recipe, backbone=backbone)
    training = _train(measured.features, videos=len(videos), config=config, device=backbone.device)
    tried, clips = len(chosen) - measured.lost, recipe.clips
    times = trained_on(len(videos), config=config)
    told = (
        f"extraction: {tried} of {len(videos):,} videos, {clips} clips of {recipe.num_frames} frames each; "
        f"{measured.decode:.3g} s a video to decode on one core of {cores()}, "
        f"{measured.backbone:.3g} s for the backbone on {backbone.device.type}"
        + (f"; {measured.lost} more did not decode" if measured.lost else "")
    )
    return Profile(
        source=videos.source,
        circumstances=(told, training.told, *_BESIDE.get(backbone.device.type, ())),
        videos=len(videos),
        epochs=config.epochs,
        seconds={
            "decode": measured.decode / cores() * len(videos),
            "backbone": measured.backbone * len(videos),
            "bank": training.bank * times,
            "step": training.step * times,
        },
    )


def _extract(chosen: list[VideoEntry], *, recipe: Any, backbone: FrozenBackbone) -> _Extraction:
    from scalefast.video import VideoError, load_clips

    found: list[torch.Tensor] = []
    decode, compute, lost = 0.0, 0.0, 0
    for entry in chosen:
        begin = time.perf_counter()
        try:
            clips = load_clips(entry.path, recipe, seed=0, video_id=entry.id).clips
        except VideoError:
            lost += 1
            continue
        decode += time.perf_counter() - begin
        given = torch.from_numpy(clips)
        if not found:
            backbone(given[:1])  # what a first call sets up is not a video's
        begin = time.perf_counter()
        found.append(backbone(given).cpu())  # on the CPU: the device is done
        compute += time.perf_counter() - begin
    if not found:
        raise DataError(f"none of the {len(chosen):,} videos tried decodes; see `scalefast scan`")
    return _Extraction(decode / len(found), compute / len(found), torch.stack(found), lost)


def _train(features: torch.Tensor, *, videos: int, config: PretrainConfig, device: torch.device) -> Training:
    """Training's cost on as many videos as a batch holds, which repeat the few that were extracted."""
    from scalefast.features import FeatureStore

    repeated = features[torch.arange(min(videos, config.batch_size)) % len(features)].half()
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore.create(Path(folder) / "store", features=repeated)
        return time_training(store, config=config, device=device)
