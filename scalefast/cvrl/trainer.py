"""CVRL from a list of videos to a backbone folder."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import nn

from scalefast._precision import resolve_precision
from scalefast.backbones.loading import load_backbone
from scalefast.backbones.r3d import R3D
from scalefast.backbones.saved import write_backbone
from scalefast.backbones.spec import BackboneSpec
from scalefast.cvrl._contrast import Contrast, build_contrast
from scalefast.cvrl._decode import PairPlan
from scalefast.cvrl._launch import ClipRunResult, RunOptions, launch, resolved, spread
from scalefast.cvrl._run import ClipTask
from scalefast.cvrl.config import CVRLConfig
from scalefast.training.distributed import join_world
from scalefast.video import VideoEntry, VideoList, train_recipe

__all__ = ["train_cvrl"]


def train_cvrl(
    videos: VideoList,
    *,
    out: str | os.PathLike[str],
    config: CVRLConfig | None = None,
    device: str | torch.device | None = None,
    **options: Unpack[RunOptions],
) -> ClipRunResult:
    """Train a clip encoder on videos, without labels.

    Under `torchrun` every process calls this and takes its part of each batch; clips of all processes are contrasted.

    Args:
        videos: the list; labels are not looked at.
        out: the run folder, made if need be.
        config: what to do; None: as published.
        device: where to train; None takes the GPU of this process if there is one, else the CPU.
        options: `ledger`, `resume`, `overwrite`, `workers`, `progress`: see `RunOptions`.

    Raises:
        InputError: a folder that holds a run, a run of another configuration or list, a ledger of another list.
        DataError: a file of which the ledger says that it decodes does not.
        TrainingError: a loss is not finite, or a file cannot be written.
    """
    world = join_world(device)
    config = config or CVRLConfig()
    training = resolved(config.training, device=world.device)
    config = dataclasses.replace(config, training=training)
    encoder, spec = _start(config)

    def build(entries: list[VideoEntry]) -> ClipTask:
        task = spread(build_contrast(config, encoder, feature_dim=spec.feature_dim), world)
        autocast = resolve_precision(training.precision, device=world.device)  # type: ignore[arg-type]
        return Contrast(task, config=config, spec=spec, entries=entries, autocast=autocast)

    def finish(task: Any, entries: list[VideoEntry], folder: Path) -> None:
        source = {"kind": "cvrl", "videos": len(entries), "epochs": training.epochs, "seed": training.seed}
        write_backbone(task.encoder, spec, folder, source=source)

    return launch(
        videos,
        label="cvrl",
        out=out,
        world=world,
        config=config.to_dict(),
        training=training,
        clips=_pairs(config, spec),
        build=build,
        finish=finish,
        **options,
    )


def _start(config: CVRLConfig) -> tuple[nn.Module, BackboneSpec]:
    """The encoder as the run begins with it, every parameter trainable."""
    if config.start is None:
        network = R3D(dataclasses.replace(config.encoder, seed=config.training.seed))
        return network, network.spec("cvrl")
    backbone = load_backbone(config.start)
    return backbone.encoder.requires_grad_(True), backbone.spec


def _pairs(config: CVRLConfig, spec: BackboneSpec) -> PairPlan:
    return PairPlan(
        recipe=train_recipe(num_frames=spec.num_frames, stride=spec.stride, size=spec.size, clips=2),
        augmentation=config.views[0],
        seed=config.training.seed,
        power=config.interval_power,
    )
