"""`scalefast doctor`: what is installed, what serves each op and why, what to install, and what limits a run."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from scalefast.cli._videos import VideoOptions, holds_store, read_part

if TYPE_CHECKING:
    from scalefast.doctor.profile import Profile

__all__ = ["Args", "run"]

_Text = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
_Whole = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Args(VideoOptions):
    """Say what this machine can do and what to install for more; with --profile, what limits a run of your own.

    Shows the devices, the packages with the versions that are known to work, which implementation serves each
    op and why, which verbs are ready, and what to do about the rest. Nothing is changed. The exit status is 0
    if what is always needed is in order, else 1.

    With --profile STORE, training on that store is timed for some steps; with --profile VIDEOS --backbone NAME, some
    of the videos are decoded and extracted as well (--root to --classes say how they are read). Shown is how long the
    whole run would take in each stage.
    """

    json: bool = False
    """Print the findings as JSON, for programs."""

    profile: Annotated[Path | None, tyro.conf.arg(metavar="STORE|VIDEOS", help_behavior_hint="")] = None
    """Time a run on this store, folder of videos or list."""

    backbone: _Text = None
    """With VIDEOS: the backbone (name, folder or hub id) that extracts them."""

    subset: _Text = None
    """Split of VIDEOS that the run trains on (train); all: everything in it."""

    epochs: _Whole = None
    """Epochs of the run that is timed (200)."""

    batch_size: _Whole = None
    """Videos in a step of it (512)."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Its arithmetic; auto takes bf16 where the hardware is fast in it."""

    device: _Text = None
    """cpu, cuda or cuda:N. Without it: the GPU if there is one."""


def run(args: Args) -> int:
    """Prints the findings; 0 if what is always needed is in order, else 1. A profile: 0."""
    if args.profile is not None:
        return _profile(args, args.profile)
    _refuse(args, allowed=("json",), why="belongs to --profile, which is not given")
    from scalefast.doctor import examine, render

    findings = examine()
    print(json.dumps(findings.to_dict(), indent=2) if args.json else render(findings))
    return 0 if findings.healthy else 1


def _profile(args: Args, source: Path) -> int:
    from scalefast.doctor.profile import render_profile

    profile = measure(args, source)
    print(json.dumps(profile.to_dict(), indent=2) if args.json else render_profile(profile))
    return 0


def measure(args: Args, source: Path) -> Profile:
    """The profile that the options ask for.

    Raises:
        InputError: VIDEOS without a backbone, STORE with options of videos, or a source that is neither.
    """
    from scalefast.doctor.profile_store import profile_store
    from scalefast.doctor.profile_videos import profile_videos
    from scalefast.errors import InputError
    from scalefast.training import k400
    from scalefast.training.distributed import join_world

    if not source.exists():
        raise InputError(
            f"{source}: no such file or folder; expected a feature store, a folder of videos or a list"
        )
    given = {"epochs": args.epochs, "batch_size": args.batch_size, "precision": args.precision}
    config = k400().replace(**{name: value for name, value in given.items() if value is not None})
    device = join_world(args.device).device
    if holds_store(source):
        _refuse(
            args,
            allowed=("json", "profile", "epochs", "batch_size", "precision", "device"),
            why=f"is for videos; {source} is a feature store, which has its features already",
        )
        return profile_store(source, config=config, device=device)
    if args.backbone is None:
        raise InputError(
            f"{source} is no feature store; to time a run on videos, name what extracts them: --backbone NAME"
        )
    from scalefast.backbones import load_backbone

    videos = read_part(str(source), args, part="train", subset=args.subset)
    return profile_videos(videos, backbone=load_backbone(args.backbone, device=device), config=config)


def _refuse(args: Args, *, allowed: tuple[str, ...], why: str) -> None:
    """Refuse options that would be passed over in silence."""
    from scalefast.errors import InputError

    for field in fields(args):
        if field.name not in allowed and getattr(args, field.name) != field.default:
            raise InputError(f"--{field.name.replace('_', '-')} {why}")
