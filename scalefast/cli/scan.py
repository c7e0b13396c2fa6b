"""`scalefast scan`: open every video of a list before anything expensive, and write a ledger."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from scalefast.cli._videos import VideoOptions, read_split

__all__ = ["Args", "run"]


@dataclass(frozen=True, kw_only=True)
class Args(VideoOptions):
    """Decode every file once, in worker processes, and write down which are usable.

    The ledger has one row for every file, with the columns path, status, reason and frames. Status: ok; short
    (decodes, but less than one clip); bad, with the reason (unreadable, no video, truncated, timeout, crash);
    missing. A file that crashes its decoder costs itself only.
    """

    videos: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEOS")]
    """Folder (every regular file in it is listed), or a list file: 'path label' lines, a CSV or TSV with a
    header, or a Kinetics CSV; or the folder of the videos of --dataset. A path, or a URL."""

    out: Annotated[Path, tyro.conf.arg(metavar="LEDGER")]
    """The ledger, a CSV file; replaced if it exists."""

    split: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Only this split (train, test, val), where the source has splits."""

    num_frames: int = 16
    """Frames of a clip; with the stride, how long a video must be not to be short."""

    stride: float = 4.0
    """Distance of two frames of a clip, in frames at 30 a second."""

    workers: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """Processes that decode. Without it: one for each CPU."""

    timeout: float = 60.0
    """Seconds after which a file that is still being decoded counts as bad; large files get more."""

    quiet: bool = False
    """Print no progress, only the counts."""


def run(args: Args) -> int:
    """Scans, and prints the counts; 0 whatever the files are like, since the ledger says it."""
    from scalefast.video import scan_videos, train_recipe

    videos = read_split(args.videos, args, split=args.split)
    summary = scan_videos(
        videos,
        out=args.out,
        recipe=train_recipe(num_frames=args.num_frames, stride=args.stride),
        workers=args.workers,
        timeout=args.timeout,
        progress=not args.quiet,
    )
    print(f"{summary}; ledger: {args.out}")
    return 0
