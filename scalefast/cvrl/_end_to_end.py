"""SCALE and the last blocks of its backbone trained together, straight from videos.

What the paper leaves to future work. Two sets of clips of every video are decoded anew in every epoch and encoded with
gradient; memory is bounded by gradient caching over clips and checkpointing of the trained blocks.

Shapes: `B` videos of this process, `V` clips of a set, `T` frames, `S` pixels, `D` feature.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from scalefast.backbones.backbone import FrozenBackbone
from scalefast.backbones.unfrozen import UnfrozenBackbone
from scalefast.cvrl._decode import RandomPlan
from scalefast.cvrl._launch import ClipRunResult, RunOptions, launch, resolved
from scalefast.cvrl._run import ClipTask
from scalefast.cvrl._stream import Batch
from scalefast.cvrl.config import ClipTraining
from scalefast.errors import InputError
from scalefast.kernels import RandomState
from scalefast.pretraining import PretrainingLosses, SCALEPretraining
from scalefast.training.config import PretrainConfig
from scalefast.training.distributed import join_world
from scalefast.training.state import build_task
from scalefast.video import ClipRecipe, VideoEntry, VideoList, normalize_positions, train_recipe

__all__ = ["BACKBONE_NAME", "pretrain_end_to_end"]

BACKBONE_NAME = "backbone"
"""Folder of the trained backbone inside the run folder."""


def pretrain_end_to_end(
    videos: VideoList,
    backbone: FrozenBackbone,
    *,
    out: str | os.PathLike[str],
    config: PretrainConfig | None = None,
    last: int | None = 1,
    chunk_clips: int | None = 16,
    recipe: ClipRecipe | None = None,
    device: str | torch.device | None = None,
    **options: Unpack[RunOptions],
) -> ClipRunResult:
    """Pretrain SCALE and the last blocks of a backbone on videos, without labels.

    The run folder holds the aggregator (`SCALE.from_pretrained`, `scalefast evaluate`) and, in `backbone/`, the trained
    network (`load_backbone`, `scalefast extract --backbone RUN/backbone`), with which the stores to judge it are made.

    Args:
        videos: the list; labels are not looked at.
        backbone: as loaded; its encoder is trained in place.
        config: of SCALE and its training, as for `pretrain`; the rate is that of the backbone, too.
        last: blocks of the backbone that train; None: all of it.
        chunk_clips: clips of a process whose activations are kept at a time; None: all.
        recipe: random clips, two sets of `config.views` each; None: the training recipe with the backbone's stride.
        device, options: as of `train_cvrl`.

    Raises:
        InputError: a recipe that does not fit backbone or views, blocks that are not there; and as `train_cvrl`.
        DataError, TrainingError: as `train_cvrl`.
    """
    world, config = join_world(device), config or PretrainConfig()
    training = resolved(_schedule(config, chunk_clips=chunk_clips), device=world.device)
    config = config.replace(precision=training.precision)
    weights = backbone.weights_hash
    unfrozen = UnfrozenBackbone(backbone.to(world.device), last=last)
    clips = _recipe(recipe, backbone, config)

    def build(entries: list[VideoEntry]) -> ClipTask:
        task = build_task(config, feature_dim=unfrozen.feature_dim)
        return EndToEnd(task.to(world.device), unfrozen, config=config)

    def finish(task: Any, entries: list[VideoEntry], folder: Path) -> None:
        task.scale.model.save_pretrained(folder)
        source = {"kind": "end to end", "start": backbone.spec.name, "last": last, "videos": len(entries)}
        unfrozen.save(folder / BACKBONE_NAME, source=source)

    return launch(
        videos,
        label="pretrain",
        out=out,
        world=world,
        config=config.to_dict(),
        facts={"backbone": weights, "last": last, "chunk_clips": chunk_clips, "recipe": clips.to_dict()},
        training=training,
        clips=RandomPlan(recipe=clips, seed=config.seed),
        build=build,
        finish=finish,
        **options,
    )


class EndToEnd:
    """SCALE's pretraining on an unfrozen backbone as a task of a run; see `ClipTask`."""

    def __init__(
        self, scale: SCALEPretraining, unfrozen: UnfrozenBackbone, *, config: PretrainConfig
    ) -> None:
        self.module: nn.Module = nn.ModuleDict({"scale": scale, "backbone": unfrozen})
        self.encoder: nn.Module = unfrozen.backbone.encoder
        self.scale, self._unfrozen, self._config = scale, unfrozen, config

    def prepare(self, batch: Batch, device: torch.device) -> Tensor:
        """uint8 [B 2 V, T, S, S, 3]."""
        return batch.clips.flatten(0, 1).to(device)

    def encode(self, clips: Tensor) -> Tensor:
        """uint8 [n, T, S, S, 3] -> float32 [n, D]."""
        return self._unfrozen(clips)

    def judge(self, features: Tensor, batch: Batch) -> PretrainingLosses:
        """SCALE's losses; masks and dropout are functions of (seed, step, video)."""
        config, device = self._config, features.device
        sets = features.unflatten(0, (len(batch.rows), 2, config.views))
        positions = _positions(batch).unflatten(1, (2, config.views)).to(device)
        rng = RandomState.create(config.seed, step=batch.step, rows=batch.rows.to(device))
        enabled = config.precision == "bf16"
        with torch.autocast(device.type, dtype=torch.bfloat16 if enabled else None, enabled=enabled):
            return self.scale(sets, positions, rng=rng)


def _positions(batch: Batch) -> Tensor:
    """float32 [B, 2 V, 7], as extraction keeps them: relative to the video's own clips."""
    rows = zip(batch.positions.numpy(), batch.durations.tolist(), strict=True)
    return torch.from_numpy(
        np.stack([normalize_positions(raw, mode="paper", duration=duration) for raw, duration in rows])
    ).float()


def _schedule(config: PretrainConfig, *, chunk_clips: int | None) -> ClipTraining:
    """AdamW as in pretraining."""
    return ClipTraining(
        epochs=config.epochs,
        batch_size=config.batch_size,
        optimizer="adamw",
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup_epochs=config.warmup_fraction * config.epochs,
        clip_grad_norm=config.clip_grad_norm,
        precision=config.precision,
        chunk_clips=chunk_clips,
        seed=config.seed,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
    )


def _recipe(recipe: ClipRecipe | None, backbone: FrozenBackbone, config: PretrainConfig) -> ClipRecipe:
    spec, clips = backbone.spec, 2 * config.views
    if recipe is None:
        return train_recipe(num_frames=spec.num_frames, stride=spec.stride, size=spec.size, clips=clips)
    if (recipe.clips, recipe.num_frames, recipe.size) != (clips, spec.num_frames, spec.size):
        raise InputError(
            f"the clip recipe gives {recipe.clips} clips of {recipe.num_frames} frames of {recipe.size} pixels; two "
            f"sets of {config.views} for {spec.name!r} are {clips} of {spec.num_frames} of {spec.size}"
        )
    return recipe
