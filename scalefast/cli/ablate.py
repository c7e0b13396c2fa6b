"""`scalefast ablate`: what each part of the recipe is worth on one's own features."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

__all__ = ["Args", "run"]

_Study = Literal[
    "losses",
    "time",
    "mask_ratio",
    "views",
    "layers",
    "width",
    "temperature",
    "targets",
    "positions",
    "same_video",
    "centring",
    "calibration",
    "parts",
    "regularisers",
    "recipes",
    "schedule",
]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Train with one thing varied at a time, and tabulate k-NN and linear accuracy beside mean pooling.

    Leaves ablation.md, .json and .csv, a plot a study, and every run. Stopped or killed, the same command goes on
    where it was; with more studies or seeds it computes only what is new.

    To choose by the result, give a validation split as --test, and keep the test videos for the end.
    """

    store: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
    """Feature store of the labelled training videos; only the probes see the labels."""

    test: Annotated[Path, tyro.conf.arg(metavar="STORE")]
    """Feature store of the labelled videos that accuracies speak of."""

    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Folder for tables, plots and runs."""

    studies: tuple[_Study, ...] = ("recipes", "losses", "mask_ratio", "views", "targets", "positions")
    """What to vary."""

    seeds: int = 1
    """Runs of every configuration."""

    batched: Literal["auto", "on", "off"] = "auto"
    """Whether runs that differ in numbers alone are trained at once: where that is faster, always, or never."""

    recipe: Literal["paper", "recommended"] = "recommended"
    """What is varied."""

    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """JSON object with fields of `scalefast pretrain` that replace the recipe's."""

    epochs: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """Passes over the videos in each run (recipe)."""

    plots: bool = True
    """Whether to draw (needs the extra `report`)."""

    device: Annotated[str | None, tyro.conf.arg(metavar="DEVICE", help_behavior_hint="")] = None
    """cpu, cuda or cuda:N. Without it: the GPU if there is one."""


def run(args: Args) -> int:
    """Runs what is missing, and prints the table."""
    from scalefast.ablation import ablate, plot
    from scalefast.cli.pretrain import read_config
    from scalefast.errors import require
    from scalefast.training.recipes import RECIPES

    if args.plots:  # before hours of work, not after
        require("matplotlib", extra="report", needed_for="plots of an ablation (or give --no-plots)")
    base = RECIPES[args.recipe]()
    if args.config is not None:
        base = read_config(args.config, base=base)
    if args.epochs is not None:
        base = base.replace(epochs=args.epochs)
    table = ablate(
        args.store,
        test=args.test,
        out=args.out,
        base=base,
        studies=args.studies,
        seeds=args.seeds,
        batched=args.batched,
        device=args.device,
        say=lambda text: print(text, file=sys.stderr),
    )
    print(table.markdown())
    drawn = plot(table, args.out) if args.plots else []
    plots = f", {len(drawn)} plots" if drawn else ""
    print(f"written: {args.out / 'ablation.md'}, ablation.json, ablation.csv{plots}")
    return 0
