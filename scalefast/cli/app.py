"""`scalefast app`: a page to drop a video on and browse what is similar."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

__all__ = ["Args", "run"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Open a page on this machine: drop a video or an image, or name a video of the store, and browse what is
    similar and when. It listens on this machine alone unless --host says otherwise, and asks nothing of any other.

    Needs the extra app; stop it with Ctrl+C.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder of `scalefast pretrain`, or the folder or hub id of a saved model."""

    store: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
    """Feature store to browse."""

    videos: Annotated[Path | None, tyro.conf.arg(metavar="VIDEOS", help_behavior_hint="")] = None
    """The VIDEOS that the store was extracted from, to be shown."""

    root: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
    """Folder to which the paths of a list in --videos belong. Without it: the folder of the list."""

    representation: Literal["mean", "refined", "cls", "ensemble", "recommended"] = "recommended"
    """By which videos are compared; mean is the backbone alone."""

    index: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
    """Folder of an index: made by the first search, used by those that follow (with faiss above 50,000 videos)."""

    backbone: Annotated[str | None, tyro.conf.arg(metavar="NAME_OR_FOLDER", help_behavior_hint="")] = None
    """Where the store's backbone is, if its recorded name does not say."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets everybody on the network in."""

    port: int = 7860
    """Port to listen on; 0 takes any that is free."""

    open: bool = False
    """Open the page in this machine's browser."""

    device: Annotated[str | None, tyro.conf.arg(metavar="DEVICE", help_behavior_hint="")] = None
    """cpu, cuda or cuda:N. Without it: the GPU if there is one."""


def run(args: Args) -> int:
    """Serves the page until it is interrupted."""
    from scalefast.errors import require

    require("gradio", extra="app", needed_for="the page to browse videos")
    from scalefast.app import Browser, serve
    from scalefast.search import Searcher

    searcher = Searcher(
        args.run,
        args.store,
        representation=args.representation,
        index=args.index,
        backbone=args.backbone,
        device=args.device,
        say=lambda text: print(text, file=sys.stderr),
    )
    browser = Browser(searcher, videos=args.videos, root=args.root)
    title = f"scalefast: {args.store.name}"
    serve(browser, title=title, host=args.host, port=args.port, open_browser=args.open)
    return 0
