"""CVRL from a list of videos to a backbone folder: what happens, in the order in which it happens."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from scalefast._precision import precision_name, resolve_precision
from scalefast._version import __version__
from scalefast.backbones.loading import load_backbone
from scalefast.backbones.r3d import R3D
from scalefast.backbones.saved import write_backbone
from scalefast.backbones.spec import BackboneSpec
from scalefast.cvrl._contrast import Contrast, build_contrast
from scalefast.cvrl._decode import PairPlan
from scalefast.cvrl._ledger import usable_videos
from scalefast.cvrl._run import ClipRun
from scalefast.cvrl.config import ClipTraining, CVRLConfig
from scalefast.training.checkpoint import disk_errors
from scalefast.training.distributed import World, join_world
from scalefast.training.memory import keep_freed_memory
from scalefast.training.run_folder import RunFolder
from scalefast.video import VideoList, train_recipe

__all__ = ["CVRLResult", "train_cvrl"]


@dataclass(frozen=True, kw_only=True)
class CVRLResult:
    """What `train_cvrl` leaves behind."""

    folder: Path
    """The run folder, which is a backbone folder: `load_backbone` and `scalefast extract --backbone` take it."""
    steps: int
    """Completed steps, over all sessions of the run."""
    resumed_from: int
    """Completed steps when this session began."""
    losses: dict[str, float]
    """`loss` and `accuracy` in the last line of the log."""
    is_main: bool
    """Whether this process is the only or the first of the run."""
    notes: tuple[str, ...]
    """What was said: videos left out, a damaged checkpoint passed over, progress."""


def train_cvrl(
    videos: VideoList,
    *,
    out: str | os.PathLike[str],
    config: CVRLConfig | None = None,
    ledger: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str | torch.device | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> CVRLResult:
    """Train a clip encoder on videos, without labels.

    Under `torchrun` every process calls this and takes its part of each batch; clips of all processes are contrasted.

    Args:
        videos: the list; labels are not looked at.
        out: the run folder, made if need be.
        config: what to do; None: as published.
        ledger: what `scalefast scan` wrote for this list; None: the list is scanned first (one process only). Videos
            that are bad or missing are left out and counted.
        resume: go on with the run in `out`, bit for bit as if it had not stopped; where there is none, begin one.
        overwrite: replace the run in `out`.
        device: where to train; None takes the GPU of this process if there is one, else the CPU.
        workers: processes that decode; None: one for each CPU. Changes no bit.
        progress: whether to print lines, in process 0 alone.

    Raises:
        InputError: a folder that holds a run, a run of another configuration or list, a ledger of another list.
        DataError: a file of which the ledger says that it decodes does not.
        TrainingError: a loss is not finite, or a file cannot be written.
    """
    config, folder, world = config or CVRLConfig(), RunFolder(out), join_world(device)
    notes: list[str] = []
    say = _teller(notes, shown=progress and world.is_main)
    with contextlib.ExitStack() as held:
        resuming = world.on_main(lambda: folder.admit(resume=resume, overwrite=overwrite))
        world.on_main(lambda: held.enter_context(folder.locked()))
        training = resolved(config.training, device=world.device)
        config = dataclasses.replace(config, training=training)
        if world.device.type == "cpu":
            keep_freed_memory()
        encoder, spec = start_encoder(config)
        record = build_record(config.to_dict(), videos=videos, model={"architecture": spec.architecture})
        world.on_main(lambda: folder.begin(record, resuming=resuming))
        pairs = _pairs(config, spec)
        entries = usable_videos(
            videos,
            folder=folder.path,
            ledger=ledger,
            recipe=pairs.recipe,
            resuming=resuming,
            world=world,
            workers=workers,
            say=say,
        )
        task = spread(build_contrast(config, encoder, feature_dim=spec.feature_dim), world)
        run = ClipRun(
            label="cvrl",
            entries=entries,
            clips=pairs,
            task=Contrast(
                task,
                config=config,
                spec=spec,
                entries=entries,
                autocast=resolve_precision(training.precision, device=world.device),  # type: ignore[arg-type]
            ),
            training=training,
            world=world,
            folder=folder.path,
            say=say,
            workers=workers,
        )
        if resuming:
            run.resume()
        run.train(held)
        source = {"kind": "cvrl", "videos": len(entries), "epochs": training.epochs, "seed": training.seed}
        world.on_main(lambda: _finish(encoder, spec, folder.path, source=source))
    return CVRLResult(
        folder=folder.path,
        steps=run.plan.total_steps,
        resumed_from=run.start,
        losses=run.last,
        is_main=world.is_main,
        notes=tuple(notes),
    )


def start_encoder(config: CVRLConfig) -> tuple[nn.Module, BackboneSpec]:
    """The encoder as the run begins with it, every parameter trainable."""
    if config.start is None:
        network = R3D(dataclasses.replace(config.encoder, seed=config.training.seed))
        return network, network.spec("cvrl")
    backbone = load_backbone(config.start)
    return backbone.encoder.requires_grad_(True), backbone.spec


def _pairs(config: CVRLConfig, spec: BackboneSpec) -> PairPlan:
    recipe = train_recipe(num_frames=spec.num_frames, stride=spec.stride, size=spec.size, clips=2)
    return PairPlan(
        recipe=recipe,
        augmentation=config.views[0],
        seed=config.training.seed,
        power=config.interval_power,
    )


def _finish(encoder: nn.Module, spec: BackboneSpec, folder: Path, *, source: Mapping[str, Any]) -> None:
    with disk_errors(folder, advice="Make room and resume."):
        write_backbone(encoder, spec, folder, source=source)


def resolved(training: ClipTraining, *, device: torch.device) -> ClipTraining:
    """The same with "auto" replaced by the precision that it means on `device`."""
    if training.precision != "auto":
        return training
    name = precision_name(resolve_precision(None, device=device))
    return dataclasses.replace(training, precision=name)  # type: ignore[arg-type]


def spread(task: nn.Module, world: World) -> Any:
    """On its device; over several GPUs batch normalisation sees the batch of all of them, as CVRL's does."""
    if world.size > 1 and world.device.type == "cuda":
        task = nn.SyncBatchNorm.convert_sync_batchnorm(task)
    return task.to(world.device)


def build_record(config: dict[str, Any], *, videos: VideoList, model: Mapping[str, Any]) -> dict[str, Any]:
    """run.json: the resolved configuration, the network, the list and the versions."""
    ids = json.dumps([entry.id for entry in videos]).encode("ascii")
    versions = {
        "scalefast": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    listed = {"videos": len(videos), "ids": hashlib.sha256(ids).hexdigest()}
    return {"config": config, "model": dict(model), "store": listed, "versions": versions}


def _teller(notes: list[str], *, shown: bool) -> Callable[[str], None]:
    def say(note: str) -> None:
        notes.append(note)
        if shown:
            print(note, file=sys.stderr, flush=True)

    return say
