"""`scalefast report`: one HTML page about a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

__all__ = ["Args", "run"]

_File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
_Videos = Annotated[Path | None, tyro.conf.arg(metavar="VIDEOS", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Write one HTML page about a run: a verdict, results beside simpler baselines with their intervals, failures
    first, a map of the test videos before and after, nearest neighbours that play, loss curves. The page loads
    nothing, runs no script and works offline.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder of `scalefast pretrain`, or the folder or hub id of a saved model."""

    train: Annotated[Path, tyro.conf.arg(metavar="STORE")]
    """Feature store of the labelled training videos."""

    test: Annotated[Path, tyro.conf.arg(metavar="STORE")]
    """Feature store of the labelled test videos."""

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("report.html")
    """Page to write."""

    figures: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
    """Write every drawing of the page into this folder too, as PNG and SVG."""

    json: bool = False
    """Print what the page says as one JSON object: numbers, verdicts, confusions, failures, maps."""

    results: _File = None
    """results.json of `scalefast evaluate` for this run. Without it: evaluated here."""

    videos: _Videos = None
    """The VIDEOS that the test store was extracted from, to be shown."""

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
    """Writes the page and says where, or what it says."""
    from scalefast.evaluation.results import check_place
    from scalefast.report import compose

    check_place(args.out)
    page = compose(
        args.run,
        train=args.train,
        test=args.test,
        results=args.results,
        videos=args.videos,
        train_videos=args.train_videos,
        root=args.root,
        title=args.title,
        allow_overlap=args.allow_overlap,
        device=args.device,
    )
    written = page.save(args.out, figures=args.figures)
    if args.json:
        print(json.dumps(page.to_dict(), indent=2))
        return 0
    print(f"{written}: {written.stat().st_size / 1e6:.1f} MB; open it in a browser")
    if args.figures is not None:
        print(f"{args.figures}: {', '.join(page.drawings)}, each as PNG and SVG")
    return 0
