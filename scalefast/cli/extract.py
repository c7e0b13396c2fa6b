"""`scalefast extract`: decode videos once and keep a frozen backbone's clip features in a store."""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from scalefast.cli._machine import decoding_workers, usable_device
from scalefast.cli._videos import VideoOptions, read_part
from scalefast.errors import InputError

if TYPE_CHECKING:
    from scalefast.backbones import ExtractionRecipe, FrozenBackbone
    from scalefast.features import ExtractSummary
    from scalefast.video import VideoList

__all__ = ["Args", "run"]

_Text = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
_Whole = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
_Real = Annotated[float | None, tyro.conf.arg(metavar="X", help_behavior_hint="")]

_RANKS = (("RANK", "0"), ("WORLD_SIZE", "1"))


@dataclass(frozen=True, kw_only=True)
class Args(VideoOptions):
    """Decode every video of a list once and keep a frozen backbone's features of its clips in a store.

    Killed at any moment, the same command goes on where it was: finished shards are not decoded again, and
    the store is byte for byte that of an uninterrupted run. Files that cannot be decoded are left out, with
    the reason in the store's ledger.csv; nothing takes their place.

    On N GPUs, or machines: torchrun --nproc-per-node N -m scalefast extract VIDEOS ...; the store is the same.
    """

    videos: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEOS")]
    """Folder of class folders (with train/, test/ or val/ above them, if there are splits), or a list file:
    'path label' lines, a CSV or TSV with a header, or a Kinetics CSV; or the folder of the videos of --dataset. A
    path, or a URL such as s3://bucket/videos."""

    backbone: Annotated[str, tyro.conf.arg(metavar="NAME_OR_FOLDER")]
    """Name (r3d-tiny, videomae-b, ...), local folder, or hub id."""

    out: Annotated[str, tyro.conf.arg(metavar="STORE")]
    """Folder of the store: new, or that of an interrupted run. A path or a URL."""

    split: Literal["train", "test"] = "train"
    """train: random clips for pretraining. test: evenly spread views, each at several places of the frame.
    Where the source has splits, also which one is read."""

    subset: _Text = None
    """Read this split of the source instead (val, validate, ...); all: everything in it."""

    checkpoint: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Weights of the backbone that its authors released as a file of their own."""

    device: _Text = None
    """cpu, cuda or cuda:N. Without it: the GPU if there is one."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the backbone; auto takes bf16 where the hardware is fast in it."""

    clips: int = 16
    """Random clips of a training video."""

    temporal: _Whole = None
    """Starts of a test video's views (5; 2 for --dataset ssv2)."""

    spatial: Literal[1, 3] = 3
    """Places in the frame of each start: the centre, or both ends and the centre."""

    stride: _Real = None
    """Distance of two frames of a clip, in frames at 30 a second. Without it: the backbone's own,
    half of it for --dataset ssv2."""

    no_flip: bool = False
    """Mirror no training clip (as for --dataset ssv2, where left and right have a meaning)."""

    positions: Annotated[
        Literal["paper", "seconds", "fraction"] | None,
        tyro.conf.arg(help_behavior_hint="(paper; lvu: seconds)"),
    ] = None
    """Clip positions for the model: relative to the video's own clips, in seconds, or in fractions of
    the video."""

    seed: int = 0
    """Seed of the random clips."""

    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    """Of the features in the store."""

    workers: _Whole = None
    """Processes (or Ray actors) that decode. Without it: one for each CPU."""

    batch_clips: int = 16
    """Clips that go through the backbone together."""

    shard_videos: _Whole = None
    """Listed videos in a shard: what a kill can cost. Without it: a 32nd of the list, but 8 to 128."""

    decoder: Literal["auto", "pyav", "torchcodec", "dali"] = "auto"
    """Library that decodes: PyAV (auto), torchcodec where it gives the same frames, or DALI on the backbone's device
    (NVDEC on a GPU). The last two resize slightly differently, which is recorded in the store."""

    timeout: float = 60.0
    """Seconds after which a video that is still being decoded counts as bad; large files get more."""

    engine: Literal["local", "ray"] = "local"
    """local: this process and its workers (each of them, under torchrun). ray: the actors of a Ray cluster."""

    ray_address: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS", help_behavior_hint="")] = None
    """Ray cluster to join (auto, ray://host:10001). Without it: one on this machine, for this extraction."""

    backbone_actors: _Whole = None
    """Ray actors that run the backbone. Without it: one for each GPU of the cluster, or one."""

    quiet: bool = False
    """Print no progress, only the counts."""

    price_per_hour: _Real = None
    """What this machine costs an hour, in any currency: the closing line says what 1,000 videos cost."""

    overwrite: bool = False
    """Replace a store in STORE. An interrupted run of this same extraction still goes on."""


def run(args: Args) -> int:
    """Extracts, and says what became of the videos."""
    # Read when torch is loaded: threads of the backbone that wait for each other then sleep and leave the
    # CPUs to the decoders. 2 CPUs, r3d-tiny, 24 videos of 5 s: 13.9 videos/s against 11.6, and 8.1 against
    # 1.8 while the machine was busy with other things too (November 2026).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    rank, world_size = (int(os.environ.get(name, default)) for name, default in _RANKS)
    _check(args)
    videos = read_part(args.videos, args, part=args.split, subset=args.subset)
    try:
        if args.engine == "ray":
            summary = _on_ray(args, videos)
        else:
            summary = _here(args, videos, rank=rank, world_size=world_size)
    except KeyboardInterrupt:
        print(
            f"stopped; finished shards are in {args.out}; the same command goes on from there",
            file=sys.stderr,
        )
        raise
    if rank == 0:
        print(summary)
    if not args.quiet:
        print(f"extract: {summary.speed(price_per_hour=args.price_per_hour)}", file=sys.stderr)
    return 0


def _check(args: Args) -> None:
    """Refuse what would else be found out at the end, or not at all.

    Raises:
        InputError: no worker, or a price below 0.
    """
    decoding_workers(args.workers)
    if args.price_per_hour is not None and not args.price_per_hour >= 0:
        raise InputError(f"--price-per-hour {args.price_per_hour:g}: expected a number from 0 on")


def _here(args: Args, videos: VideoList, *, rank: int, world_size: int) -> ExtractSummary:
    """By this process and its workers, one of `world_size`."""
    from scalefast.features import extract

    backbone = _load(
        usable_device(args.device), name=args.backbone, checkpoint=args.checkpoint, precision=args.precision
    )
    given = _arguments(args, backbone)
    return extract(
        videos,
        backbone=backbone,
        workers=decoding_workers(args.workers),
        progress=not args.quiet and rank == 0,
        rank=rank,
        world_size=world_size,
        **given,
    )


def _on_ray(args: Args, videos: VideoList) -> ExtractSummary:
    """By the actors of a Ray cluster; this machine loads the backbone only to know its clips."""
    from scalefast.features import extract_on_ray

    load = partial(_load, name=args.backbone, checkpoint=args.checkpoint, precision=args.precision)
    return extract_on_ray(
        videos,
        load=load,
        address=args.ray_address,
        backbones=args.backbone_actors,
        decoders=args.workers,
        progress=not args.quiet,
        **_arguments(args, load("cpu")),
    )


def _load(
    device: str, *, name: str, checkpoint: Path | None, precision: Literal["auto", "fp32", "bf16", "fp16"]
) -> FrozenBackbone:
    from scalefast.backbones import load_backbone

    return load_backbone(
        name, checkpoint=checkpoint, device=device, dtype=None if precision == "auto" else precision
    )


def _arguments(args: Args, backbone: FrozenBackbone) -> dict[str, Any]:
    """What both engines are given alike."""
    import torch

    recipe = extraction_recipe(args, backbone)
    if args.dataset is not None and not args.quiet and os.environ.get("RANK", "0") == "0":
        print(f"extract: {recipe}", file=sys.stderr)
    return {
        "out": args.out,
        "recipe": recipe.train if args.split == "train" else recipe.test,
        "positions": recipe.positions,
        "seed": args.seed,
        "batch_clips": args.batch_clips,
        "shard_videos": args.shard_videos,
        "dtype": getattr(torch, args.dtype),
        "timeout": args.timeout,
        "decoder": args.decoder,
        # What torchrun starts again goes on with what the first start has begun anew.
        "overwrite": args.overwrite and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0",
    }


def extraction_recipe(args: Args, backbone: FrozenBackbone) -> ExtractionRecipe:
    """What the backbone takes of the data set, with what the options say otherwise."""
    from scalefast.backbones import recipe_for
    from scalefast.video import test_recipe, train_recipe

    told = recipe_for(backbone, args.dataset)
    stride = told.train.stride if args.stride is None else args.stride
    clip = {"num_frames": backbone.num_frames, "stride": stride, "size": backbone.size}
    temporal = told.test.clips // told.test.spatial_crops if args.temporal is None else args.temporal
    return dataclasses.replace(
        told,
        train=train_recipe(**clip, clips=args.clips, flip=told.train.flip and not args.no_flip),
        test=test_recipe(**clip, temporal=temporal, spatial=args.spatial),
        positions=args.positions or told.positions,
    )
