"""`scalefast search`: find the videos nearest to a video."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

__all__ = ["Args", "run"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Find the videos of a store that are nearest to a video, by cosine similarity.

    The query is a video of the store, by its id, or any video file: it is decoded by the store's own clip
    recipe and goes through the backbone that made the store.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder of `scalefast pretrain`, or the folder or hub id of a saved model."""

    store: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
    """Feature store to search in."""

    query: Annotated[str, tyro.conf.arg(metavar="ID_OR_VIDEO")]
    """Id of a video in the store, or a video file."""

    k: Annotated[int, tyro.conf.arg(aliases=["-k"], metavar="N")] = 5
    """How many videos to find."""

    representation: Literal["mean", "refined", "cls", "ensemble", "recommended"] = "recommended"
    """By which videos are compared; mean is the backbone alone."""

    backbone: Annotated[str | None, tyro.conf.arg(metavar="NAME_OR_FOLDER", help_behavior_hint="")] = None
    """For a video file: where the store's backbone is, if its recorded name does not say."""

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
        k=args.k,
        representation=args.representation,
        backbone=args.backbone,
        device=args.device,
    )
    if args.json:
        print(json.dumps([asdict(item) for item in found], indent=2))
        return 0
    width = max((len(item.id) for item in found), default=2)
    print(f"{'rank':>4}  {'similarity':>10}  {'id':<{width}}  class")
    for item in found:
        print(f"{item.rank:>4}  {item.similarity:>10.4f}  {item.id:<{width}}  {item.label or '-'}".rstrip())
    return 0
