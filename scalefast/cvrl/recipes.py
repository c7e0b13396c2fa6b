"""Recipes: functions that return the configuration of a run, to be changed with `dataclasses.replace`."""

from __future__ import annotations

from scalefast.backbones.r3d import R3DConfig
from scalefast.cvrl.config import ClipTraining, CVRLConfig

__all__ = ["RECIPES", "demo", "k400"]


def k400() -> CVRLConfig:
    """Kinetics-400 as published: R3D-50, 16 x 224 x 224 of stride 2, 200 epochs, batch 1,024 (arXiv 2008.03800)."""
    return CVRLConfig()


def demo() -> CVRLConfig:
    """A small network for the rendered demo set, minutes on a CPU."""
    return CVRLConfig(
        encoder=R3DConfig(depth="tiny", width=0.5, size=48, num_frames=8, stride=6),
        hidden_dim=256,
        hidden_layers=1,
        projection_dim=64,
        training=ClipTraining(
            epochs=40, batch_size=48, learning_rate=0.03, warmup_epochs=2, weight_decay=1e-4
        ),
    )


RECIPES = {"k400": k400, "demo": demo}
"""The recipes by the names under which the command line offers them."""
