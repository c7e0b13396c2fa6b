"""Options of `pretrain` for videos in the place of a store."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from scalefast.cli._videos import VideoOptions, holds_store, read_part

if TYPE_CHECKING:
    from scalefast.online import OnlineVideos

__all__ = ["OnlineOptions", "online_videos"]

_Text = Annotated[str | None, tyro.conf.arg(metavar="NAME_OR_FOLDER", help_behavior_hint="")]
_Whole = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
_Real = Annotated[float | None, tyro.conf.arg(metavar="X", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class OnlineOptions(VideoOptions):
    """How videos are decoded and encoded on the way; all of it needs --backbone."""

    backbone: _Text = None
    """VIDEOS instead of a STORE: decode them, and take the features of this frozen backbone."""

    keep: Annotated[str | None, tyro.conf.arg(metavar="STORE", help_behavior_hint="")] = None
    """Fill this store in the first epoch, and read it in the later ones. Without it: fresh clips every epoch."""

    checkpoint: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Weights of the backbone that its authors released as a file of their own."""

    subset: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Split of VIDEOS to train on (train); all: everything in it."""

    clips: _Whole = None
    """Random clips of a video in an epoch, at least twice --views (twice --views)."""

    stride: _Real = None
    """Distance of two frames of a clip, in frames at 30 a second (the backbone's own)."""

    no_flip: bool = False
    """Mirror no clip."""

    positions: Literal["paper", "seconds", "fraction"] = "paper"
    """Clip positions for the model, as for extract."""

    batch_clips: int = 16
    """Clips that go through the backbone together."""

    unfreeze_last: _Whole = None
    """Train the backbone's last N blocks together with the model; the trained network lies in RUN/backbone. Memory is
    bounded by --batch-clips."""

    workers: _Whole = None
    """Processes that decode (one for each CPU)."""

    decoder: Literal["auto", "pyav", "torchcodec", "dali"] = "auto"
    """Library that decodes, as for extract."""

    timeout: float = 60.0
    """Seconds after which a video that is still being decoded is left out; large files get more."""


def online_videos(
    source: str, options: OnlineOptions, *, views: int, device: str | None
) -> OnlineVideos | None:
    """The videos to train on, with their backbone; None where `source` is a store.

    Args:
        source: what the user gave.
        options: how it is read.
        views: clips in each of the two sets of a step.
        device: where the backbone computes; None: the GPU of this process, if there is one.

    Raises:
        InputError: videos, or options of videos, without --backbone; videos that cannot be listed; an unknown backbone.
    """
    from scalefast.errors import InputError

    if options.backbone is None:
        for field in fields(OnlineOptions):
            if getattr(options, field.name) != field.default:
                name = field.name.replace("_", "-")
                raise InputError(
                    f"--{name} is for videos, which need --backbone; {source} is taken for a store"
                )
        if os.path.exists(source) and not holds_store(source):
            raise InputError(
                f"{source} is not a feature store (no store.json in it); to train on videos, name what encodes them: "
                "--backbone NAME"
            )
        return None
    from scalefast.backbones import load_backbone
    from scalefast.cli._machine import decoding_workers, usable_device
    from scalefast.online import OnlineVideos
    from scalefast.video import train_recipe

    workers = decoding_workers(options.workers)
    videos = read_part(source, options, part="train", subset=options.subset)
    backbone = load_backbone(options.backbone, checkpoint=options.checkpoint, device=usable_device(device))
    recipe = train_recipe(
        num_frames=backbone.num_frames,
        stride=backbone.stride if options.stride is None else options.stride,
        size=backbone.size,
        clips=2 * views if options.clips is None else options.clips,
        flip=not options.no_flip,
    )
    return OnlineVideos(
        videos=videos,
        backbone=backbone,
        recipe=recipe,
        positions=options.positions,
        batch_clips=options.batch_clips,
        workers=workers,
        timeout=options.timeout,
        decoder=options.decoder,
        keep=options.keep,
    )
