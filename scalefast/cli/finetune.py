"""`scalefast finetune`: train a backbone with labels, all or some of them."""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from scalefast._text import counted
from scalefast.cli._videos import VideoOptions, read_part

__all__ = ["Args", "run"]

_Whole = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
_Real = Annotated[float | None, tyro.conf.arg(metavar="X", help_behavior_hint="")]
_Text = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Args(VideoOptions):
    """Train a backbone and a linear layer on it with labels, and judge them on the test videos: a clip alone, and a
    video by the mean of its views.

    Nothing is chosen on the test videos: the last epoch counts. The folder is a backbone, with head.safetensors and
    results.json beside it.
    """

    backbone: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME_OR_FOLDER")]
    """Backbone to start from: a folder of `scalefast cvrl`, a name, or a hub id."""

    train: Annotated[Path, tyro.conf.arg(metavar="VIDEOS")]
    """Labelled training videos: a folder of class folders (perhaps under train/ and test/), or a list file; or the
    folder of the videos of --dataset."""

    test: Annotated[Path, tyro.conf.arg(metavar="VIDEOS")]
    """Labelled test videos of the same classes, told by their names where both sources have names; the same source, if
    it has splits."""

    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Run and backbone folder to make."""

    split: _Text = None
    """Split of --train, where it has splits (train); all: everything in it."""

    test_split: _Text = None
    """Split of --test (test, else val)."""

    labels: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 1.0
    """Share of each class's training videos whose labels are used (0.01 and 0.1: semi-supervised)."""

    temporal: int = 10
    """Starts of a test video's views."""

    spatial: Literal[1, 3] = 3
    """Places in the frame of each start."""

    epochs: _Whole = None
    """Passes over the videos (50)."""

    batch_size: _Whole = None
    """Videos a step, over all processes (128)."""

    chunk_clips: _Whole = None
    """Clips of a process whose activations are kept at a time (all)."""

    optimizer: Annotated[
        Literal["sgd", "lars", "adamw"] | None, tyro.conf.arg(help_behavior_hint="(sgd)")
    ] = None
    """Optimiser."""

    learning_rate: _Real = None
    """Peak learning rate (0.02)."""

    weight_decay: _Real = None
    """Weight decay (1e-5)."""

    seed: _Whole = None
    """Seed of everything random (0)."""

    precision: Annotated[Literal["auto", "fp32", "bf16"] | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Arithmetic; auto takes bf16 where the hardware is fast in it (auto)."""

    ledger: Annotated[Path | None, tyro.conf.arg(metavar="LEDGER", help_behavior_hint="")] = None
    """What `scalefast scan` wrote for the training videos in use. Without it they are scanned first."""

    resume: bool = False
    """Go on with the run in --out from its last checkpoint, exactly as if it had not stopped."""

    overwrite: bool = False
    """Replace the run in --out."""

    workers: _Whole = None
    """Processes that decode. Without it: one for each CPU."""

    device: _Text = None
    """cpu, cuda or cuda:N. Without it: the GPU if there is one."""

    quiet: bool = False
    """Print no progress, only the result."""


def run(args: Args) -> int:
    """Trains, judges, and says both."""
    # Before torch is loaded: threads that wait then spin briefly and leave the cores to the processes that decode.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    from scalefast.cvrl import FinetuneConfig, finetune

    training = FinetuneConfig().training
    given: dict[str, Any] = {
        each.name: getattr(args, each.name, None) for each in dataclasses.fields(training)
    }
    training = dataclasses.replace(
        training, **{name: value for name, value in given.items() if value is not None}
    )
    config = FinetuneConfig(
        label_share=args.labels, temporal=args.temporal, spatial=args.spatial, training=training
    )
    try:
        result = finetune(
            args.backbone,
            train=read_part(str(args.train), args, part="train", subset=args.split),
            test=read_part(str(args.test), args, part="test", subset=args.test_split),
            out=args.out,
            config=config,
            ledger=args.ledger,
            resume=args.resume,
            overwrite=args.overwrite,
            device=args.device,
            workers=args.workers,
            progress=not args.quiet,
        )
    except KeyboardInterrupt:
        print("stopped; to go on: the same command with --resume", file=sys.stderr)
        raise
    if result.run.is_main and result.accuracy is not None:
        accuracy = result.accuracy
        print(
            f"{args.out}: {counted(result.labelled, 'labelled video')}, {counted(result.run.steps, 'step')}; "
            f"test accuracy {accuracy.video:.1%} of videos, {accuracy.clip:.1%} of clips"
        )
        if result.trained_on:
            print(f"note: {result.trained_on} of the test videos were trained on, so this promises too much")
    return 0
