"""Recipes: functions that return the configuration of a published run, to be changed with `.replace(...)`."""

from __future__ import annotations

from scalefast.training.config import PretrainConfig

__all__ = ["RECIPES", "k400", "ucf101"]


def k400() -> PretrainConfig:
    """Kinetics-400 (and other large sets): 200 epochs, batch 512 (SCALE, arXiv 2211.17042)."""
    return PretrainConfig(epochs=200)


def ucf101() -> PretrainConfig:
    """UCF101 and sets of about its size (10,000 videos): 1000 epochs, all else as on Kinetics-400."""
    return PretrainConfig(epochs=1000)


RECIPES = {"k400": k400, "ucf101": ucf101}
"""The recipes by the names under which the command line offers them."""
