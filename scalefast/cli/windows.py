"""`scalefast windows`: long videos as windows, or as sequences of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from scalefast._text import counted

__all__ = ["Args", "run"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Cut the long videos of a store into windows of consecutive clips, for a model on two levels.

    Without --run every window becomes a video of its own, to pretrain the first level on. With --run, the run of that
    pretraining, every window becomes one clip of its video: the store for the second level, and for its evaluation.
    """

    store: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
    """Feature store of long videos."""

    clips: Annotated[int, tyro.conf.arg(metavar="N")]
    """Clips of a window; what is left at a video's end is dropped."""

    out: Annotated[Path, tyro.conf.arg(metavar="STORE")]
    """Feature store to make."""

    run: Annotated[str | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="")] = None
    """Run on the windows; the same --clips and --positions."""

    positions: Literal["paper", "kept"] = "paper"
    """Positions of a window's clips: over its own span, or as they are in the long video."""

    overwrite: bool = False
    """Replace the store at --out."""

    device: Annotated[str | None, tyro.conf.arg(metavar="DEVICE", help_behavior_hint="")] = None
    """cpu, cuda or cuda:N. Without it: the GPU if there is one."""


def run(args: Args) -> int:
    """Makes the store, and says what is in it."""
    from scalefast.windows import cut_windows, join_windows

    if args.run is None:
        made = cut_windows(
            args.store, out=args.out, clips=args.clips, positions=args.positions, overwrite=args.overwrite
        )
        print(f"{args.out}: {counted(len(made), 'window')} of {counted(args.clips, 'clip')}")
        return 0
    made = join_windows(
        args.run,
        args.store,
        out=args.out,
        clips=args.clips,
        positions=args.positions,
        device=args.device,
        overwrite=args.overwrite,
    )
    print(
        f"{args.out}: {counted(len(made), 'video')}, {counted(int(made.lengths.sum()), 'window')}, "
        f"{made.feature_dim} numbers each"
    )
    return 0
