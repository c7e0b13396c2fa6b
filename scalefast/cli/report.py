"""`scalefast report`: one HTML page about a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

__all__ = ["Args", "run"]

_File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
_Videos = Annotated[Path | None, tyro.conf.arg(metavar="VIDEOS", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Write one HTML page about a run: results beside mean pooling, loss curves, a map of the test videos
    before and after, nearest neighbours. The page loads nothing and works offline.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder of `scalefast pretrain`, or the folder or hub id of a saved model."""

    train: Annotated[Path, tyro.conf.arg(metavar="STORE")]
    """Feature store of the labelled training videos."""

    test: Annotated[Path, tyro.conf.arg(metavar="STORE")]
    """Feature store of the labelled test videos."""

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("report.html")
    """Page to write."""

    results: _File = None
    """results.json of `scalefast evaluate` for this run. Without it: evaluated here."""

    videos: _Videos = None
    """The VIDEOS that the test store was extracted from, for thumbnails."""

    train_videos: _Videos = None
    """The VIDEOS that the training store was extracted from. Without it: the same as --videos."""

    root: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
    """Folder to which the paths of a list in --videos belong. Without it: the folder of the list."""

    title: Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")] = None
    """Title of the page."""

    allow_overlap: bool = False
    """Accept videos that are in both stores."""

    device: Annotated[str | None, tyro.conf.arg(metavar="DEVICE", help_behavior_hint="")] = None
    """cpu, cuda or cuda:N. Without it: the GPU if there is one."""


def run(args: Args) -> int:
    """Writes the page and says where."""
    from scalefast.report import report

    written = report(
        args.run,
        train=args.train,
        test=args.test,
        out=args.out,
        results=args.results,
        videos=args.videos,
        train_videos=args.train_videos,
        root=args.root,
        title=args.title,
        allow_overlap=args.allow_overlap,
        device=args.device,
    )
    print(f"{written}: {written.stat().st_size / 1e6:.1f} MB; open it in a browser")
    return 0
