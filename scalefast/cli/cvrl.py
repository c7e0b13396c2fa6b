"""`scalefast cvrl`: train a clip encoder on videos, without labels."""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from scalefast._text import counted
from scalefast.cli._videos import VideoOptions, read_split

if TYPE_CHECKING:
    from scalefast.cvrl import CVRLConfig

__all__ = ["Args", "build_config", "run"]

_Whole = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
_Real = Annotated[float | None, tyro.conf.arg(metavar="X", help_behavior_hint="")]
_Text = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Args(VideoOptions):
    """Train a clip encoder on videos, without labels, by CVRL: two clips of a video attract, clips of others repel.

    The folder is a backbone: scalefast extract VIDEOS --backbone FOLDER. It also holds the log, the ledger of the
    videos and what --resume needs. What is not given comes from the recipe; with --resume, from the run that goes on.

    On N GPUs: torchrun --nproc-per-node N -m scalefast cvrl VIDEOS --out FOLDER --ledger LEDGER
    """

    videos: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEOS")]
    """Folder of class folders (with train/, test/ or val/ above them, if there are splits), or a list file; or
    the folder of the videos of --dataset. Labels are not looked at."""

    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Run and backbone folder to make."""

    resume: bool = False
    """Go on with the run in --out from its last checkpoint, exactly as if it had not stopped."""

    overwrite: bool = False
    """Replace the run in --out."""

    split: _Text = None
    """Only this split (train, test, val), where the source has splits."""

    ledger: Annotated[Path | None, tyro.conf.arg(metavar="LEDGER", help_behavior_hint="")] = None
    """What `scalefast scan VIDEOS --out LEDGER` wrote: bad and missing files are left out. Without it the videos
    are scanned first; several processes need it."""

    recipe: Annotated[Literal["k400", "demo"] | None, tyro.conf.arg(help_behavior_hint="(k400)")] = None
    """k400: R3D-50 of 16 x 224 x 224 as published, for GPUs. demo: a small network for the rendered demo set."""

    start: _Text = None
    """Backbone to start from (name, folder or hub id) in place of an R3D with initial weights."""

    depth: Annotated[
        Literal["tiny", "10", "18", "50", "101", "152"] | None, tyro.conf.arg(help_behavior_hint="(recipe)")
    ] = None
    """Depth of the R3D."""

    width: _Real = None
    """Factor on its channel counts (1)."""

    num_frames: _Whole = None
    """Frames of a clip (16)."""

    stride: _Whole = None
    """Distance of two frames of a clip, in frames at 30 a second (2)."""

    size: _Whole = None
    """Height and width of a clip in pixels (224)."""

    temperature: _Real = None
    """Of the loss (0.1)."""

    interval_power: _Real = None
    """Of the temporal interval sampler; the smaller, the nearer the two clips (1)."""

    epochs: _Whole = None
    """Passes over the videos (200)."""

    batch_size: _Whole = None
    """Videos a step, over all processes (1024)."""

    chunk_clips: _Whole = None
    """Clips of a process whose activations are kept at a time, for batches beyond memory (all)."""

    optimizer: Annotated[
        Literal["sgd", "lars", "adamw"] | None, tyro.conf.arg(help_behavior_hint="(recipe)")
    ] = None
    """Optimiser."""

    learning_rate: _Real = None
    """Peak learning rate (0.32 for batches of 1024)."""

    weight_decay: _Real = None
    """Weight decay (1e-6)."""

    momentum: _Real = None
    """Of SGD and LARS (0.9)."""

    warmup_epochs: _Real = None
    """Epochs over which the rate rises (5)."""

    seed: _Whole = None
    """Seed of everything random (0)."""

    precision: Annotated[Literal["auto", "fp32", "bf16"] | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Arithmetic; auto takes bf16 where the hardware is fast in it (auto)."""

    log_every: _Whole = None
    """Steps from one line of the log to the next (10)."""

    checkpoint_every: _Whole = None
    """Steps from one checkpoint to the next (about one a minute)."""

    workers: _Whole = None
    """Processes that decode. Without it: one for each CPU."""

    device: _Text = None
    """cpu, cuda or cuda:N. Without it: the GPU if there is one."""

    quiet: bool = False
    """Print no progress, only the result."""


def run(args: Args) -> int:
    """Trains, and says where the backbone lies and how to go on."""
    # Before torch is loaded: threads that wait then spin briefly and leave the cores to the processes that decode.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    from scalefast.cvrl import train_cvrl

    videos = read_split(str(args.videos), args, split=args.split)
    try:
        result = train_cvrl(
            videos,
            out=args.out,
            config=build_config(args),
            ledger=args.ledger,
            resume=args.resume,
            overwrite=args.overwrite,
            device=args.device,
            workers=args.workers,
            progress=not args.quiet,
        )
    except KeyboardInterrupt:
        print(f"stopped; to go on: scalefast cvrl {args.videos} --out {args.out} --resume", file=sys.stderr)
        raise
    if result.is_main:
        losses = ", ".join(f"{name} {value:.4f}" for name, value in result.losses.items())
        print(f"{result.folder}: {counted(result.steps, 'step')}{f'; {losses}' if losses else ''}")
        print(f"to use it: scalefast extract VIDEOS --backbone {result.folder} --out STORE")
    return 0


def build_config(args: Args) -> CVRLConfig:
    """The configuration that the options mean: recipe (or, resuming, the run's own), then options.

    Raises:
        InputError: a value is out of its range.
    """
    from scalefast.cvrl import CVRLConfig
    from scalefast.cvrl.recipes import RECIPES
    from scalefast.training.run_folder import RunFolder, read_record

    if args.recipe is None and args.resume and RunFolder(args.out).holds_run:
        config = CVRLConfig.from_dict(read_record(args.out)["config"])
    else:
        config = RECIPES[args.recipe or "k400"]()

    def given(part: Any) -> dict[str, Any]:
        names = [each.name for each in dataclasses.fields(part)]
        return {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}

    return dataclasses.replace(
        config,
        encoder=dataclasses.replace(config.encoder, **_without_seed(given(config.encoder))),
        training=dataclasses.replace(config.training, **given(config.training)),
        **given(config),
    )


def _without_seed(values: dict[str, Any]) -> dict[str, Any]:
    """`--seed` is that of the run, from which the encoder's follows."""
    return {name: value for name, value in values.items() if name != "seed"}
