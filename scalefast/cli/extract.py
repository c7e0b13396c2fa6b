"""`scalefast extract`: decode videos once and keep a frozen backbone's clip features in a store."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from scalefast.video import ClipRecipe, VideoList

__all__ = ["Args", "run"]

_Text = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
_Whole = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
_Real = Annotated[float | None, tyro.conf.arg(metavar="X", help_behavior_hint="")]

_SUBSETS = {"train": ("train",), "test": ("test", "val")}  # what a data set may call the videos of a split


@dataclass(frozen=True, kw_only=True)
class Args:
    """Decode every video of a list once and keep a frozen backbone's features of its clips in a store.

    Killed at any moment, the same command goes on where it was: finished shards are not decoded again, and
    the store is byte for byte that of an uninterrupted run. Files that cannot be decoded are left out, with
    the reason in the store's ledger.csv; nothing takes their place.
    """

    videos: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEOS")]
    """Folder of class folders (with train/, test/ or val/ above them, if there are splits), or a list file:
    'path label' lines, a CSV or TSV with a header, or a Kinetics CSV."""

    backbone: Annotated[str, tyro.conf.arg(metavar="NAME_OR_FOLDER")]
    """Name (r3d-tiny, videomae-b, ...), local folder, or hub id."""

    out: Annotated[Path, tyro.conf.arg(metavar="STORE")]
    """Folder of the store: new, or that of an interrupted run."""

    split: Literal["train", "test"] = "train"
    """train: random clips for pretraining. test: evenly spread views, each at several places of the frame.
    Where the source has splits, also which one is read."""

    subset: _Text = None
    """Read this split of the source instead (val, validate, ...); all: everything in it."""

    root: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
    """Folder to which the list's paths belong. Without it: the folder of the list."""

    format: Literal["auto", "folder", "list", "table", "kinetics"] = "auto"
    """Form of VIDEOS, where auto guesses wrong."""

    checkpoint: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Weights of the backbone that its authors released as a file of their own."""

    device: _Text = None
    """cpu, cuda or cuda:N. Without it: the GPU if there is one."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the backbone; auto takes bf16 where the hardware is fast in it."""

    clips: int = 16
    """Random clips of a training video."""

    temporal: int = 5
    """Starts of a test video's views."""

    spatial: Literal[1, 3] = 3
    """Places in the frame of each start: the centre, or both ends and the centre."""

    stride: _Real = None
    """Distance of two frames of a clip, in frames at 30 a second. Without it: the backbone's own."""

    no_flip: bool = False
    """Mirror no training clip (for Something-Something, where left and right have a meaning)."""

    positions: Literal["paper", "seconds", "fraction"] = "paper"
    """Clip positions for the model: relative to the video's own clips, in seconds, or in fractions of
    the video."""

    seed: int = 0
    """Seed of the random clips."""

    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    """Of the features in the store."""

    workers: _Whole = None
    """Processes that decode. Without it: one for each CPU."""

    batch_clips: int = 16
    """Clips that go through the backbone together."""

    shard_videos: _Whole = None
    """Listed videos in a shard: what a kill can cost. Without it: a 32nd of the list, but 8 to 128."""

    timeout: float = 60.0
    """Seconds after which a video that is still being decoded counts as bad; large files get more."""

    quiet: bool = False
    """Print no progress, only the counts."""

    overwrite: bool = False
    """Replace a store in STORE. An interrupted run of this same extraction still goes on."""


def run(args: Args) -> int:
    """Extracts, and says what became of the videos."""
    # Read when torch is loaded: threads of the backbone that wait for each other then sleep and leave the
    # CPUs to the decoders. 2 CPUs, r3d-tiny, 24 videos of 5 s: 13.9 videos/s against 11.6, and 8.1 against
    # 1.8 while the machine was busy with other things too (November 2026).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from scalefast.backbones import load_backbone
    from scalefast.features import extract

    videos = read_videos(args)
    precision = None if args.precision == "auto" else args.precision
    backbone = load_backbone(args.backbone, checkpoint=args.checkpoint, device=_device(args), dtype=precision)
    stride = backbone.stride if args.stride is None else args.stride
    try:
        summary = extract(
            videos,
            backbone=backbone,
            out=args.out,
            recipe=clip_recipe(args, num_frames=backbone.num_frames, stride=stride, size=backbone.size),
            positions=args.positions,
            seed=args.seed,
            workers=args.workers,
            batch_clips=args.batch_clips,
            shard_videos=args.shard_videos,
            dtype=getattr(torch, args.dtype),
            timeout=args.timeout,
            overwrite=args.overwrite,
            progress=not args.quiet,
        )
    except KeyboardInterrupt:
        print(
            f"stopped; finished shards are in {args.out}; the same command goes on from there",
            file=sys.stderr,
        )
        raise
    print(summary)
    return 0


def _device(args: Args) -> str:
    """The device to compute on, if this machine has it."""
    import torch

    from scalefast.errors import InputError

    name = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--device {name}: not usable here ({reason}); expected cpu, cuda or cuda:N"
        ) from None
    return name


def clip_recipe(args: Args, *, num_frames: int, stride: float, size: int) -> ClipRecipe:
    """The clips that the options mean, for a backbone with these frames and this size."""
    from scalefast.video import test_recipe, train_recipe

    if args.split == "train":
        return train_recipe(
            num_frames=num_frames, stride=stride, size=size, clips=args.clips, flip=not args.no_flip
        )
    return test_recipe(
        num_frames=num_frames, stride=stride, size=size, temporal=args.temporal, spatial=args.spatial
    )


def read_videos(args: Args) -> VideoList:
    """The videos that the options mean: of the wanted split where the source has splits, else all.

    Raises:
        InputError: the source is not of an expected form, or has splits, but not this one.
    """
    from scalefast.errors import InputError
    from scalefast.video import VideoList

    def read(split: str | None) -> VideoList:
        return VideoList.read(args.videos, root=args.root, split=split, format=args.format)

    if args.subset is not None:
        return read(None if args.subset == "all" else args.subset)
    everything = read(None)
    if not _has_splits(args.videos, everything):
        return everything
    for name in _SUBSETS[args.split]:
        try:
            return read(name)
        except InputError:
            continue
    wanted = " or ".join(repr(name) for name in _SUBSETS[args.split])
    raise InputError(
        f"{args.videos}: has splits, but no videos of split {wanted}; name one with --subset, or --subset all"
    )


def _has_splits(source: Path, videos: VideoList) -> bool:
    """Whether a source divides its videos: split folders above the class folders, or a column `split`."""
    from scalefast.video._splits import SPLIT_NAMES

    if source.is_dir():
        parts = [entry.id.split("/") for entry in videos]
        tops = {names[0] for names in parts if len(names) > 2}
        return bool(tops) and tops <= SPLIT_NAMES
    with open(source, encoding="utf-8-sig", errors="replace") as file:
        header = file.readline()
    separator = "\t" if "\t" in header else ","
    return "split" in [cell.strip().strip('"').lower() for cell in header.split(separator)]
