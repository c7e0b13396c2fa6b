"""`scalefast embed`: one vector a video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from scalefast._text import counted

__all__ = ["Args", "run"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Write one vector a video, for search, clustering or a classifier of one's own.

    The npz file holds, one row a video: ids; labels, or -1; mean, of the backbone's clip features; cls,
    SCALE's summary; ensemble, the mean over the clips of backbone, refined and cls features side by side;
    recommended, ready for cosine similarity: the parts of the ensemble, each of length 1; of a model trained by
    the recommended recipe mean, spread and course over the video beside cls, all centred and weighted as its
    calibration says.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder of `scalefast pretrain`, or the folder or hub id of a saved model."""

    store: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
    """Feature store of the videos."""

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("vectors.npz")
    """File to write."""

    device: Annotated[str | None, tyro.conf.arg(metavar="DEVICE", help_behavior_hint="")] = None
    """cpu, cuda or cuda:N. Without it: the GPU if there is one."""

    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Arithmetic of the model; auto takes bf16, about a hundredth off, where the hardware is fast in it."""


def run(args: Args) -> int:
    """Computes the vectors and writes them."""
    from scalefast.evaluation import embed
    from scalefast.evaluation.results import check_place

    check_place(args.out)
    dtype = None if args.precision == "auto" else args.precision
    vectors = embed(args.run, args.store, device=args.device, dtype=dtype)
    vectors.save(args.out)
    widths = ", ".join(
        f"{name} {getattr(vectors, name).shape[1]}" for name in ("mean", "cls", "ensemble", "recommended")
    )
    print(f"{args.out}: {counted(len(vectors.ids), 'video')}; dimensions: {widths}")
    return 0
