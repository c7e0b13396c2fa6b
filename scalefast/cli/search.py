"""`scalefast search`: find the videos nearest to a video."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from scalefast.search import Moment, Neighbour

__all__ = ["Args", "run"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Find the videos of a store that are nearest to a video, by cosine similarity, and when in them it is met.

    The query is a video of the store, by its id, or any video or image file: it is decoded by the store's own
    clip recipe and goes through the backbone that made the store.

    Every video is compared. To search a large store often, name a folder for an index (--index): it is made
    once, with faiss above 50,000 videos.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder of `scalefast pretrain`, or the folder or hub id of a saved model."""

    store: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
    """Feature store to search in."""

    query: Annotated[str, tyro.conf.arg(metavar="ID_OR_VIDEO")]
    """Id of a video in the store, or a video or image file."""

    between: Annotated[
        tuple[float, float] | None, tyro.conf.arg(metavar="START END", help_behavior_hint="")
    ] = None
    """Search for these seconds of the query only."""

    k: Annotated[int, tyro.conf.arg(aliases=["-k"], metavar="N")] = 5
    """How many videos to find."""

    moments: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """How many moments of each to show, most similar first."""

    representation: Literal["mean", "refined", "cls", "ensemble", "recommended"] = "recommended"
    """By which videos are compared; mean is the backbone alone."""

    backbone: Annotated[str | None, tyro.conf.arg(metavar="NAME_OR_FOLDER", help_behavior_hint="")] = None
    """For a video file: where the store's backbone is, if its recorded name does not say."""

    index: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
    """Folder of an index: made by the first search, used by those that follow."""

    json: bool = False
    """Print one JSON list instead of a table."""

    device: Annotated[str | None, tyro.conf.arg(metavar="DEVICE", help_behavior_hint="")] = None
    """cpu, cuda or cuda:N. Without it: the GPU if there is one."""


def run(args: Args) -> int:
    """Searches and prints what was found, nearest first."""
    from scalefast.search import search

    found = search(
        args.run,
        args.store,
        query=args.query,
        between=args.between,
        k=args.k,
        moments=args.moments,
        representation=args.representation,
        index=args.index,
        backbone=args.backbone,
        device=args.device,
        say=lambda text: print(text, file=sys.stderr),
    )
    print(json.dumps([asdict(item) for item in found], indent=2) if args.json else _table(found))
    return 0


def _table(found: Sequence[Neighbour]) -> str:
    wide = max((len(item.id) for item in found), default=2)
    name = max((len(item.label or "-") for item in found), default=5)
    lines = [f"{'rank':>4}  {'similarity':>10}  {'id':<{wide}}  {'class':<{name}}  most alike"]
    for item in found:
        when = ", ".join(_words(moment) for moment in item.moments) or "-"
        lines.append(
            f"{item.rank:>4}  {item.similarity:>10.4f}  {item.id:<{wide}}  {item.label or '-':<{name}}  {when}"
        )
    return "\n".join(lines)


def _words(moment: Moment) -> str:
    """`4.0-5.1 s (0.98, to 0.5-1.6 s)`: where in the video, how alike, and to what in the query."""
    there = "" if moment.query_start is None else f", to {moment.query_start:.1f}-{moment.query_end:.1f} s"
    return f"{moment.start:.1f}-{moment.end:.1f} s ({moment.similarity:.2f}{there})"
