"""Recipes: functions that return the configuration of a run, to be changed with `dataclasses.replace`."""

from __future__ import annotations

import dataclasses

from scalefast.backbones.r3d import R3DConfig
from scalefast.cvrl.config import ClipTraining, CVRLConfig
from scalefast.video import cvrl_augmentation

__all__ = ["RECIPES", "demo", "k400"]


def k400() -> CVRLConfig:
    """Kinetics-400 as published: R3D-50, 16 x 224 x 224 of stride 2, 200 epochs, batch 1,024 (arXiv 2008.03800)."""
    return CVRLConfig()


def demo() -> CVRLConfig:
    """A small R3D for the rendered demo set (288 videos of 80 x 96), minutes on a CPU.

    Its stem begins as computed motion filters: with a convolution of random weights the network told videos apart by
    their looks, and not the motions that are the demo's classes (150 steps: 40% of the clips found their partner, and
    the linear probe stayed at chance). Its clips last 4 of a video's 8 seconds, so that in nine pairs of ten both clips
    show both motions. Neither blurred nor solarised: the published blur reaches 2 pixels, which is most of the texture
    of frames this small. What it reaches, and what else was tried: docs/cvrl.md.
    """
    first, second = (dataclasses.replace(cvrl_augmentation(view), blur=0.0, solarise=0.0) for view in (1, 2))
    return CVRLConfig(
        encoder=R3DConfig(depth="tiny", stem="motion-energy", norm="group", size=48, num_frames=32, stride=4),
        hidden_dim=256,
        hidden_layers=1,
        projection_dim=64,
        temperature=0.2,
        views=(first, second),
        training=ClipTraining(
            epochs=10,
            batch_size=32,
            optimizer="adamw",
            learning_rate=2e-3,
            weight_decay=1e-4,
            warmup_epochs=2,
        ),
    )


RECIPES = {"k400": k400, "demo": demo}
"""The recipes by the names under which the command line offers them."""
